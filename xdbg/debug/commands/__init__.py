"""The monitor commands, by subject; importing this package fills the table of `debug.monitor`."""

from . import catch, control, domain, memory

__all__ = ["catch", "control", "domain", "memory"]
