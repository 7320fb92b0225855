"""Images for virtual disks: an archive, which GRUB takes for a file system, a file system by mke2fs; and RAM disks."""

import io
import subprocess
import tarfile


def tar(path, files):
    """A tar archive of (name, content)."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def ext2(path, files):
    """A file system of 8 MiB in blocks of 1 KiB with the same files."""
    tree = path.with_suffix(".tree")
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    command = ["mke2fs", "-q", "-t", "ext2", "-b", "1024", "-d", tree, path, "8M"]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
    return path


def newc(members):
    """A cpio archive of (name, mode, content, major << 8 | minor), the format of Linux's initial RAM disks."""
    out = bytearray()
    for inode, (name, mode, content, device) in enumerate((*members, ("TRAILER!!!", 0, b"", 0)), 1):
        numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, device >> 8, device & 0xFF, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)
