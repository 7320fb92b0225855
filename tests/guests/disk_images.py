"""Images for virtual disks: an archive, which GRUB takes for a file system, and a file system made by mke2fs."""

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
