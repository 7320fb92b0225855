"""One debugger's connection: bytes in, bytes out, and what the session must know in between. No I/O.

The session feeds what it read from the socket to `receive`, sends what `data_to_send` hands out, and then looks at
`state`. The target is called from within `receive` and from within `stop`.

States:

IDLE
    The guest stands still, the client is in control. Each request is answered at once, in order, exactly once. An
    interrupt byte crossed our stop reply on the way. If the client shows that stop to its user, the purpose is
    fulfilled, and the byte is dropped. But gdb resumes by itself behind a step over a breakpoint, or where a condition
    that it evaluates is false, a thousand times a second; so the byte is kept for the next request that resumes. What
    tells the two cases apart is that a client lists the threads when it shows a stop.
RUNNING
    A request has resumed the guest (`Resume.resume` has been called) and its answer is outstanding. The session runs
    the guest until it has a reason to stop and then calls `stop`, which answers and makes the connection IDLE. Only the
    interrupt byte is acted on (`Resume.interrupt`); requests that a client sends nevertheless wait for the stop. They
    are answered inside `stop`, so the state may be RUNNING again when `stop` returns.
    In non-stop (QNonStop:1) this state is never entered: what resumes is answered at once, requests are answered while
    threads run, and `stop` notifies of single threads. One notification is outstanding at a time; the events behind it
    wait until the client fetches them by vStopped. `stop` may be called at any time then, and the session asks the
    target, not the state, whether there is something to run.
DISCONNECTED
    The client has left (`departure` says how) and is told nothing more, except what `data_to_send` still holds. Input
    is ignored. The session closes the transport.

Acknowledgements: until QStartNoAckMode each packet is acknowledged with ``+`` (or ``-`` when its checksum is wrong: the
client sends it again), and ``-`` from the client repeats our last packet. Afterwards packets with a wrong checksum are
dropped; the transport does not make any.

Memory is bounded. When more than `OUTPUT_LIMIT` of answers wait to be sent, requests stay undecoded and `throttled` is
true: send, then call ``receive(b"")``; don't read meanwhile. A client that sends more than `WAITING_LIMIT` while the
guest runs, or is read on although throttled, is disconnected; and so is one that confirms no stops (`StopQueue`).

An *observing* client is refused what the packet table does not allow it, and is throttled after each answer, so that
the session can look after others in between.
"""

# mypy: disable-error-code="type-abstract"
# (capabilities are protocols, asked for by name; none is instantiated)

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum
from errno import E2BIG, ESRCH
from typing import Final, TypeVar, cast

from xdbg.rsp import (
    handlers,  # noqa: F401 - fills the packet table
    table,
)
from xdbg.rsp.client import ClientFeatures
from xdbg.rsp.frame_view import FrameView
from xdbg.rsp.framing import MAX_PAYLOAD, Decoder, Mark, escaped_size, frame, notification, only_packet
from xdbg.rsp.packets.transfers import Transfer
from xdbg.rsp.registers import RIP
from xdbg.rsp.replies import (
    BinaryData,
    Error,
    NoResumed,
    Output,
    Reply,
    StopEvent,
    StopReply,
    encode,
)
from xdbg.rsp.stop_queue import StopQueue
from xdbg.rsp.tap import Tap
from xdbg.rsp.target import File, Resume, Target, TargetError, Tracepoints
from xdbg.rsp.threadid import EVERY_THREAD, Thread, ThreadId
from xdbg.rsp.tracepoints import TraceFrame

C = TypeVar("C")

OUTPUT_LIMIT: Final = 2 * MAX_PAYLOAD
"""Bytes of answers beyond which no further request is looked at; one more reply fits behind it."""
WAITING_LIMIT: Final = 4 * MAX_PAYLOAD
"""Bytes of requests that may wait for a stop, or for room in the output."""
_WAITING_PACKETS: Final = 4096
_TEXT_PER_OUTPUT: Final = 4096


class State(Enum):
    """See the module's docstring."""

    IDLE = "idle"
    RUNNING = "running"
    DISCONNECTED = "disconnected"


