"""Commands of the user."""

from dataclasses import dataclass
from typing import Self

from xdbg.rsp.packets.fields import hex_data, text


@dataclass(frozen=True, slots=True)
class MonitorCommand:
    """``qRcmd,COMMAND``."""

    command: str

    @classmethod
    def parse(cls, arguments: bytes) -> Self:
        """A command line in hexadecimal."""
        return cls(text(hex_data(arguments)))
