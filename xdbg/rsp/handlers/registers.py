"""Registers: the whole block and one at a time."""

# mypy: disable-error-code="type-abstract"
# (the packet table is given protocols as capabilities; it never makes instances)

from __future__ import annotations

from typing import TYPE_CHECKING

from xdbg.rsp.packets.registers import ReadRegister, ReadRegisters, WriteRegister, WriteRegisters
from xdbg.rsp.replies import HexData, Ok, Reply, Text
from xdbg.rsp.table import packet
from xdbg.rsp.target import Target

if TYPE_CHECKING:
    from xdbg.rsp.connection import Connection


@packet(b"g", ReadRegisters, observing=True)
def read_registers(conn: Connection, target: Target, request: ReadRegisters) -> Reply:
    """The register block of the current thread, or of the selected trace frame: ``xx`` for what it does not have."""
    if conn.frame is not None:
        return Text(conn.frame.block_text())
    return HexData(target.read_registers(conn.thread(request.pattern)))


@packet(b"G", WriteRegisters)
def write_registers(conn: Connection, target: Target, request: WriteRegisters) -> Reply:
    """Sets the register block."""
    target.write_registers(conn.thread(request.pattern), request.block)
    return Ok()


@packet(b"p", ReadRegister, observing=True)
def read_register(conn: Connection, target: Target, request: ReadRegister) -> Reply:
    """One register by number, those outside of the block too."""
    if conn.frame is not None:
        return Text(conn.frame.register_text(request.regnum))
    return HexData(target.read_register(conn.thread(request.pattern), request.regnum))


@packet(b"P", WriteRegister)
def write_register(conn: Connection, target: Target, request: WriteRegister) -> Reply:
    """Sets one register."""
    target.write_register(conn.thread(request.pattern), request.regnum, request.value)
    return Ok()
