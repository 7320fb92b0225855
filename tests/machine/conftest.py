"""A guest of a few instructions: page tables, code and data, made by the test."""

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from xdbg.machine.cpu import Cpu
from xdbg.machine.exits import Exit
from xdbg.machine.paging import PTE_NX, PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.machine.ram import Ram
from xdbg.machine.registers import RSP

CODE = 0x40_0000
DATA = 0x60_0000
STACK_TOP = 0x7F_0000
FOREVER = 1 << 62

R = PTE_PRESENT | PTE_USER | PTE_NX
RW = R | PTE_RW
RX = PTE_PRESENT | PTE_USER
RWX = RX | PTE_RW


@cache
def assemble(source: str, at: int = CODE) -> bytes:
    """Machine code of Intel-syntax assembly, to run at `at`."""
    with TemporaryDirectory() as folder:
        text, obj, linked, out = (Path(folder) / name for name in ("a.s", "a.o", "a.elf", "a.bin"))
        text.write_text(f".intel_syntax noprefix\n.globl _start\n_start:\n{source}\n")
        subprocess.run(["as", "--64", "-o", obj, text], check=True)
        subprocess.run(["ld", "-Ttext", hex(at), "-o", linked, obj], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", linked, out], check=True)
        return out.read_bytes()


class Guest:
    """Tables grow from frame 1; `map` gives out the frames behind them, never frame n at address n."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.ram = Ram(size)
        self.cpu = Cpu(self.ram)
        self._next_table = 1
        self._next_frame = 64
        self.l4 = self._table()
        self.cpu.cr3 = self.l4

    def _table(self) -> int:
        self._next_table += 1
        assert self._next_table <= 64
        return (self._next_table - 1) << 12

    def frame(self) -> int:
        """A new frame's machine address."""
        self._next_frame += 1
        return (self._next_frame - 1) << 12

    def new_space(self) -> int:
        """Another, empty level 4 table."""
        return self._table()

    def pte_maddr(self, vaddr: int, l4: int | None = None) -> int:
        """The machine address of the PTE, tables made as needed."""
        table = self.l4 if l4 is None else l4
        for shift in (39, 30, 21):
            at = table + (vaddr >> shift & 511) * 8
            if not self.ram.read_u64(at):
                self.ram.write_u64(at, self._table() | RWX)
            table = self.ram.read_u64(at) & 0xF_FFFF_FFFF_F000
        return table + (vaddr >> 12 & 511) * 8

    def map(self, vaddr: int, rights: int, maddr: int | None = None, l4: int | None = None) -> int:
        """Map one page; returns its machine address."""
        maddr = self.frame() if maddr is None else maddr
        self.ram.write_u64(self.pte_maddr(vaddr, l4), maddr | rights)
        return maddr

    def unmap(self, vaddr: int) -> None:
        self.ram.write_u64(self.pte_maddr(vaddr), 0)

    def run_to_end(self, limit: int = 1_000_000) -> Exit:
        return self.cpu.enter(self.cpu.count + limit)


GuestMaker = Callable[..., Guest]


@pytest.fixture
def guest() -> GuestMaker:
    """guest(source, rights=RX): code at CODE, one page at DATA, four of stack below STACK_TOP."""

    def make(source: str, rights: int = RX, size: int = 1 << 20) -> Guest:
        made = Guest(size)
        code = assemble(source)
        for page in range(0, len(code) or 1, 4096):
            made.ram.write(made.map(CODE + page, rights), code[page : page + 4096])
        made.map(DATA, RW)
        for page in range(1, 5):
            made.map(STACK_TOP - page * 4096, RW)
        made.cpu.rip = CODE
        made.cpu.gpr[RSP] = STACK_TOP
        return made

    return make
