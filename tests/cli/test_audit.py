"""--audit: runs as before while all is well, and a clear report when it is not."""

import subprocess
import sys

import pytest

BROKEN = """
import xdbg.xen.page_table_entries as entries
entries.put_page_from_l1e = lambda hv, l1e: None
from xdbg.cli import main
main()
"""


def run(*arguments: str, program: str = "from xdbg.cli import main; main()") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize("command", [["run"], ["trace", "--events", "hypercall"]])
def test_an_audited_run_is_like_any_other(command: list[str]) -> None:
    audited, plain = run(*command, "hello", "--audit", "10"), run(*command, "hello")
    assert audited.returncode == plain.returncode == 0
    assert audited.stdout == plain.stdout


def test_a_mistake_in_counting_ends_the_program_and_names_the_frame() -> None:
    result = run("run", "hello", "--audit", "10", program=BROKEN)
    assert result.returncode == 70
    assert result.stderr.startswith("Error: the audit found what must not be\nmfn 0x")
    assert "references were found" in result.stderr
    assert "Traceback" not in result.stderr


def test_how_often_is_a_number_from_1_up() -> None:
    assert run("run", "hello", "--audit", "0").returncode == 2
