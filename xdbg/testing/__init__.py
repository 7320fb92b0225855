"""Scripted debug sessions for tests: serve a guest, drive a real gdb over it, look at what happened.

With pytest the fixtures of `xdbg.testing.plugin` are there as soon as xdbg is installed::

    def test_counter(xdbg_gdb):
        gdb = xdbg_gdb("tasks")
        gdb.run("break kernel_main")
        assert gdb.cont().function == "kernel_main"

Without pytest, `serve` and `GdbSession` are context managers. They need gdb, and nothing else. `LldbSession` does
the same with lldb; `xdbg.testing.clients` has the versions that come as Python packages.
"""

from .gdb import GdbError, GdbSession, Stop
from .lldb import LldbError, LldbSession
from .served import ServedGuest, serve, serve_domains

__all__ = ["GdbError", "GdbSession", "LldbError", "LldbSession", "ServedGuest", "Stop", "serve", "serve_domains"]
