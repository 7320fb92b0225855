"""The monitor commands, by subject; importing this package fills the table of `debug.monitor`."""

from . import control, domain, memory

__all__ = ["control", "domain", "memory"]
