"""Each hypercall, each of its sub-operations, each class of input: the result is Xen's.

The tables are the modules `table_*`, one for each hypercall or group of them.
"""

import pytest

from xdbg.abi.hypercalls import Hypercall
from xdbg.xen.audit import audit

from .domain_under_test import DomainUnderTest
from .tables import TABLES
from .vocabulary import Operation, Row, Table


def cases():
    for table in TABLES:
        for command, operation in table.operations.items():
            for row in operation.rows:
                name = getattr(command, "name", str(command)).lower()
                yield pytest.param(table, command, operation, row, id=f"{table.name}-{name}-{row.what}")


@pytest.mark.parametrize(("table", "command", "operation", "row"), list(cases()))
def test_the_result_is_that_of_xen(table: Table, command: object, operation: Operation, row: Row) -> None:
    guest = DomainUnderTest()
    first = (command,) if table.commands is not None and table.first and command != "other" else ()
    problems = guest.run(table.number, row, first)
    assert not problems, f"{operation.source}: {'; '.join(problems)}"
    audit(guest.hv)


def test_each_hypercall_has_a_table() -> None:
    assert {table.number for table in TABLES} == set(Hypercall)


@pytest.mark.parametrize(
    "table", [table for table in TABLES if table.commands is not None], ids=lambda table: table.name
)
def test_each_command_is_in_its_table(table: Table) -> None:
    assert set(table.commands or ()) - table.not_commands <= set(table.operations)
    assert "other" in table.operations