class Departure(Enum):
    """How a client left."""

    DETACHED = "detached"  #: the guest shall go on without it
    KILLED = "killed"  #: the guest shall end
    LOST = "lost"  #: the transport broke; as detached, but the client may have left break points behind
    FLOODED = "flooded"  #: we broke off: too much input


class Connection:
    """The protocol's server side for one client and one target."""

    reply_limit: Final = MAX_PAYLOAD - 16
    """Bytes that fit in a binary reply beside its prefix, as long as none must be escaped."""

    def __init__(self, target: Target, *, observing: bool = False) -> None:
        self.target = target
        self.observing = observing
        self.tap: Tap | None = None
        """Who listens in."""
        self._output_limit = 0 if observing else OUTPUT_LIMIT
        self.capabilities = table.providers(target)
        self.state = State.IDLE
        self.departure: Departure | None = None
        # What requests have set.
        self.client = ClientFeatures()
        self.extended = False
        self.non_stop = False
        self.resumed: ThreadId = EVERY_THREAD
        self.unlisted: list[Thread] = []
        self.left_behind: set[int] = set()
        """Processes of a former target that the client may still take for attached."""
        self.files: dict[int, File] = {}
        self.file_system = 0
        self.frame: FrameView | None = None
        self.trace_pieces: list[bytes] = []
        self._thread: Thread | None = None
        self._document: tuple[str, str, bytes] | None = None
        self.stops = StopQueue()
        """Those of non-stop that the client has not confirmed."""
        # The wire.
        self._decoder = Decoder()
        self._output: list[bytes] = []
        self._output_size = 0
        self._last_packet = b""
        self._last_is_waiting = False
        self._acknowledging = True
        self._may_resume_itself = False
        self._interrupted = False
        self._waiting: deque[bytes | None] = deque()  # None: a packet that was too long
        self._waiting_size = 0

    # The session's side.

    def receive(self, data: bytes) -> None:
        """Takes bytes from the client, in pieces of any size, and answers as many requests as there is room for."""
        if self.state is State.DISCONNECTED:
            return
        if self.throttled and len(self._decoder) + len(data) > WAITING_LIMIT:
            self._depart(Departure.FLOODED)
            return
        if self.state is State.IDLE and not self.throttled and not self._waiting and not len(self._decoder):
            payload = only_packet(data)
            if payload is not None:
                self._acknowledge(b"+")
                self._answer(payload)
                return
        self._decoder.feed(data)
        self._advance()

    def data_to_send(self) -> bytes:
        """All bytes for the client since the last call; they count as sent."""
        data = b"".join(self._output)
        self._output.clear()
        self._output_size = 0
        self._last_is_waiting = False
        return data

    @property
    def throttled(self) -> bool:
        """Whether requests may wait for room in the output; see the module's docstring."""
        return self.state is State.IDLE and self._output_size > self._output_limit

    def stop(self, event: StopEvent) -> None:
        """The guest stands still: answers the request that resumed it. Only while RUNNING.

        In non-stop at any time: a thread stands still, or something of that kind has happened.
        """
        if self.non_stop:
            self._notify(event)
            return
        assert self.state is State.RUNNING, "a stop without a request to answer"
        self.state = State.IDLE
        self._send(self.show_stop(event))
        if self._waiting or len(self._decoder):
            self._advance()

    def output(self, text: str) -> bool:
        """Shows text on the client's console. False: it can't be told now, since the guest does not run."""
        if self.state is not State.RUNNING:
            return False
        self.show(text)
        return True

    def lose(self) -> None:
        """The transport is gone."""
        if self.state is not State.DISCONNECTED:
            self._depart(Departure.LOST)

    # The handlers' side.

    def capability(self, protocol: type[C]) -> C | None:
        """The target or its part that implements a protocol of `target` that the packet table knows; None: neither."""
        return cast("C | None", self.capabilities.get(protocol))

    def select_frame(self, frame: TraceFrame | None) -> None:
        """Registers and memory are those of a trace frame from now on, or the target's own again."""
        tracepoints = self.capability(Tracepoints)
        self.frame = None if frame is None or tracepoints is None else FrameView(self.target, tracepoints, frame)
        self.capabilities[Target] = self.target if self.frame is None else self.frame

    def thread(self, pattern: ThreadId | None = None) -> Thread:
        """The current thread, or the one that a pattern names. TargetError(ESRCH) when there is no such thread."""
        if pattern is not None:
            return self._resolve(pattern)
        if self._thread is None:
            self._thread = self._resolve(EVERY_THREAD)
        return self._thread

    def thread_if_any(self) -> Thread | None:
        """The current thread; None when no process is attached."""
        try:
            return self.thread()
        except TargetError:
            return None

    def select(self, pattern: ThreadId) -> None:
        """Makes a thread the current one."""
        self._thread = self._resolve(pattern)

    def pids(self) -> list[int]:
        """The attached processes, each once, in the target's order."""
        return list(dict.fromkeys(info.thread.pid for info in self.target.threads()))

    def forget(self, pid: int) -> None:
        """A process has left the session."""
        if self._thread is not None and self._thread.pid == pid:
            self._thread = None
        self._document = None
        self.stops.forget(pid)

    def debug(self, target: Target, former: Iterable[int]) -> None:
        """Another target in place of the one up to now, which had these processes attached.

        What the client chose there counts no more.
        """
        self.left_behind.update(former)
        self.target = target
        self.capabilities = table.providers(target)
        self.frame = None
        self.trace_pieces = []
        self.resumed = EVERY_THREAD
        self.unlisted = []
        self._thread = None
        self._document = None
        self.stops.clear()

    def forget_document(self) -> None:
        """The document that is being read may have changed."""
        self._document = None

    def show_stop(self, event: StopEvent) -> StopEvent:
        """Notes that the client is told of a stop: it takes the thread named there for the current one."""
        self._thread = event.thread if isinstance(event, StopReply) else None
        self._document = None
        if self.client.threads_in_stop_reply and isinstance(event, StopReply):
            threads = [info.thread for info in self.target.threads()]
            return replace(event, threads=tuple((thread, self._place(thread)) for thread in threads))
        return event

    def shown(self) -> None:
        """The client lists the threads: its user gets to see the stop."""
        self._interrupted = self._may_resume_itself = False

    def run(self) -> None:
        """The target has been resumed; `stop` will answer."""
        self.state = State.RUNNING
        self._may_resume_itself = True
        if self._interrupted:
            self._interrupted = False
            self._interrupt()

    def enter_non_stop(self, *, on: bool) -> None:
        """QNonStop."""
        self.non_stop = on
        self.stops.clear()

    def leave(self, *, killed: bool) -> None:
        """The client ends the session."""
        self._depart(Departure.KILLED if killed else Departure.DETACHED)

    def stop_acknowledging(self) -> None:
        """QStartNoAckMode."""
        self._acknowledging = False

    def show(self, text: str) -> None:
        """Sends console text in pieces that any client takes."""
        for start in range(0, len(text), _TEXT_PER_OUTPUT):
            self._send(Output(text[start : start + _TEXT_PER_OUTPUT]))

    def transfer(self, name: str, request: Transfer, produce: Callable[[], bytes]) -> Reply:
        """A piece of a document, ``m`` before it, or ``l`` if it is the last.

        The document is made when its beginning is asked for, and stays the same until its end has been read.
        """
        if request.offset == 0 or self._document is None or self._document[:2] != (name, request.annex):
            self._document = (name, request.annex, produce())
        document = self._document[2]
        data = self.fitting(document[request.offset : request.offset + min(request.length, self.reply_limit)])
        more = request.offset + len(data) < len(document)
        return BinaryData(b"m" if more else b"l", data)

    def fitting(self, data: bytes) -> bytes:
        """As much of the beginning of `data` as fits in one reply when escaped."""
        if len(data) <= self.reply_limit // 2 or escaped_size(data) <= self.reply_limit:
            return data
        low, high = self.reply_limit // 2, min(len(data), self.reply_limit)
        while low < high:
            middle = (low + high + 1) // 2
            if escaped_size(memoryview(data)[:middle].tobytes()) <= self.reply_limit:
                low = middle
            else:
                high = middle - 1
        return data[:low]

    # Inside.

    def _place(self, thread: Thread) -> int | None:
        try:
            return int.from_bytes(self.target.read_register(thread, RIP), "little")
        except TargetError:
            return None

    def _resolve(self, pattern: ThreadId) -> Thread:
        exact = pattern.exact()
        if exact is not None:
            if self.target.is_alive(exact):
                return exact
        elif self._thread is not None and pattern.matches(self._thread) and self.target.is_alive(self._thread):
            return self._thread
        else:
            for info in self.target.threads():
                if pattern.matches(info.thread):
                    return info.thread
        raise TargetError(ESRCH, "no such thread")

    def _depart(self, departure: Departure) -> None:
        self.state = State.DISCONNECTED
        self.departure = departure
        self.files.clear()
        self._waiting.clear()
        self.stops.clear()
        self._decoder = Decoder()

    def _advance(self) -> None:
        """Acts on what has been received, as far as the state and the room in the output allow."""
        while self.state is not State.DISCONNECTED and not self.throttled:
            if self._waiting and self.state is State.IDLE:
                payload = self._waiting.popleft()
                self._waiting_size -= len(payload or b"")
                self._answer(payload)
                continue
            match self._decoder.next():
                case None:
                    return
                case bytes(payload):
                    self._acknowledge(b"+")
                    self._take(payload)
                case Mark.OVERSIZED:
                    self._acknowledge(b"+")
                    self._take(None)
                case Mark.BAD_CHECKSUM:
                    self._acknowledge(b"-")
                case Mark.ACK:
                    self._last_packet = b""
                case Mark.NAK:
                    self._repeat()
                case Mark.INTERRUPT:
                    if self.state is State.RUNNING or self.non_stop:
                        self._interrupt()
                    else:
                        self._interrupted = self._may_resume_itself

    def _interrupt(self) -> None:
        if self.tap is not None:
            self.tap.interrupt()
        self._may_resume_itself = False
        if (resumable := self.capability(Resume)) is not None:
            resumable.interrupt()

    def _take(self, payload: bytes | None) -> None:
        if self.state is State.IDLE:
            self._answer(payload)
            return
        self._waiting.append(payload)
        self._waiting_size += len(payload or b"")
        if self._waiting_size > WAITING_LIMIT or len(self._waiting) > _WAITING_PACKETS:
            self._depart(Departure.FLOODED)

    def _answer(self, payload: bytes | None) -> None:
        if self.tap is not None:
            self.tap.request(payload)
        if payload is None:
            self._send(Error(E2BIG, f"packets have at most {MAX_PAYLOAD} bytes"))
            return
        understood = table.understand(payload)
        provider = None if understood is None else self.capabilities.get(understood.row.capability)
        if understood is None or provider is None:
            self._send(table.NOT_SUPPORTED)
            return
        if self.observing and not understood.row.observing:
            self._send(understood.row.refuse())
            return
        reply = understood.refusal
        if understood.request is not None:
            reply = understood.row.answer(self, provider, understood.request)
        if reply is not None:
            self._send(reply)

    def _notify(self, event: StopEvent) -> None:
        """``%Stop``, unless one is outstanding. Of a thread only the last stop that the client has not seen is kept."""
        if isinstance(event, NoResumed) and not self.client.no_resumed:
            return
        self._document = None
        if self.stops.put(event):
            stop = b"Stop:" + encode(event, self.client)
            if self.tap is not None:
                self.tap.reply(b"%" + stop)
            self._emit(notification(stop))
        elif self.stops.is_flooded:
            self._depart(Departure.FLOODED)

    def _send(self, reply: Reply) -> None:
        payload = encode(reply, self.client)
        if self.tap is not None:
            self.tap.reply(payload)
        packet = frame(payload)
        if self._acknowledging:
            self._last_packet = packet
            self._last_is_waiting = True
        self._emit(packet)

    def _acknowledge(self, mark: bytes) -> None:
        if self._acknowledging:
            self._emit(mark)

    def _repeat(self) -> None:
        """The client could not read our last packet. It is not piled up: what waits to be sent is not sent twice."""
        if self._acknowledging and self._last_packet and not self._last_is_waiting:
            self._last_is_waiting = True
            self._emit(self._last_packet)

    def _emit(self, data: bytes) -> None:
        self._output.append(data)
        self._output_size += len(data)
