"""The C compiler's view of Xen's public headers, to hold the Python declarations against."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

PRELUDE = """\
#define __XEN_TOOLS__ 1
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <xen/xen.h>
#include <xen/arch-x86/xen.h>
#include <xen/callback.h>
#include <xen/domctl.h>
#include <xen/elfnote.h>
#include <xen/errno.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/hvm/dm_op.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/io/blkif.h>
#include <xen/io/console.h>
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>
#include <xen/memory.h>
#include <xen/nmi.h>
#include <xen/physdev.h>
#include <xen/platform.h>
#include <xen/sched.h>
#include <xen/sysctl.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <asm/bootparam.h>
#include <asm/debugreg.h>
#include <asm/processor-flags.h>
#define IS_SIGNED(x) _Generic((x), signed char: 1, short: 1, int: 1, long: 1, long long: 1, default: 0)
"""


def _gcc(directory: Path, program: str, *options: str) -> str:
    """What gcc prints for a program; `directory` is where it runs."""
    source = directory / "program.c"
    source.write_text(program)
    done = subprocess.run(
        ["gcc", "-std=gnu11", "-Wall", *options, source.name],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def _headers_are_installed() -> None:
    for needed, found in (
        ("gcc", shutil.which("gcc")),
        ("Xen's public headers (libxen-dev)", Path("/usr/include/xen/xen.h").exists()),
    ):
        if not found:
            pytest.skip(f"{needed} is not installed")


@pytest.fixture(scope="session")
def c_values(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Iterable[str]], dict[str, int]]:
    """A function that has C evaluate integer expressions; results are modulo 2**64."""

    def evaluate(expressions: Iterable[str]) -> dict[str, int]:
        wanted = list(dict.fromkeys(expressions))
        lines = "\n".join(f'printf("%llx\\n", (unsigned long long)({expression}));' for expression in wanted)
        directory = tmp_path_factory.mktemp("c")
        _gcc(directory, f"{PRELUDE}\nint main(void)\n{{\n{lines}\nreturn 0;\n}}\n", "-o", "program")
        done = subprocess.run(["./program"], cwd=directory, capture_output=True, text=True, check=True)
        return dict(zip(wanted, (int(line, 16) for line in done.stdout.split()), strict=True))

    return evaluate


@pytest.fixture(scope="session")
def c_names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The headers' macros without parameters and their enumerators, by their names in capitals."""
    directory = tmp_path_factory.mktemp("c")
    names = re.findall(r"^#define (\w+) ", _gcc(directory, PRELUDE, "-E", "-dM"), re.MULTILINE)
    for body in re.findall(r"\benum \w+\s*\{(.*?)\}", _gcc(directory, PRELUDE, "-E", "-P"), re.DOTALL):
        names += re.findall(r"(\w+)\s*(?:=[^,]*)?(?:,|$)", body.strip())
    by_capitals: dict[str, list[str]] = {}
    for name in names:
        by_capitals.setdefault(name.upper(), []).append(name)
    return by_capitals
