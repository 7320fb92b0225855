"""All tables: one module `table_*` for each hypercall or group of them; each has `TABLES`."""

from importlib import import_module
from pathlib import Path

from .vocabulary import Table

TABLES: tuple[Table, ...] = tuple(
    table
    for path in sorted(Path(__file__).parent.glob("table_*.py"))
    for table in import_module(f".{path.stem}", __package__).TABLES
)
