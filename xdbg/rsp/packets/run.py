"""Requests to let the guest go on."""

import re
from dataclasses import dataclass
from typing import Final, Self

from xdbg.rsp.packets.fields import number
from xdbg.rsp.target import ResumeAction, ResumeKind
from xdbg.rsp.threadid import EVERY_THREAD, ThreadId

_ACTION: Final = re.compile(
    rb"(?:([cst])|([CS])([0-9a-fA-F]{2})|r([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16}))(?::([-p.0-9a-fA-F]+))?\Z"
)


@dataclass(frozen=True, slots=True)
class ResumeThreads:
    """``vCont;ACTION[:ID];...``."""

    actions: tuple[ResumeAction, ...]

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """Actions in the order of the packet; one without a thread id is for all that have none before it."""
        return cls(tuple(_action(text) for text in arguments.split(b";")))


def _action(text: bytes) -> ResumeAction:
    found = _ACTION.match(text)
    if found is None:
        raise ValueError(f"not an action: {text[:40]!r}")
    plain, signalled, signal, start, end, thread = found.groups()
    pattern = EVERY_THREAD if thread is None else ThreadId.parse(thread)
    if plain is not None:
        return ResumeAction(pattern, ResumeKind(plain))
    if signalled is not None:
        return ResumeAction(pattern, ResumeKind(signalled.lower()), int(signal, 16))
    return ResumeAction(pattern, ResumeKind.RANGE_STEP, start=int(start, 16), end=int(end, 16))


@dataclass(frozen=True, slots=True)
class ResumeCurrent:
    """``c[VADDR]``, ``s[VADDR]``, ``CSIGNAL[;VADDR]``, ``SSIGNAL[;VADDR]``: the thread that Hc chose goes on."""

    kind: ResumeKind
    signal: int
    vaddr: int | None

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """The letter is part of the arguments."""
        letter, rest = arguments[:1], arguments[1:]
        signal = 0
        if letter in b"CS":
            digits, separator, rest = rest.partition(b";")
            signal = number(digits)
            if signal > 0xFF or (separator and not rest):
                raise ValueError("not a signal")
        return cls(ResumeKind(letter.lower()), signal, number(rest) if rest else None)
