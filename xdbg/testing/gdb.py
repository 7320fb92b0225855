"""A real gdb, driven over its machine interface. GDB manual: "The GDB/MI Interface".

Nothing here sleeps: a command waits for its own result, `cont` and its like wait for the stop that follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from linecache import getline
from time import monotonic
from types import TracebackType
from typing import Any, Self

from pygdbmi.gdbcontroller import GdbController

from .served import ServedGuest

DEFAULT_TIMEOUT_S = 60.0
_SETTINGS = ("remotetimeout 60", "mi-async on", "pagination off", "confirm off", "width 0", "debuginfod enabled off")
_AT_ONCE_S = 1e-9
"""Not 0, which pygdbmi takes for "wait for the whole time-out"."""


class GdbError(Exception):
    """gdb refused a command; the text is gdb's."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why and where the target stopped. `reason` is MI's: "breakpoint-hit", "end-stepping-range", ..."""

    reason: str
    function: str = ""
    line: int = 0
    file: str = ""
    address: int = 0
    signal: str = ""
    inferior: str = ""
    payload: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The text of the source line, without the space around it; empty if gdb did not find the file."""
        return getline(self.payload.get("frame", {}).get("fullname", ""), self.line).strip()

    @property
    def ended(self) -> bool:
        """Whether it is the end of an inferior."""
        return self.reason.startswith("exited")


