"""A trace as JSON, one object a line, for programs.

Each object has `count`, `domid`, `vcpu`, `mode` ("kernel" or "user"), `pid` (or null) and `kind`, then the fields of
the event with the names, the order and the meaning that they have in `trace.events`. Numbers are JSON numbers,
addresses too; those of 64 bits need a reader that keeps them whole (Python, jq 1.7).
The order of keys is always the same.
"""

import json
from dataclasses import fields
from typing import Any, TextIO

from .events import FrameWord, PendingPort, Record

_encode = json.JSONEncoder(separators=(",", ":")).encode


class JsonlSink:
    """Writes to a text stream that the caller has opened and will close."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fields: dict[type, tuple[str, ...]] = {}

    def write(self, record: Record) -> None:
        """One line for one record."""
        event = record.event
        line: dict[str, Any] = {
            "count": record.count,
            "domid": record.domid,
            "vcpu": record.vcpu,
            "mode": "kernel" if record.kernel_mode else "user",
            "pid": record.pid,
            "kind": event.kind,
        }
        for name in self._names(event):
            line[name] = self._plain(getattr(event, name))
        self._stream.write(_encode(line) + "\n")

    def _plain(self, value: Any) -> Any:
        """What the JSON encoder knows; dictionaries and lists in events hold nothing else already."""
        if isinstance(value, tuple):
            return [self._plain(element) for element in value]
        if isinstance(value, (FrameWord, PendingPort)):
            return {name: getattr(value, name) for name in self._names(value)}
        return value

    def _names(self, value: Any) -> tuple[str, ...]:
        kind = type(value)
        names = self._fields.get(kind)
        if names is None:
            names = self._fields[kind] = tuple(field.name for field in fields(kind))
        return names
