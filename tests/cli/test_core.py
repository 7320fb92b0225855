"""--core FILE: what is left of a domain that crashes."""

import subprocess
import sys

from elftools.elf.elffile import ELFFile


def xdbg(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "xdbg", *map(str, arguments)], input=b"", capture_output=True, check=False
    )


def test_a_crash_leaves_a_core(tmp_path):
    core = tmp_path / "core"
    run = xdbg("run", "crash", "--append", "no-handler", "--core", core)
    assert run.returncode == 3
    first, second = run.stderr.decode().splitlines()
    assert first == f"xdbg: the core is in {core}"
    assert second.startswith("xdbg: the domain crashed: ")
    with core.open("rb") as file:
        elf = ELFFile(file)
        assert elf.header["e_type"] == "ET_CORE"
        assert elf.get_section_by_name(".xen_pages") is not None
    assert core.stat().st_mode & 0o777 == 0o600
    traced, xen = tmp_path / "traced", tmp_path / "xen"
    assert xdbg("trace", "crash", "--append", "no-handler", "--core", traced, "--xen-core", xen).returncode == 3
    assert traced.read_bytes() == core.read_bytes()
    with xen.open("rb") as file, core.open("rb") as other:
        elf = ELFFile(file)
        assert elf.num_segments() == 0  # by which crash and Xen's tools know the format
        assert elf.get_section_by_name(".xen_p2m").data() == ELFFile(other).get_section_by_name(".xen_p2m").data()


def test_no_crash_no_core(tmp_path):
    assert xdbg("run", "hello", "--core", tmp_path / "core").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_can_not_be_made_is_refused_before_the_domain_runs(tmp_path):
    (tmp_path / "there").touch()
    for path in (tmp_path / "there", tmp_path / "no" / "core"):
        run = xdbg("run", "crash", "--append", "no-handler", "--core", path)
        assert (run.returncode, run.stdout) == (2, b"")
        assert b"--core" in run.stderr
        assert b"--xen-core" in xdbg("run", "crash", "--append", "no-handler", "--xen-core", path).stderr
    same = xdbg("run", "crash", "--core", tmp_path / "same", "--xen-core", tmp_path / "same")
    assert (same.returncode, b"--xen-core" in same.stderr) == (2, True)
    assert xdbg("serve", "hello", "--dump-dir", tmp_path / "no").returncode == 2
