"""A copy of the machine at one moment: RAM, CPU and time."""

import ctypes
import mmap
from dataclasses import dataclass

from xdbg.abi.frames import Maddr, Vaddr

from . import clock
from .cpu import Cpu
from .engine_state import GDT, LDT
from .state import CpuState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `take` found; `restore` brings it back, any number of times.

    `image` holds the RAM; pages that were zero take no memory. Stop points, watches and the answers to cpuid are not
    part of it.
    """

    image: mmap.mmap
    cpu: CpuState
    count: int
    tsc_offset: int
    tsc_aux: int
    cr3: Maddr
    gdt: tuple[Vaddr, int]
    ldt: tuple[Vaddr, int]
    io_allowed: bool
    rdtsc_allowed: bool

    @classmethod
    def take(cls, cpu: Cpu) -> "Snapshot":
        """The present state of `cpu` and its RAM."""
        image = mmap.mmap(-1, cpu.ram.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        clock.copy_changed_pages(_address(image), cpu.ram.host_address, cpu.ram.size)
        return cls(
            image=image,
            cpu=cpu.save(),
            count=cpu.count,
            tsc_offset=cpu.tsc_offset,
            tsc_aux=cpu.tsc_aux,
            cr3=cpu.cr3,
            gdt=cpu.table(GDT),
            ldt=cpu.table(LDT),
            io_allowed=cpu.io_allowed,
            rdtsc_allowed=cpu.rdtsc_allowed,
        )

    def restore(self, cpu: Cpu) -> int:
        """Bring the state back; returns how many pages differed and were copied."""
        copied = clock.copy_changed_pages(cpu.ram.host_address, _address(self.image), cpu.ram.size)
        cpu.load(self.cpu)
        cpu.count = self.count
        cpu.tsc_offset = self.tsc_offset
        cpu.tsc_aux = self.tsc_aux
        cpu.cr3 = self.cr3
        cpu.set_gdt(*self.gdt)
        cpu.set_ldt(*self.ldt)
        cpu.io_allowed = self.io_allowed
        cpu.rdtsc_allowed = self.rdtsc_allowed
        return copied


def _address(image: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(image))
