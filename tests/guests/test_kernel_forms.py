"""Every form in which a kernel's file may come is unpacked to the same ELF file, or refused with one clear line.

Invariant of the mutation test: whatever the bytes are, there is the ELF file, no larger than allowed, or an ImageError.
"""

import gzip
import io
import struct

import lz4.block
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_files import PACKERS, by_lzo, bzimage, sized

from xdbg.session.bundled import find_guest
from xdbg.session.console import Terminal
from xdbg.session.launch import Launch, LaunchError, launch
from xdbg.session.limits import Limits
from xdbg.session.run import Outcome, run_to_end
from xdbg.xen.bzimage import unpack_bzimage
from xdbg.xen.compression import unpack
from xdbg.xen.elf_image import parse_image
from xdbg.xen.elf_notes import ImageError

LIMIT = 64 << 20
TEXT = b"".join(b"%d bottles of beer on the wall\n" % n for n in range(20_000))
NOISE = b"".join(struct.pack("<I", n * 2654435761 % (1 << 32)) for n in range(100_000))


@pytest.fixture(scope="module")
def hello():
    return find_guest("hello").kernel.read_bytes()


def in_any_form(name, data):
    """A bzImage by the name of its compression, else what the name says."""
    forms = {"elf": lambda: data, "bin.gz": lambda: gzip.compress(data), "vmlinuz.gz": lambda: gzipped_bzimage(data)}
    return forms[name]() if name in forms else bzimage(PACKERS[name](data))


def gzipped_bzimage(data):
    return gzip.compress(bzimage(PACKERS["zstd"](data)))


@pytest.mark.parametrize("form", ["elf", "bin.gz", "vmlinuz.gz", *PACKERS])
def test_a_kernel_runs_to_its_end_in_whatever_form_it_comes(form, hello, tmp_path):
    (tmp_path / "hello").write_bytes(in_any_form(form, hello))
    launched = launch(Launch(str(tmp_path / "hello")))
    assert launched.image.elf == hello
    console = io.BytesIO()
    assert run_to_end(launched, Terminal(console), Limits(max_instructions=10_000_000)) is Outcome.POWERED_OFF
    assert b"PASS hello" in console.getvalue()


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("data", [b"x", b"\0" * 1000, TEXT, NOISE], ids=["byte", "zeroes", "text", "noise"])
def test_each_compression_gives_back_what_was_packed(name, data):
    unpacked = unpack(PACKERS[name](data), LIMIT)
    assert (unpacked.name, unpacked.data) == (name, data)


@pytest.mark.parametrize(("version", "flags"), [(0x0900, 1), (0x0900, 0x801), (0x1030, 1), (0x1030, 0x801)])
@pytest.mark.parametrize("name", [b"", b"a" * 255])
def test_every_header_that_lzop_has_written_is_read(version, flags, name):
    assert unpack(by_lzo(TEXT, version, flags, name), LIMIT).data == TEXT


def test_lz4_frames_may_follow_each_other():
    one = PACKERS["lz4"](b"one" * 50)[:-4]
    assert unpack(sized(one + one, b"one" * 100), LIMIT).data == b"one" * 100


@pytest.mark.parametrize("name", PACKERS)
def test_more_than_the_limit_is_refused_before_it_is_unpacked(name):
    with pytest.raises(ImageError, match=f"^the {name} data unpacks to more than 1 MiB$"):
        unpack(PACKERS[name](bytes(2 << 20)), 1 << 20)


@pytest.mark.parametrize("name", [name for name in PACKERS if name != "gzip"])
@pytest.mark.parametrize("said", [0, 1, 999, 1001, 100_000])
def test_a_wrong_length_field_is_refused(name, said):
    packed = PACKERS[name](bytes(1000))[:-4] + struct.pack("<I", said)
    with pytest.raises(ImageError, match=f"^the {name} data ") as caught:
        unpack(packed, LIMIT)
    assert len(str(caught.value)) < 200


