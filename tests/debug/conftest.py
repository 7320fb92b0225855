"""Guests to debug without a client: a small kernel in assembly, compiled once, and the bundled ones."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from xdbg.abi.frames import Vaddr
from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.debug.target import DebugTarget
from xdbg.guestos.bare import BareProfile
from xdbg.guestos.elf_file import ElfFile
from xdbg.guestos.symbols import SymbolTable
from xdbg.rsp.replies import StopEvent, StopReply
from xdbg.rsp.target import BreakpointKind, ResumeAction, ResumeKind, WatchKind
from xdbg.rsp.threadid import EVERY_THREAD, Thread
from xdbg.session.bundled import find_guest
from xdbg.session.launch import Launch, launch
from xdbg.xen.dom_builder import build_domain
from xdbg.xen.elf_image import KernelImage, Segment
from xdbg.xen.elf_notes import BootParameters
from xdbg.xen.setup import Hypervisor

BASE = 0xFFFF_FFFF_8000_0000
START = 0x10_0000
NR_PAGES = 1024
ROOT = Path(__file__).resolve().parent.parent.parent

KERNEL = r"""
.set set_trap_table, 0
.set xen_version, 17
.set iret, 23
.set sched_op, 29
.globl _start, square, squared, loop, next_round, copy, ask, asked, breakpoint, behind, done, bad, on_int3
.globl counter, sum, from, to, answer, traps, endless, batch, batched, divide, wrong, end_crashed
.globl vmcoreinfo_data, vmcoreinfo_size
_start:
    lea table(%rip), %rdi
    mov $set_trap_table, %eax
    syscall
    xor %ecx, %ecx
loop:
    inc %rcx
    mov %rcx, counter(%rip)
    mov %rcx, %rdi
    call square
    add %rax, sum(%rip)
next_round:
    cmp $20, %rcx
    jne loop
copy:
    lea from(%rip), %rsi
    lea to(%rip), %rdi
    mov $16, %ecx
    rep movsb
ask:
    lea answer(%rip), %rsi
    mov $1, %edi                # XENVER_extraversion
    mov $xen_version, %eax
    syscall
asked:
    nop
breakpoint:
    int3
behind:
    incq traps(%rip)
done:
    lea reason(%rip), %rsi
    mov $2, %edi                # SCHEDOP_shutdown
    mov $sched_op, %eax
    syscall
endless:
    jmp endless
bad:
    ud2                         # without a handler: Xen ends the domain
batch:
    lea calls(%rip), %rdi
    mov $3, %esi
    mov $13, %eax               # multicall
    syscall
batched:
    jmp endless
divide:
    xor %ecx, %ecx
    div %ecx
wrong:
    movb $1, 0x1234
end_crashed:
    lea crashed(%rip), %rsi
    mov $2, %edi                # SCHEDOP_shutdown
    mov $sched_op, %eax
    syscall
square:
    mov %rdi, %rax
    imul %rdi, %rax
squared:
    ret
on_int3:
    pop %rcx
    pop %r11
    incq traps(%rip)
    push $0
    push %rcx
    push %r11
    push %rax
    mov $iret, %eax
    syscall
    .balign 16
table:
    .byte 3, 3
    .word 0xe033
    .long 0
    .quad on_int3
    .quad 0, 0
reason: .long 0
crashed: .long 3
    .balign 8
calls:                          # XENVER_version, SCHEDOP_yield, XENVER_pagesize
    .quad xen_version, 0, 0, 0, 0, 0, 0, 0
    .quad sched_op, 0, 0, 0, 0, 0, 0, 0
    .quad xen_version, 0, 7, 0, 0, 0, 0, 0
vmcoreinfo_data: .quad info
vmcoreinfo_size: .quad 19
info: .ascii "OSRELEASE=of a test"
    .balign 4096
counter: .quad 0
sum: .quad 0
traps: .quad 0
    .balign 16
from: .ascii "sixteen bytes..."
to: .skip 16
answer: .skip 16
    .balign 4096
