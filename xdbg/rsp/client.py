"""What the client told about itself in qSupported; replies depend on it. GDB manual: "General Query Packets"."""

from dataclasses import dataclass, field, fields
from typing import Final, Self

_BY_PACKET: Final = {"by packet": True}


@dataclass(frozen=True, slots=True)
class ClientFeatures:
    """What the client said that it takes. All off until it has said so.

    The names are those of qSupported, with underscores; lldb asks for the last ones by a packet each.
    """

    multiprocess: bool = False
    swbreak: bool = False
    hwbreak: bool = False
    fork_events: bool = False
    vfork_events: bool = False
    exec_events: bool = False
    no_resumed: bool = False
    error_message: bool = False
    single_inf_arg: bool = False
    multi_wp_addr: bool = False
    error_strings: bool = field(default=False, metadata=_BY_PACKET)
    """QEnableErrorStrings: ``E NN;TEXT``, the text in hexadecimal."""
    threads_in_stop_reply: bool = field(default=False, metadata=_BY_PACKET)
    """QListThreadsInStopReply: a stop names all threads, and where each is."""

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """From the list of qSupported, ``name+;name-;name=value;...``; what is not known is skipped."""
        offered = {item[:-1] for item in arguments.split(b";") if item.endswith(b"+")}
        return cls(**{name: wire in offered for name, wire in _WIRE_NAMES.items()})


_WIRE_NAMES = {
    feature.name: feature.name.replace("_", "-").encode() for feature in fields(ClientFeatures) if not feature.metadata
}
