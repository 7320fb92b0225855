"""The packet table: which prefix is parsed how, answered by whom, and needs which capability of the target.

One row is one `@packet(...)` function in `handlers`. The longest prefix wins. A prefix that ends in a letter of a
many-letter name (``qC``) is not taken for the beginning of another name (``qCRC``). What no row covers, and what the
target has no capability for, gets the empty reply: "not supported".

A client that only observes is refused every row that is not marked for it: what a new packet changes can't be
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from errno import EINVAL, EPERM
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar, Unpack, overload

from xdbg.rsp.client import ClientFeatures
from xdbg.rsp.framing import MAX_PAYLOAD
from xdbg.rsp.replies import Empty, Error, Reply
from xdbg.rsp.target import (
    BreakpointCommands,
    BreakpointConditions,
    Breakpoints,
    LoadAddresses,
    ProcessEvents,
    Restart,
    Resume,
    Target,
    TargetError,
)

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection
    from xdbg.rsp.packets import Request

R = TypeVar("R", bound="Request")
C = TypeVar("C")
A = TypeVar("A", bound=Reply | None)
Handler = Callable[[Any, Any, Any], Reply | None]
Failure = Callable[[int, str], Reply]

NOT_SUPPORTED: Final = Empty()
OBSERVES_ONLY: Final = "this client only observes: another debugger was here first"
NOTHING_OFFERED: Final = ClientFeatures()


class Options(TypedDict, total=False):
    """What a row may say beside who answers what.

    `skip`: bytes of the prefix that the request's parser does not see, all by default. `failure`: makes the reply of a
    TargetError. `feature`: a word for qSupported, given when the target has the capability. `observing`: a client that
    only observes may send it, because it changes neither the guest nor what the debugger has set; without, such a
    client is refused. `joined`: arguments follow a name of many letters without a separator.
    """

    skip: int
    failure: Failure
    feature: str
    observing: bool
    joined: bool


@dataclass(frozen=True, slots=True)
class Packet:
    """A row. The last five fields are described in `Options`."""

    prefix: bytes
    request: type[Request]
    capability: type
    handler: Handler
    skip: int
    failure: Failure = Error
    feature: str = ""
    observing: bool = False
    joined: bool = False

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring."""
        return (self.handler.__doc__ or "").partition("\n")[0]

    def answer(self, connection: Connection, provider: object, request: Request) -> Reply | None:
        """The reply of whoever implements the capability; None when it comes later, or never."""
        try:
            return self.handler(connection, provider, request)
        except TargetError as error:
            return self.failure(error.errno, error.text)

    def refuse(self) -> Reply:
        """The reply to a client that may not send this."""
        return self.failure(EPERM, OBSERVES_ONLY)


@dataclass(frozen=True, slots=True)
class Understood:
    """What a payload asks: of which row, and the parsed request; or the reply to one that makes no sense."""

    row: Packet
    request: Request | None
    refusal: Reply | None = None


_LONG_NAMES: Final = b"qQv"
"""Packets with these first letters have names of many letters."""

_SHORT: Final = 64
"""Bytes of a payload that is worth remembering."""

_ROWS: Final[dict[bytes, Packet]] = {}
_BY_FIRST_BYTE: Final[dict[int, list[Packet]]] = {}

_CAPABILITY_FEATURES: Final[tuple[tuple[type, str], ...]] = (
    (Breakpoints, "swbreak+"),
    (Breakpoints, "hwbreak+"),
    (Resume, "no-resumed+"),
    (BreakpointConditions, "ConditionalBreakpoints+"),
    (BreakpointCommands, "BreakpointCommands+"),
    (ProcessEvents, "fork-events+"),
    (ProcessEvents, "exec-events+"),
)

_OPTIONAL: Final[tuple[type, ...]] = (LoadAddresses,)
"""Capabilities that packets use if they are there, and do without if not."""


@overload
def packet(
    prefix: bytes, request: type[R], **options: Unpack[Options]
) -> Callable[[Callable[[Connection, Target, R], A]], Callable[[Connection, Target, R], A]]: ...