def test_a_bomb_that_lies_about_its_length_is_not_unpacked_further_than_it_says():
    bomb = zstandard.ZstdCompressor(1).compress(bytes(256 << 20))
    with pytest.raises(ImageError, match="more than 4096 bytes, not the 4096"):
        unpack(bomb + struct.pack("<I", 4096), LIMIT)


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_kernel_is_refused(name, keep):
    packed = PACKERS[name](NOISE)
    with pytest.raises(ImageError, match=f"^the {name} data ") as caught:
        unpack(sized(packed[: int(len(packed) * keep)], NOISE), LIMIT)
    assert len(str(caught.value)) < 200


ELF = b"\x7fELF"
NINE_MIB = lz4.block.compress(bytes(9 << 20), store_size=False)
REFUSED = {
    "short": (bzimage(b"")[:0x240], "bzImage: truncated in the setup header"),
    "old": (bzimage(b"", version=0x207), "bzImage: boot protocol 2.07; the kernel can be found from 2.08 on"),
    "cut": (bzimage(bytes(1000))[:-200], "bzImage: truncated: the kernel in it ends at byte"),
    "no payload": (bzimage(b""), "packed in an unknown way (it begins with )"),
    "not packed": (bzimage(ELF), "packed in an unknown way (it begins with 7f 45 4c 46)"),
    "no kernel in it": (bzimage(PACKERS["xz"](TEXT)), "bzImage (xz): not an ELF file"),
    "not for PV": (bzimage(PACKERS["zstd"](ELF + bytes(100))), "bzImage (zstd): not for x86-64"),
    "packed twice": (gzip.compress(bzimage(PACKERS["lzo"](TEXT))), "gzip, bzImage (lzo): not an ELF file"),
    "gzip of gzip": (gzip.compress(gzip.compress(ELF)), "gzip: not an ELF file"),
    "lzop's magic alone": (bzimage(sized(PACKERS["lzo"](b"x")[:9], b"x")), "the lzo data is damaged (truncated)"),
    "an lzo block too large": (
        bzimage(by_lzo(b"x").replace(struct.pack(">II", 1, 1), struct.pack(">II", 1 << 26, 1))),
        "the lzo data is damaged (a block of 67108864 bytes)",
    ),
    "a dictionary too large": (
        bzimage(PACKERS["lzma"](TEXT)[:1] + struct.pack("<I", 1 << 30) + PACKERS["lzma"](TEXT)[5:]),
        "the lzma data is damaged (Memory usage limit exceeded)",
    ),
    "an lz4 block too large": (
        bzimage(sized(b"\x02\x21\x4c\x18" + struct.pack("<I", 1 << 31), TEXT)),
        "the lz4 data is damaged (truncated)",
    ),
    "an lz4 block of more than 8 MiB": (
        bzimage(sized(b"\x02\x21\x4c\x18" + struct.pack("<I", len(NINE_MIB)) + NINE_MIB, bytes(9 << 20))),
        "the lz4 data is damaged (Decompression failed",
    ),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_kernel_can_be_found_in_is_refused_with_the_form_that_was_found(data, message):
    with pytest.raises(ImageError) as caught:
        parse_image(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_the_user_sees_file_and_form_in_one_line(tmp_path):
    (tmp_path / "vmlinuz").write_bytes(bzimage(PACKERS["lzma"](TEXT)))
    with pytest.raises(LaunchError, match=r"vmlinuz: bzImage \(lzma\): not an ELF file$"):
        launch(Launch(str(tmp_path / "vmlinuz")))


SMALL = {name: bzimage(pack(TEXT[:3000])) for name, pack in PACKERS.items()}


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(SMALL)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.floats(0, 1),
)
def test_a_changed_file_is_unpacked_or_refused(name, changes, cut):
    data = bytearray(SMALL[name])
    payload = len(bzimage(b"")) - 100
    for place, value in changes:
        at = payload + int(place * (len(data) - payload)) if value % 8 else 0x1F1 + int(place * 0x60)
        data[at] = value
    if cut is not None:
        del data[int(cut * len(data)) :]
    try:
        size = len(unpack_bzimage(bytes(data), 1 << 20).data)
    except ImageError as error:
        line, size = str(error), 0
    else:
        line = ""
    assert "\n" not in line
    assert len(line) < 200
    assert size <= 1 << 20
