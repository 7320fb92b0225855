"""The documents behind `info os`: valid XML whatever a guest has named."""

from xml.etree.ElementTree import fromstring

from xdbg.rsp.osdata import index_document, table_document
from xdbg.rsp.target import OsTable, OsTableName


def read(document):
    root = fromstring(document)
    assert root.tag == "osdata"
    return root.get("type"), [[(cell.get("name"), cell.text or "") for cell in item] for item in root]


def test_a_table_has_a_cell_for_each_column_of_each_row():
    table = OsTable(("pid", "command"), [("1", "/bin/init"), ("2", "")])
    assert read(table_document("processes", table)) == (
        "processes",
        [[("pid", "1"), ("command", "/bin/init")], [("pid", "2"), ("command", "")]],
    )


def test_an_empty_table_is_a_document_too():
    assert read(table_document("grants", OsTable(("ref",), []))) == ("grants", [])


def test_the_list_of_tables_has_the_columns_that_gdb_looks_for():
    assert read(index_document([OsTableName("p2m", "Its <memory>", "P2m")])) == (
        "types",
        [[("Type", "p2m"), ("Description", "Its <memory>"), ("Title", "P2m")]],
    )


def test_every_character_that_a_guest_can_name_something_with_leaves_the_document_valid():
    name = "".join(map(chr, [*range(0x300), 0xD800, 0xDFFF, 0xFFFE, 0xFFFF, 0x10FFFF])) + "]]>&lt;<!--"
    _, ((cell,),) = read(table_document("x", OsTable(("name",), [(name,)])))
    assert len(cell[1]) == len(name)
    assert cell[1].endswith("??\U0010ffff]]>&lt;<!--")