@overload
def packet(
    prefix: bytes, request: type[R], needs: type[C], **options: Unpack[Options]
) -> Callable[[Callable[[Connection, C, R], A]], Callable[[Connection, C, R], A]]: ...


def packet(
    prefix: bytes, request: type[Request], needs: type = Target, **options: Unpack[Options]
) -> Callable[[Handler], Handler]:
    """Enters a handler in the table; see `Options`.

    `needs`: the Protocol of `target` that the handler's second parameter has; for any other, the connection has
    `target` and `capability`.
    """

    def enter(handler: Handler) -> Handler:
        assert prefix not in _ROWS, prefix
        row = Packet(prefix, request, needs, handler, **(Options(skip=len(prefix)) | options))
        _ROWS[prefix] = row
        rows = _BY_FIRST_BYTE.setdefault(prefix[0], [])
        rows.append(row)
        rows.sort(key=lambda row: -len(row.prefix))
        return handler

    return enter


def understand(payload: bytes) -> Understood | None:
    """The row and the request of a payload; None if there is no row for it.

    A debugger asks the same short things over and over, so those are parsed once.
    """
    return _understand_short(payload) if len(payload) <= _SHORT else _understand(payload)


def _understand(payload: bytes) -> Understood | None:
    row = find(payload)
    if row is None:
        return None
    try:
        return Understood(row, row.request.parse(payload[row.skip :]))
    except ValueError as error:
        return Understood(row, None, row.failure(EINVAL, str(error)))


_understand_short: Final = lru_cache(maxsize=8192)(_understand)


def find(payload: bytes) -> Packet | None:
    """The row of a payload."""
    if not payload:
        return None
    for row in _BY_FIRST_BYTE.get(payload[0], ()):
        prefix = row.prefix
        if payload.startswith(prefix):
            length = len(prefix)
            if row.joined or prefix[0] not in _LONG_NAMES:
                return row
            if prefix[-1:].isalpha() and payload[length : length + 1].isalnum():
                continue
            return row
    return None


def rows() -> tuple[Packet, ...]:
    """The whole table, ordered by prefix: what the page of supported packets is made of."""
    return tuple(_ROWS[prefix] for prefix in sorted(_ROWS))


def providers(target: Target) -> dict[type, object]:
    """Which object implements each protocol of the table: the target itself, or else the first of its parts."""
    candidates = (target, *target.parts)
    return {capability: candidates[place] for capability, place in _places(candidates)}


_PLACES: Final[dict[tuple[type, ...], tuple[tuple[type, int], ...]]] = {}
"""What `_places` has found for objects of these classes: to ask takes a millisecond, and each client asks."""


def _places(candidates: tuple[object, ...]) -> tuple[tuple[type, int], ...]:
    """Each protocol of the table that is implemented, and by which of the candidates."""
    key = (*(row.capability for row in _ROWS.values()), *map(type, candidates))
    found = _PLACES.get(key)
    if found is None:
        wanted = [row.capability for row in rows()]
        wanted += [capability for capability, _ in _CAPABILITY_FEATURES]
        wanted += _OPTIONAL
        found = _PLACES[key] = tuple(
            (capability, place)
            for capability in dict.fromkeys(wanted)
            for place in [place for place, one in enumerate(candidates) if isinstance(one, capability)][:1]
        )
    return found


def supported_features(
    available: Container[type], client: ClientFeatures = NOTHING_OFFERED, *, observing: bool = False
) -> Iterable[str]:
    """The words of the answer to qSupported, derived from what the target implements and the client may send."""
    yield f"PacketSize={MAX_PAYLOAD:x}"
    yield "multiprocess+"
    yield "error-message+"
    for row in rows():
        if row.feature and row.capability in available and (row.observing or not observing):
            yield row.feature
    for capability, feature in _CAPABILITY_FEATURES:
        if capability in available:
            yield feature
    if Restart in available and client.single_inf_arg:
        yield "single-inf-arg+"