class GdbSession:
    """gdb in a process of its own, attached to `address` unless that is empty.

    `settings` are what follows gdb's `set`, and are in force before it connects.
    """

    def __init__(
        self,
        address: str = "",
        *,
        gdb: Sequence[str] = ("gdb",),
        extended: bool = True,
        settings: Sequence[str] = (),
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._timeout = timeout
        self.guest: ServedGuest | None = None
        """The served guest, when the fixture `xdbg_gdb` made both."""
        command = [*gdb, "--nx", "--quiet", "--interpreter=mi3"]
        self._controller = GdbController(command, time_to_check_for_additional_output_sec=_AT_ONCE_S)
        self._token = 0
        self._stops: list[Stop] = []
        self._text: list[str] = []
        self.log: list[dict[str, Any]] = []
        """Every record that gdb sent."""
        try:
            for setting in (*_SETTINGS, *settings):
                self.mi(f"-gdb-set {setting}")
            if address:
                self.mi(f"-target-select {'extended-remote' if extended else 'remote'} {address}")
                self.drain()
        except BaseException:
            self.close()
            raise

    # -- commands

    def mi(self, command: str) -> dict[str, Any]:
        """Send an MI command and wait for its result. Raises `GdbError`."""
        self._token += 1
        token = self._token
        self._controller.write(f"{token}{command}", read_response=False)
        while True:
            for record in self._read():
                if record["type"] == "result" and record.get("token") == token:
                    payload = record.get("payload") or {}
                    if record["message"] == "error":
                        raise GdbError(payload.get("msg", "?"))
                    return payload if isinstance(payload, dict) else {"payload": payload}

    def run(self, command: str) -> str:
        """Type a command at gdb's prompt; what gdb printed. Raises `GdbError`."""
        self._text.clear()
        quoted = command.replace("\\", "\\\\").replace('"', '\\"')
        self.mi(f'-interpreter-exec console "{quoted}"')
        return "".join(self._text)

    def evaluate(self, expression: str) -> str:
        """The value of an expression, as gdb prints it."""
        quoted = expression.replace("\\", "\\\\").replace('"', '\\"')
        return str(self.mi(f'-data-evaluate-expression "{quoted}"')["value"])

    def number(self, expression: str) -> int:
        """The value of an integer expression or register."""
        return int(self.evaluate(f"(unsigned long)({expression})"), 0)

    def backtrace(self) -> list[str]:
        """The function names of all frames, innermost first."""
        return [frame.get("func", "??") for frame in self.mi("-stack-list-frames")["stack"]]

    def monitor(self, command: str) -> str:
        """What the server answers to ``monitor COMMAND``. Raises `GdbError`."""
        return self.run(f"monitor {command}")

    @property
    def instructions(self) -> int:
        """How many instructions the machine has executed: the time at which everything in it happens."""
        return int(self.monitor("when").split()[0])

    @property
    def instruction(self) -> str:
        """The instruction at the program counter, as gdb disassembles it."""
        return self.run("x/i $pc").strip().rpartition("\t")[2]

    # -- inferiors

    @property
    def inferior(self) -> int:
        """The number of the selected inferior; the kernel's is 1."""
        return self.number("$_inferior")

    def select(self, inferior: int) -> None:
        """Look at another inferior."""
        self.run(f"inferior {inferior}")

    def processes(self) -> dict[int, str]:
        """The guest's processes: pid and path of the program."""
        rows = [line.split() for line in self.monitor("ps").splitlines()]
        return {int(row[0]): row[4] for row in rows if row[0].isdecimal()}

    def attach_process(self, pid: int) -> int:
        """Make a process of the guest an inferior, and select it; gdb's number of it. Raises `GdbError`."""
        before = self.inferior
        added = self.run("add-inferior")
        number = int(added.rpartition("Added inferior ")[2].split()[0])
        self.select(number)
        try:
            self.run(f"attach {pid}")
        except GdbError:
            self.select(before)
            self.run(f"remove-inferiors {number}")
            raise
        self.drain()
        return number

    # -- running

    def go(self, command: str) -> Stop:
        """A command that resumes the target, typed at the prompt; the stop that follows."""
        self._stops.clear()
        self.run(command)
        stop = self.wait()
        # What gdb prints about the stop may come behind it, but not behind the answer to another command.
        self.mi("-list-thread-groups")
        return stop

    @property
    def printed(self) -> str:
        """What gdb printed since the last command was typed, the text about a stop included."""
        return "".join(self._text)

    def cont(self) -> Stop:
        """Continue to the next stop."""
        return self.go("continue")

    def step(self) -> Stop:
        """Step one source line, into calls."""
        return self.go("step")

    def next(self) -> Stop:
        """Step one source line, over calls."""
        return self.go("next")

    def stepi(self) -> Stop:
        """Step one instruction."""
        return self.go("stepi")

    def run_to_end(self) -> Stop:
        """Continue, whatever stops come, until an inferior has ended."""
        while not (stop := self.cont()).ended:
            pass
        return stop

    def finish(self) -> Stop:
        """Run until the selected frame returns."""
        return self.go("finish")

    def start_running(self, command: str = "continue") -> None:
        """Resume the target and don't wait."""
        self._stops.clear()
        # In the background: else gdb reads no further command, not even the one to interrupt, before the stop.
        self.run(f"{command} &")

    def interrupt(self) -> Stop:
        """Ctrl-C: stop the running target."""
        self.mi("-exec-interrupt --all")
        return self.wait()

    def states(self) -> dict[str, str]:
        """Which threads run and which are stopped, by gdb's number of the thread as in `$_thread`."""
        return {one["id"]: one["state"] for one in self.mi("-thread-info")["threads"]}

    def drain(self) -> None:
        """Forget stops that have been reported up to now, such as the one that follows an attach."""
        self.mi("-list-thread-groups")
        self._stops.clear()

    def wait(self) -> Stop:
        """The next stop."""
        while not self._stops:
            self._read()
        return self._stops.pop(0)

    def poll(self, timeout: float = 0.02) -> Stop | None:
        """The next stop, if it comes within so many seconds."""
        if not self._stops:
            self._note(self._controller.get_gdb_response(timeout_sec=timeout, raise_error_on_timeout=False))
        return self._stops.pop(0) if self._stops else None

    # -- the end

    def close(self) -> None:
        """End gdb; the target is left to the server's rules (detached if gdb says so)."""
        process = self._controller.gdb_process
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            self._controller.gdb_process = None

    def quit(self) -> None:
        """Let gdb leave by itself, as `quit` at its prompt does."""
        process = self._controller.gdb_process
        assert process is not None
        self._controller.write("-gdb-exit", read_response=False)
        process.wait(self._timeout)
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside

    def _read(self) -> list[dict[str, Any]]:
        deadline = monotonic() + self._timeout
        records = self._controller.get_gdb_response(timeout_sec=self._timeout, raise_error_on_timeout=False)
        if not records and monotonic() >= deadline:
            last = [record.get("payload") for record in self.log[-5:]]
            raise TimeoutError(f"gdb said nothing for {self._timeout:g} s; its last words: {last}")
        self._note(records)
        return list(records)

    def _note(self, records: Sequence[dict[str, Any]]) -> None:
        for record in records:
            self.log.append(record)
            if record["type"] in {"console", "target"} and record["payload"]:
                self._text.append(record["payload"])
            elif record["type"] == "notify" and record["message"] == "stopped":
                self._stops.append(_stop(record["payload"] or {}))


def _stop(payload: dict[str, Any]) -> Stop:
    frame = payload.get("frame", {})
    return Stop(
        reason=payload.get("reason", ""),
        function=frame.get("func", ""),
        line=int(frame.get("line", 0)),
        file=frame.get("file", ""),
        address=int(frame.get("addr", "0"), 0),
        signal=payload.get("signal-name", ""),
        inferior=payload.get("thread-id", ""),
        payload=payload,
    )
