"""The documents of qXfer:osdata: a table as XML. GDB manual: "Operating System Information", "OS Data Format".

A column that is called Title in the list of tables is for graphical front ends; gdb does not print it. What a guest
named can hold any character: those that XML has none for become question marks.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from xdbg.rsp.target import OsTable, OsTableName

_HEAD: Final = '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "osdata.dtd">\n'
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def index_document(tables: Iterable[OsTableName]) -> bytes:
    """The list of all tables."""
    rows = [(table.name, table.description, table.title) for table in tables]
    return table_document("types", OsTable(("Type", "Description", "Title"), rows))


def table_document(name: str, table: OsTable) -> bytes:
    """One table."""
    items = [_item(table.columns, row) for row in table.rows]
    return f"{_HEAD}<osdata type={quoteattr(name)}>\n{''.join(items)}</osdata>\n".encode()


def _item(columns: Sequence[str], row: Sequence[str]) -> str:
    cells = (
        f"<column name={quoteattr(column)}>{escape(_NOT_XML.sub('?', text))}</column>"
        for column, text in zip(columns, row, strict=True)
    )
    return f"<item>{''.join(cells)}</item>\n"
