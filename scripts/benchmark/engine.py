"""Speed of guest code under the clock against bare Unicorn, on the same pages, in one process and in turns."""

import time
from pathlib import Path

from rsp_client import elf_symbols
from unicorn import UC_ARCH_X86, UC_HOOK_INTR, UC_MODE_64, UC_PROT_ALL, Uc
from unicorn.unicorn_const import UC_TLB_CPU
from unicorn.x86_const import UC_X86_REG_CR0, UC_X86_REG_CR3, UC_X86_REG_CR4, UC_X86_REG_RDI, UC_X86_REG_RSP

from xdbg.abi.frames import Maddr, Vaddr
from xdbg.abi.x86 import PTE_NX, PTE_PRESENT, PTE_RW, PTE_USER
from xdbg.machine.cpu import Cpu
from xdbg.machine.exits import DeadlineExit, ExceptionExit
from xdbg.machine.ram import Ram
from xdbg.machine.registers import RDI, RSP
from xdbg.machine.stoppoints import Access, Watch

# name, symbol, argument for some tenths of a second
WORK = [
    ("alu loop", "alu_loop", 40_000_000),
    ("cpu loop", "cpu_loop", 20_000_000),
    ("sha256", "sha256_run", 60_000),
    ("interpreter", "interp_run", 1_200_000),
]
RAM_SIZE = 64 << 20
STACK_TOP = 0x3F00000
RETURN = 0x3F80000
TABLES = 0x3FC0000
FOREVER = 1 << 62


class Image:
    """The benchmark guest in RAM, text executable and read-only, data writable and not executable."""

    def __init__(self, path: Path) -> None:
        self.ram = Ram(RAM_SIZE)
        self.symbols = elf_symbols(str(path))
        data = path.read_bytes()
        text = set()
        phoff = int.from_bytes(data[32:40], "little")
        for index in range(int.from_bytes(data[56:58], "little")):
            header = data[phoff + index * 56 : phoff + (index + 1) * 56]
            kind, flags = int.from_bytes(header[:4], "little"), int.from_bytes(header[4:8], "little")
            offset, vaddr, _, filesz, memsz = (
                int.from_bytes(header[at : at + 8], "little") for at in (8, 16, 24, 32, 40)
            )
            if kind == 1:
                self.ram.write(vaddr, data[offset : offset + filesz])
                if flags & 1:
                    text |= set(range(vaddr >> 12, (vaddr + memsz + 0xFFF) >> 12))
        text.add(RETURN >> 12)
        self.ram.write(RETURN, b"\xcc")
        self.cr3 = Maddr(TABLES)
        table = TABLES + 0x3000
        self.ram.write_u64(TABLES, TABLES + 0x1000 | PTE_PRESENT | PTE_RW | PTE_USER)
        self.ram.write_u64(TABLES + 0x1000, TABLES + 0x2000 | PTE_PRESENT | PTE_RW | PTE_USER)
        for index in range(RAM_SIZE >> 21):
            self.ram.write_u64(TABLES + 0x2000 + 8 * index, table | PTE_PRESENT | PTE_RW | PTE_USER)
            for page in range(512):
                frame = index * 512 + page
                rights = PTE_PRESENT | PTE_USER | (0 if frame in text else PTE_RW | PTE_NX)
                self.ram.write_u64(table + 8 * page, frame << 12 | rights)
            table += 0x1000
        self.ram.write_u64(STACK_TOP, RETURN)


class Bare:
    """Unicorn with nothing but a hook that ends the run."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.uc = uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.ctl_set_tlb_mode(UC_TLB_CPU)
        uc.mem_map_ptr(0, RAM_SIZE, UC_PROT_ALL, image.ram.host_address)
        uc.msr_write(0xC0000080, 0xD01)
        uc.reg_write(UC_X86_REG_CR3, image.cr3)
        uc.reg_write(UC_X86_REG_CR4, uc.reg_read(UC_X86_REG_CR4) | 0x620)
        uc.reg_write(UC_X86_REG_CR0, 0x80010033)
        uc.ctl_exits_enabled(True)
        uc.ctl_set_exits([])
        uc.hook_add(UC_HOOK_INTR, lambda uc, number, data: uc.emu_stop())

    def run(self, symbol: str, argument: int) -> float:
        """Seconds of one call."""
        self.uc.reg_write(UC_X86_REG_RSP, STACK_TOP)
        self.uc.reg_write(UC_X86_REG_RDI, argument)
        start = time.perf_counter()
        self.uc.emu_start(self.image.symbols[symbol], 0)
        return time.perf_counter() - start


class Clocked:
    """Our CPU: counted, with deadlines of a few million instructions as when a session runs it."""

    SLICE = 1_000_000

    def __init__(self, image: Image) -> None:
        self.image = image
        self.cpu = Cpu(image.ram)
        self.cpu.cr3 = image.cr3

    def run(self, symbol: str, argument: int) -> tuple[float, int]:
        """Seconds and instructions of one call."""
        cpu = self.cpu
        cpu.gpr[RSP] = STACK_TOP
        cpu.gpr[RDI] = argument
        cpu.rip = self.image.symbols[symbol]
        before = cpu.count
        start = time.perf_counter()
        while True:
            match cpu.enter(cpu.count + self.SLICE):
                case DeadlineExit():
                    pass
                case ExceptionExit(vector=3):
                    break
                case other:
                    raise AssertionError(other)
        return time.perf_counter() - start, cpu.count - before


def measure(path: Path, rounds: int) -> list[tuple[str, float, dict[str, float]]]:
    """For each workload: (name, bare MIPS, {condition: ratio of speed}).

    Everything is run in turns, `rounds` times, and the best run of each condition counts: where the host puts
    translated code and what else it does only ever slows a run down.
    """
    image = Image(path)
    bare, clocked = Bare(image), Clocked(image)
    same_page = {"alu_loop": "alu_never", "cpu_loop": "cpu_never", "sha256_run": "chase_run", "interp_run": "chase_run"}
    elsewhere = Vaddr(image.symbols["bench_done"])
    watch = Watch(Maddr(image.symbols["watched_word"]), 8, Access.WRITE)
    rows = []
    for name, symbol, argument in WORK:
        best: dict[str, float] = {}
        instructions = 0

        def take(label: str, symbol: str = symbol, argument: int = argument, best: dict[str, float] = best) -> None:
            nonlocal instructions
            clocked.run(symbol, argument // 20)
            seconds, instructions = clocked.run(symbol, argument)
            best[label] = min(seconds, best.get(label, seconds))

        for _ in range(rounds):
            bare.run(symbol, argument // 20)
            plain = bare.run(symbol, argument)
            best["bare"] = min(plain, best.get("bare", plain))
            take("clock")
            for label, vaddr in (
                ("breakpoint elsewhere", elsewhere),
                ("breakpoint on its page", Vaddr(image.symbols[same_page[symbol]])),
            ):
                clocked.cpu.stop_points.add(vaddr, None)
                take(label)
                clocked.cpu.stop_points.clear()
            clocked.cpu.watches.add(watch)
            take("watch elsewhere")
            clocked.cpu.watches.clear()
            # Once more: what runs right behind the bare engine pays for finding the host's caches full of it.
            take("clock")
        ratios = {"clock / bare": best["bare"] / best["clock"]}
        for label in ("breakpoint elsewhere", "breakpoint on its page", "watch elsewhere"):
            ratios[f"{label} / clock"] = best["clock"] / best[label]
        rows.append((name, instructions / best["bare"] / 1e6, ratios))
    return rows
