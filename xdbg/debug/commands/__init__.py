"""The monitor commands, by subject; importing this package fills the table of `debug.monitor`."""

from . import catch, control, core, domain, machine, memory, watch

__all__ = ["catch", "control", "core", "domain", "machine", "memory", "watch"]
