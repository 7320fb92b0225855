"""What the client told about itself in qSupported; replies depend on it. GDB manual: "General Query Packets"."""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True)
class ClientFeatures:
    """The features that the client offered with a plus sign. All off until it has said so.

    The names are those of the protocol, with underscores.
    """

    multiprocess: bool = False
    swbreak: bool = False
    hwbreak: bool = False
    fork_events: bool = False
    vfork_events: bool = False
    exec_events: bool = False
    no_resumed: bool = False
    error_message: bool = False

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """From the list of qSupported, ``name+;name-;name=value;...``; what is not known is skipped."""
        offered = {item[:-1] for item in arguments.split(b";") if item.endswith(b"+")}
        return cls(**{name: wire in offered for name, wire in _WIRE_NAMES.items()})


_WIRE_NAMES = {field.name: field.name.replace("_", "-").encode() for field in fields(ClientFeatures)}
