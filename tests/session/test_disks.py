"""Disks as users write them, the files behind them, and what a domain's writes do to those."""

import hashlib
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from xdbg.cli import main
from xdbg.session.bundled import find_guest
from xdbg.session.console import Terminal
from xdbg.session.disk_images import DiskImages
from xdbg.session.disks import Disk, DiskError, device_number, parse_disk, with_devices
from xdbg.session.domain_spec import parse_domain
from xdbg.session.launch import Launch, LaunchError, launch
from xdbg.session.limits import Limits
from xdbg.session.packet_log import DomainHeader
from xdbg.session.run import Outcome, run_to_end
from xdbg.xen.block_contents import Access, BlockError

RO, COW, THROUGH = Access.READ_ONLY, Access.COPY_ON_WRITE, Access.WRITE_THROUGH


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("disk.img", Disk(Path("disk.img"))),
        ("disk.img,ro", Disk(Path("disk.img"), access=RO)),
        ("disk.img,write-through", Disk(Path("disk.img"), access=THROUGH)),
        ("file:/a/b.img,xvda,r", Disk(Path("/a/b.img"), "xvda", RO)),
        ("phy:/dev/vg/lv,xvdb1,w", Disk(Path("/dev/vg/lv"), "xvdb1", COW)),
        ("tap:aio:/a.img,hda,rw", Disk(Path("/a.img"), "hda", COW)),
        ("/a.img,raw,xvda,w", Disk(Path("/a.img"), "xvda", COW)),
        ("/a.img, raw , xvda , rw", Disk(Path("/a.img"), "xvda", COW)),
        ("/a.img,,xvda", Disk(Path("/a.img"), "xvda", COW)),
        ("format=raw,vdev=xvda,access=rw,target=/a.img", Disk(Path("/a.img"), "xvda", COW)),
        ("format=raw, vdev=sda, access=ro, target=/with,comma=x.img", Disk(Path("/with,comma=x.img"), "sda", RO)),
        ("vdev=xvdc,target=/a.img", Disk(Path("/a.img"), "xvdc", COW)),
        ("cd.iso,hdc:cdrom,r", Disk(Path("cd.iso"), "hdc", RO, cdrom=True)),
        ("cd.iso,devtype=cdrom", Disk(Path("cd.iso"), "", RO, cdrom=True)),
        ("/a.img,raw,xvda,w,backendtype=qdisk,discard", Disk(Path("/a.img"), "xvda", COW)),
    ],
)
def test_a_disk_is_understood_and_written_again(text: str, disk: Disk) -> None:
    assert parse_disk(text) == disk
    assert parse_disk(str(disk)) == disk


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no file"),
        (",xvda,w", "there is no file"),
        ("qcow2:/a.img,xvda,w", "qcow2 can't be used"),
        ("/a.img,vhd,xvda,w", "vhd can't be used"),
        ("format=qcow2,target=/a.img", "qcow2 can't be used"),
        ("/a.img,xvda,xvdb", "vdev is there twice"),
        ("/a.img,r,w", "access is there twice"),
        ("/a.img,target=/b.img", "'/a.img' is no access"),
        ("/a.img,nonsense", "'nonsense' is no access"),
        ("/a.img,xvda17777", "is no access"),
        ("/a.img,access=x", "'x' is no access"),
        ("/a.img,vdev=abc", "'abc' is no virtual device"),
        ("/a.img,script=block-nbd", "no key 'script'"),
        ("cd.iso,cdrom,w", "a CD-ROM is read only"),
    ],
)
def test_what_is_no_disk_is_told_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(DiskError) as caught:
        parse_disk(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("xvda", 51712),
        ("xvda1", 51713),
        ("xvdb", 51728),
        ("xvdp15", 51967),
        ("xvdq", 1 << 28 | 16 << 8),
        ("xvdaa", 1 << 28 | 26 << 8),
        ("xvda16", 1 << 28 | 16),
        ("d0p1", 51713),
        ("d16", 1 << 28 | 16 << 8),
        ("hda", 768),
        ("hdb2", 834),
        ("hdc", 5632),
        ("hdd", 5696),
        ("hde", None),
        ("sda", 2048),
        ("sdp15", 2048 + 255),
        ("sdq", None),
        ("sda16", None),
        ("51712", 51712),
        ("0xca00", 51712),
        ("xvd", None),
        ("xvda0", None),
        ("xvda256", None),
    ],
)
def test_devices_have_the_numbers_that_xl_gives_them(name: str, number: int | None) -> None:
    assert device_number(name) == number


def test_disks_without_a_device_get_the_next_that_is_free() -> None:
    disks = [Disk(Path("1")), Disk(Path("2"), "xvda"), Disk(Path("3"))]
    assert [(number, disk.vdev) for number, disk in with_devices(disks)] == [
        (51728, "xvdb"),
        (51712, "xvda"),
        (51744, "xvdc"),
    ]
    with pytest.raises(DiskError, match="two disks are d0: 2 and 4"):
        with_devices([*disks, Disk(Path("4"), "d0")])
    with pytest.raises(DiskError, match="too many disks"):
        with_devices([Disk(Path(str(number))) for number in range(27)])