"""


@dataclass
class Debugged:
    """A domain with a debugger on it."""

    target: DebugTarget
    symbols: SymbolTable

    @property
    def kernel(self) -> Thread:
        return Thread(KERNEL_PID, 1)

    @property
    def count(self) -> int:
        return self.target.hv.cpu.count

    @property
    def rip(self) -> int:
        return self.target.hv.cpu.rip

    def at(self, name: str) -> int:
        return self.symbols.address(name)

    def where(self) -> str:
        return self.symbols.describe(self.rip)

    def word(self, name: str) -> int:
        return int.from_bytes(self.target.read_memory(self.kernel, self.at(name), 8), "little")

    def brk(
        self, place: str | int, thread: Thread | None = None, kind: BreakpointKind = BreakpointKind.SOFTWARE
    ) -> int:
        vaddr = self.at(place) if isinstance(place, str) else place
        self.target.insert_breakpoint(thread or self.kernel, kind, vaddr)
        return vaddr

    def clear(self, place: str | int, thread: Thread | None = None) -> None:
        vaddr = self.at(place) if isinstance(place, str) else place
        self.target.remove_breakpoint(thread or self.kernel, BreakpointKind.SOFTWARE, vaddr)

    def watch(self, place: str, length: int = 8, kind: WatchKind = WatchKind.WRITE, offset: int = 0) -> int:
        self.target.insert_watchpoint(self.kernel, kind, self.at(place) + offset, length)
        return self.at(place) + offset

    def resume(self, *actions: ResumeAction) -> None:
        self.target.resume(actions or (ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE),))

    def run(self, limit: int = 1_000_000_000, slice_: int = 1_000_000) -> StopEvent | None:
        """On to the next stop; None at the limit or when nothing can run."""
        while self.count < limit:
            stop = self.target.advance(min(limit, self.count + slice_))
            if stop is not None or self.target.idle:
                return stop
        return None

    def cont(self, thread: Thread | None = None) -> StopEvent | None:
        """Continue everything, or the threads of one inferior."""
        pattern = EVERY_THREAD if thread is None else thread.pattern()
        self.resume(ResumeAction(pattern, ResumeKind.CONTINUE))
        return self.run()

    def step(self, thread: Thread | None = None) -> StopReply:
        self.resume(
            ResumeAction((thread or self.kernel).pattern(), ResumeKind.STEP),
            ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE),
        )
        stop = self.run()
        assert isinstance(stop, StopReply)
        return stop

    def step_range(self, start: int, end: int, thread: Thread | None = None) -> StopEvent | None:
        self.resume(
            ResumeAction((thread or self.kernel).pattern(), ResumeKind.RANGE_STEP, 0, start, end),
            ResumeAction(EVERY_THREAD, ResumeKind.CONTINUE),
        )
        return self.run()

    def outcome(self) -> tuple[object, ...]:
        """Everything that a run computes: equal for equal runs."""
        hv = self.target.hv
        return hv.cpu.count, hv.now(), bytes(self.target.domain.console.output), hash(bytes(hv.ram.buffer))


@pytest.fixture(scope="session")
def kernel_elf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.S").write_text(KERNEL)
    link = ["-nostdlib", "-static", "-no-pie", f"-Wl,-Ttext={BASE + START:#x}", "-Wl,--build-id=none", "-Wl,-N"]
    subprocess.run(["gcc", *link, "kernel.S", "-o", "kernel"], cwd=folder, check=True)
    return (folder / "kernel").read_bytes()


@pytest.fixture
def small(kernel_elf: bytes) -> Callable[..., Debugged]:
    """Makes a domain with the small kernel, about to execute its first instruction, or the one at `entry`."""

    def make(entry: str = "_start") -> Debugged:
        elf = ElfFile(kernel_elf)
        symbols = SymbolTable.from_elf(elf)
        text = elf.section(".text")
        assert text is not None
        size = -(-len(text.data) // 4096) * 4096
        image = KernelImage(
            elf=kernel_elf,
            parameters=BootParameters(),
            segments=(Segment(START, bytes(text.data), size),),
            entry=Vaddr(symbols.address(entry)),
            virt_base=Vaddr(BASE),
            start=START,
            end=START + size,
            hypercall_page=None,
            init_p2m=None,
        )
        hv = Hypervisor(NR_PAGES)
        domain = hv.create_domain("small", NR_PAGES)
        build_domain(domain, image, modules=(), command_line=b"")
        target = DebugTarget(hv, domain, BareProfile(kernel_elf, "small"))
        target.connected()
        return Debugged(target, symbols)

    return make


@pytest.fixture
def bundled() -> Callable[..., Debugged]:
    """Makes a domain with a bundled guest."""

    def make(name: str, append: str = "") -> Debugged:
        guest = find_guest(name)
        assert guest is not None
        if not guest.built:
            subprocess.run([sys.executable, ROOT / "scripts" / "build-guests"], check=True)
        launched = launch(Launch(name, append=append))
        target = DebugTarget(launched.hv, launched.domain, launched.profile())
        target.connected()
        return Debugged(target, target.kernel_symbols)

    return make
