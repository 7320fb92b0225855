"""The guests that come with xdbg: folders of `guests/`, built into `build/guests/`."""

import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent.parent
_SOURCES = _ROOT / "guests"
_BUILD = _ROOT / "build" / "guests"
_DISK = re.compile(r"^ \* Disk: \d+ sectors$", re.MULTILINE)
_COMMENT = re.compile(r"/\*+(.*?)\*/", re.DOTALL)
_VCPUS = re.compile(r"^ \* Vcpus: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BundledGuest:
    """A guest: its name, its first comment in one sentence, its kernel, the modules and disks it wants."""

    name: str
    summary: str
    kernel: Path
    modules: tuple[Path, ...]
    disks: tuple[Path, ...]
    vcpus: int
    """How many it wants: `Vcpus: N` in its first comment, else one."""

    @property
    def built(self) -> bool:
        """Whether the kernel is there."""
        return self.kernel.is_file()


def bundled_guests() -> list[BundledGuest]:
    """All of them, by name; none where xdbg was installed without its source tree."""
    return [_guest(source.parent) for source in sorted(_SOURCES.glob("*/main.c"))]


def find_guest(name: str) -> BundledGuest | None:
    """The bundled guest of that name."""
    return next((guest for guest in bundled_guests() if guest.name == name), None)


def _guest(folder: Path) -> BundledGuest:
    archive = _BUILD / f"{folder.name}.archive"
    image = _BUILD / f"{folder.name}.image"
    has_programs = (folder / "programs").is_dir()
    source = (folder / "main.c").read_text(encoding="utf-8")
    head = source.partition("*/")[0]
    wanted = _VCPUS.search(head)
    has_disk = _DISK.search(head) is not None
    return BundledGuest(
        folder.name,
        _summary(source),
        _BUILD / f"{folder.name}.elf",
        (archive,) if has_programs else (),
        (image,) if has_disk else (),
        1 if wanted is None else int(wanted[1]),
    )


def _summary(source: str) -> str:
    """The first sentence of the first comment."""
    found = _COMMENT.search(source)
    if found is None:
        return ""
    lines = [line.strip().lstrip("*").strip() for line in found[1].splitlines()]
    text = " ".join(line for line in lines if line)
    sentence = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    return sentence.partition(": ")[2] or sentence
