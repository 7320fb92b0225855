"""A real lldb, driven by its own command line.

Commands are synchronous: one that resumes the target comes back at the next stop. `start_running` and `interrupt` are
for what can't be done that way.
"""

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import IO, Final, Self

DEFAULT_TIMEOUT_S: Final = 60.0
_PIECE: Final = 1 << 16


class LldbError(Exception):
    """lldb refused a command; the text is lldb's."""


class LldbSession:
    """lldb in a process of its own, attached to `address`; `file` has the symbols of what it will find there."""

    def __init__(
        self,
        address: str,
        *,
        file: Path | None = None,
        lldb: Sequence[str] = ("lldb",),
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._timeout = timeout
        self._process = subprocess.Popen(
            [*lldb, "--no-lldbinit", "--no-use-colors"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self._pieces: Queue[bytes] = Queue()
        self._drain = threading.Thread(target=_drain, args=(self._process.stdout, self._pieces), daemon=True)
        self._drain.start()
        self._count = 0
        try:
            self.run("settings set auto-confirm true")
            self._asynchronous(False)
            if file is not None:
                self.run(f"target create {file}")
            self.run(f"gdb-remote {address}")
        except BaseException:
            self.close()
            raise

    # -- commands

    def run(self, command: str) -> str:
        """Type a command; what lldb printed. Raises `LldbError`."""
        self._count += 1
        mark = f"<done {self._count}>"
        self._type(command)
        # Put together by lldb, so that an echo of the command is not taken for its output.
        self._type(f"script print('<' + 'done {self._count}>')")
        text = self._read_to(mark)
        lines = [line for line in text.splitlines() if not line.startswith("(lldb) ")]
        errors = [line for line in lines if line.startswith("error: ")]
        if errors:
            raise LldbError("\n".join(errors))
        return "\n".join(lines)

    def evaluate(self, python: str) -> str:
        """The value of a Python expression over lldb's API: `lldb.frame`, `lldb.process` and so on."""
        # What lldb says of a stop by itself may stand before the value or behind it.
        text = self.run(f"script print('<' + 'value ' + str({python}) + ' value' + '>')")
        return text.partition("<value ")[2].partition(" value>")[0]

    @property
    def stop_reason(self) -> str:
        """Why the selected thread stopped, in lldb's words."""
        return self.evaluate("lldb.thread.GetStopDescription(200)")

    @property
    def function(self) -> str:
        """The function that the selected frame is in."""
        return self.evaluate("lldb.frame.GetFunctionName()")

    def backtrace(self) -> list[str]:
        """The function names of all frames, innermost first."""
        names = self.evaluate("'|'.join(frame.GetFunctionName() or '??' for frame in lldb.thread)")
        return names.split("|")

    # -- running

    def start_running(self) -> None:
        """Continue and don't wait."""
        self._asynchronous(True)
        self.run("continue")

    def interrupt(self) -> None:
        """Stop the running target."""
        self._asynchronous(False)
        self.run("process interrupt")

    # -- the end

    def quit(self) -> None:
        """Let lldb leave by itself."""
        self._type("quit")
        self._process.wait(self._timeout)
        self.close()

    def close(self) -> None:
        """End lldb."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._drain.join(self._timeout)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside

    def _asynchronous(self, wanted: bool) -> None:
        self.run(f"script lldb.debugger.SetAsync({wanted})")

    def _type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _read_to(self, mark: str) -> str:
        text = ""
        while mark not in text:
            try:
                piece = self._pieces.get(timeout=self._timeout)
            except Empty:
                raise TimeoutError(
                    f"lldb said nothing for {self._timeout:g} s; its last words: {text[-500:]}"
                ) from None
            if not piece:
                raise LldbError(f"lldb has ended; its last words: {text[-500:]}")
            text += piece.decode(errors="replace")
        return text.partition(mark)[0]


def _drain(stream: IO[bytes], into: "Queue[bytes]") -> None:
    """Keep reading, so that lldb never waits for us; an empty piece is the end."""
    while data := os.read(stream.fileno(), _PIECE):
        into.put(data)
    into.put(b"")