def test_a_file_that_is_no_image_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(bytes(1000))
    (tmp_path / "empty").write_bytes(b"")
    for name, reason in (
        ("nothing", "No such file"),
        (".", "a directory"),
        ("odd", "1000 bytes, which is no number of sectors"),
        ("empty", "0 bytes"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(LaunchError, match=reason) as caught:
            launch(Launch("hello", disks=(Disk(tmp_path / name),)))
        assert "\n" not in str(caught.value)


def test_a_file_that_is_written_to_has_no_other_disk(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(512))
    with pytest.raises(LaunchError, match="behind another disk"):
        launch(Launch("hello", disks=(Disk(path), Disk(path, access=THROUGH))))
    assert launch(Launch("hello", disks=(Disk(path), Disk(path, access=RO)))).domain.disks.keys() == {51712, 51728}


def test_an_image_that_becomes_shorter_is_an_error_of_the_request(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(1024))
    images = DiskImages()
    assert images.open("1/xvda", Disk(path)) == 2
    path.write_bytes(bytes(600))
    with pytest.raises(BlockError, match="shorter"):
        images.read("1/xvda", 0, 1024)
    with pytest.raises(BlockError, match="Bad file descriptor"):
        images.write("1/xvda", 0, b"x")
    images.close("1/")
    with pytest.raises(BlockError, match="no such image"):
        images.read("1/xvda", 0, 512)


def run_disk(disks: tuple[Disk, ...] = ()) -> Outcome:
    launched = launch(Launch("disk", disks=disks))
    return run_to_end(launched, Terminal(BytesIO()), Limits(max_instructions=100_000_000))


def image_of_the_guest() -> Path:
    guest = find_guest("disk")
    assert guest is not None
    [path] = guest.disks
    return path


def test_a_run_leaves_the_image_as_it_was(tmp_path: Path) -> None:
    before = hashlib.sha256(image_of_the_guest().read_bytes()).digest()
    assert run_disk() is Outcome.POWERED_OFF
    assert hashlib.sha256(image_of_the_guest().read_bytes()).digest() == before
    path = tmp_path / "copy"
    path.write_bytes(image_of_the_guest().read_bytes())
    path.chmod(0o400)
    assert run_disk((Disk(path, "xvda"),)) is Outcome.POWERED_OFF


def test_a_disk_that_writes_through_changes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "copy"
    path.write_bytes(image_of_the_guest().read_bytes())
    assert run_disk((Disk(path, access=THROUGH),)) is Outcome.POWERED_OFF
    data = path.read_bytes()
    assert data[11 * 512 : 12 * 512] == (0xABCDEF).to_bytes(8, "little") * 64
    assert data[: 10 * 512] == image_of_the_guest().read_bytes()[: 10 * 512]


def test_the_guest_is_refused_its_writes_to_a_read_only_disk() -> None:
    assert run_disk((Disk(image_of_the_guest(), access=RO),)) is Outcome.CRASHED


def test_domains_of_a_description_and_of_a_configuration_file_have_disks(tmp_path: Path) -> None:
    config = tmp_path / "a.cfg"
    config.write_text('name = "a"\nkernel = "hello"\ndisk = ["file:/a.img,xvda,r", "/b.img,raw,xvdb,w"]\n')
    expected = (Disk(Path("/a.img"), "xvda", RO), Disk(Path("/b.img"), "xvdb", COW))
    assert parse_domain(str(config), print).disks == expected
    described = parse_domain('kernel=hello,disk="/a.img,xvda,r",disk="/b.img,xvdb"', print)
    assert described.disks == expected
    config.write_text('name = "a"\nkernel = "hello"\ndisk = ["qcow2:/a.img,xvda,r"]\n')
    for text in (str(config), 'kernel=hello,disk="/a.img,qcow2"'):
        with pytest.raises(LaunchError, match="qcow2 can't be used"):
            parse_domain(text, print)


def test_a_mistake_on_the_command_line_is_told_and_ends_it() -> None:
    runner = CliRunner()
    for argument, reason in (("/nowhere", "No such file"), ("a.img,qcow2", "can't be used"), ("a,b,c", "is no access")):
        result = runner.invoke(main, ["run", "hello", "--disk", argument])
        assert result.exit_code == 2
        assert reason in result.output
    twice = runner.invoke(main, ["run", "hello", "--disk", "a,xvda", "--disk", "b,d0"])
    assert (twice.exit_code, twice.output) == (2, "Error: two disks are d0: a and b\n")


def test_a_packet_log_knows_what_was_on_the_disks(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(512))
    header = DomainHeader.of(Launch("hello", disks=(Disk(path, "xvdb", RO),)))
    assert DomainHeader.decode(header.encode()) == header
    path.write_bytes(bytes(511) + b"x")
    assert DomainHeader.of(header.launch).disk_digests != header.disk_digests
    assert len(DomainHeader.of(Launch("disk")).disk_digests) == 1
