"""Clients other than the system's gdb, and readers of cores, that come as Python packages: one version on all machines.

They are in the extra `clients`. `Client.command` skips the test that asks for one that is not installed, unless
XDBG_ALL_CLIENTS is set: where everything has to be tested, that is a failure.
"""

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import pytest

ALL_CLIENTS: Final = "XDBG_ALL_CLIENTS"
"""The environment variable that makes a missing client a failure."""


@dataclass(frozen=True, slots=True)
class Client:
    """A debugger in a Python package. `module`: what starts it."""

    name: str
    package: str
    module: str

    @property
    def installed(self) -> bool:
        """Whether the interpreter that runs us has it."""
        return find_spec(self.module.partition(".")[0]) is not None

    def command(self) -> list[str]:
        """What to execute. Skips the test that calls it, or fails it, when the package is missing."""
        if not self.installed:
            why = f"{self.name} is not installed: pip install 'xdbg[clients]' ({self.package})"
            if os.environ.get(ALL_CLIENTS):
                pytest.fail(why)
            pytest.skip(why)
        return [sys.executable, "-m", self.module]


GDB_18: Final = Client("gdb 18.1", "gdb-for-pwndbg", "gdb_for_pwndbg.gdb")
LLDB_23: Final = Client("lldb 23.1", "lldb-for-pwndbg", "lldb_for_pwndbg.lldb")
DRGN: Final = Client("drgn 0.3", "drgn", "drgn")
