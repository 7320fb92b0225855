"""Where Debian's GRUB for Xen is, if `scripts/fetch-grub` has got it, and disks that it boots from."""

import gzip
from pathlib import Path

import pytest
from disk_images import tar

from xdbg.session.bundled import find_guest

PLACE = Path(__file__).resolve().parent.parent.parent / "build" / "grub"
GRUB = PLACE / "grub-x86_64-xen.bin"
MISSING = PLACE / "missing"

needs_grub = pytest.mark.skipif(
    not GRUB.exists(),
    reason=f"no GRUB: {MISSING.read_text().strip() if MISSING.exists() else 'scripts/fetch-grub has not been called'}",
)

MENU = """\
set timeout=0
menuentry "the other guest" {{
    linux /boot/{name} {line}
    {initrd}
}}
"""


def bootable(path, guest, line="", *, packed=False):
    """A disk from which GRUB boots a bundled guest at once."""
    guest = find_guest(guest)
    initrd = "initrd /boot/archive" if guest.modules else ""
    kernel = guest.kernel.read_bytes()
    files = {
        "boot/grub/grub.cfg": MENU.format(name=guest.name, line=line, initrd=initrd).encode(),
        f"boot/{guest.name}": gzip.compress(kernel) if packed else kernel,
    }
    for module in guest.modules:
        files["boot/archive"] = module.read_bytes()
    return tar(path, files)
