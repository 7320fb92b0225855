"""One module for each hypercall or group of them; each has `TABLES`."""

from importlib import import_module
from pathlib import Path

from ..vocabulary import Table

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
TABLES: tuple[Table, ...] = tuple(
    table for module in MODULES for table in import_module(f".{module}", __package__).TABLES
)
