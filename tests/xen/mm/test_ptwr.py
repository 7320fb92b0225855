"""Writable page tables: the effect of each store against a real execution of it, and the checks around it."""

import random
from typing import Any

import capstone
import pytest
import unicorn
from capstone import x86
from unicorn import x86_const as uc

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Vaddr
from xdbg.abi.hypercalls import Hypercall, VmasstType
from xdbg.abi.mmu import MmuextOp
from xdbg.abi.x86 import PTE_DIRTY, PTE_GLOBAL, PTE_NX, PTE_PRESENT, PTE_RW, PTE_USER, Dr6, Pfec, Rflags, Vector
from xdbg.machine.registers import R8, RAX, RCX, RDI, RSI
from xdbg.xen.events import FaultFixedUp, MemoryWritten
from xdbg.xen.ptwr import fixup_page_fault
from xdbg.xen.store_decode import BIT_OPERATIONS, Register, decode_store
from xdbg.xen.store_emulate import Inputs, effect_of
from xdbg.xen.vcpu import TrapGate
from xdbg.xen.xen_slots import ldt_shadow_base

L4, L3, L2, L1, CODE = 4, 5, 6, 7, 10
READ_ONLY = PTE_PRESENT | PTE_USER
WRITE_FAULT = Pfec.PAGE_PRESENT | Pfec.WRITE_ACCESS | Pfec.USER_MODE
DATA = 0x20_0000
ARITHMETIC = Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.OF

STORES = {
    "mov %rsi,(%rdi)": "488937",
    "mov %esi,(%rdi)": "8937",
    "mov %si,(%rdi)": "668937",
    "mov %sil,(%rdi)": "408837",
    "mov %ah,(%rdi)": "8827",
    "movq $-3,8(%rdi)": "48c74708fdffffff",
    "movl $0x1234,(%rdi)": "c70734120000",
    "mov %rsi,-8(%rdi,%r8,8)": "4a8974c7f8",
    "movnti %rsi,(%rdi)": "480fc337",
    "mov %esi,(%edi)": "678937",
    "xchg %rsi,(%rdi)": "488737",
    "xchg %esi,(%rdi)": "8737",
    "xchg %ah,(%rdi)": "8627",
    "lock cmpxchg %rsi,(%rdi)": "f0480fb137",
    "cmpxchg %esi,(%rdi)": "0fb137",
    "lock xadd %rsi,(%rdi)": "f0480fc137",
    "xadd %esi,(%rdi)": "0fc137",
    "lock andq $-3,(%rdi)": "f0488327fd",
    "andb $0xfd,(%rdi)": "8027fd",
    "or %rsi,(%rdi)": "480937",
    "lock orl $0x42,(%rdi)": "f0830f42",
    "xor %rsi,(%rdi)": "483137",
    "add %rsi,(%rdi)": "480137",
    "addl $0x7f,(%rdi)": "83077f",
    "adc %rsi,(%rdi)": "481137",
    "sub %rsi,(%rdi)": "482937",
    "sbb %rsi,(%rdi)": "481937",
    "incq (%rdi)": "48ff07",
    "lock decq (%rdi)": "f048ff0f",
    "negq (%rdi)": "48f71f",
    "notq (%rdi)": "48f717",
    "lock btrq $1,(%rdi)": "f0480fba3701",
    "btsq $63,(%rdi)": "480fba2f3f",
    "btcl $40,(%rdi)": "0fba3f28",
    "lock btr %rsi,(%rdi)": "f0480fb337",
    "bts %esi,(%rdi)": "0fab37",
    "stosq": "48ab",
    "stosl": "ab",
    "stosb": "aa",
}
VALUES = [
    # memory, rsi, rax, r8
    (0x8000_0000_0000_0067, 0x8000_0000_0000_0067, 0x8000_0000_0000_0067, 2),
    (0x0000_0000_1234_5067, 0x1, 0x1234_5067, 0),
    (0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF, 0, 1),
    (0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_8000_0003, 0x7FFF_FFFF, 3),
    (0, 0, 0, 0),
]


class Processor:
    """The engine, running one instruction in flat memory: what a store really does."""

    def __init__(self) -> None:
        self.engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.engine.mem_map(0x10_0000, 0x1000)
        self.engine.mem_map(DATA, 0x1000)

    def run(self, code: bytes, memory: int, registers: dict[int, int], rflags: int) -> tuple[int, int, int, int]:
        """(the word in memory, rsi, rax, rflags) afterwards."""
        engine = self.engine
        engine.mem_write(0x10_0000, code.ljust(16, b"\x90"))
        engine.mem_write(DATA, bytes(0x1000))
        engine.mem_write(DATA + 0x800, memory.to_bytes(8, "little"))
        for register, value in registers.items():
            engine.reg_write(register, value)
        engine.reg_write(uc.UC_X86_REG_EFLAGS, rflags)
        engine.emu_start(0x10_0000, 0x10_0000 + len(code), count=1)
        word = int.from_bytes(engine.mem_read(DATA + 0x800, 8), "little")
        after = (engine.reg_read(r) for r in (uc.UC_X86_REG_RSI, uc.UC_X86_REG_RAX, uc.UC_X86_REG_EFLAGS))
        return word, *after


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor()


@pytest.mark.parametrize("name", STORES)
def test_the_effect_of_a_store_is_the_processors(guest: Any, processor: Processor, name: str) -> None:
    code = bytes.fromhex(STORES[name])
    store = decode_store(code.ljust(15, b"\x90"))
    assert store is not None
    assert store.length == len(code)
    cpu = guest.hv.cpu
    mask = (1 << 8 * store.size) - 1
    for memory, rsi, rax, r8 in VALUES:
        for rflags in (Rflags.FIXED, Rflags.FIXED | ARITHMETIC):
            bits = rsi if rsi < 1 << 62 else 3
            source = bits if "bt" in name else rsi
            cpu.gpr[RSI], cpu.gpr[RAX], cpu.gpr[R8], cpu.gpr[RDI] = source, rax, r8, 0
            # Make the instruction's own address the word in the middle of the page.
            distance = store.address(guest.vcpu)
            rdi = (DATA + 0x800 - distance) & 0xFFFF_FFFF
            cpu.gpr[RDI] = rdi
            if store.address(guest.vcpu) != DATA + 0x800:
                continue
            registers = {
                uc.UC_X86_REG_RSI: source,
                uc.UC_X86_REG_RAX: rax,
                uc.UC_X86_REG_R8: r8,
                uc.UC_X86_REG_RDI: rdi,
            }
            expected = processor.run(code, memory, registers, int(rflags))
            operand = store.source.read(guest.vcpu) if isinstance(store.source, Register) else store.source or 0
            effect = effect_of(store, Inputs(memory & mask, operand, rax & mask, int(rflags), 8 * store.size))
            word = memory if effect.value is None else memory & ~mask | effect.value
            if effect.source is not None:
                assert isinstance(store.source, Register)
                store.source.write(guest.vcpu, effect.source)
            if effect.accumulator is not None:
                Register(RAX, store.size).write(guest.vcpu, effect.accumulator)
            undefined = Rflags.AF if store.name in {"and", "or", "xor"} else 0
            if store.name in {"bts", "btr", "btc"}:
                undefined = ARITHMETIC & ~Rflags.CF & ~Rflags.ZF
            got = word, cpu.gpr[RSI], cpu.gpr[RAX], effect.rflags & ARITHMETIC & ~undefined
            # A successful 32-bit cmpxchg does not touch rax; this engine clears its upper half.
            succeeded = store.name == "cmpxchg" and effect.accumulator is None
            expected_rax = rax if succeeded else expected[2]
            assert got == (expected[0], expected[1], expected_rax, expected[3] & ARITHMETIC & ~undefined)


@pytest.mark.parametrize(
    "code",
    [
        "488b37",
        "4889f7",
        "0fae07",
        "f20f1107",
        "660f1107",
        "ff37",
        "e800000000",
        "480fc70f",
        "0f9407",
        "8c1f",
        "06",
        "",
    ],
)
def test_other_instructions_are_not_emulated(code: str) -> None:
    assert decode_store(bytes.fromhex(code)) is None


@pytest.fixture
def kernel(guest: Any) -> Any:
    """A guest kernel that writes to its L1 table: rdi is the address of entry 20, rip at `CODE`."""
    guest.domain.vm_assist = 1 << VmasstType.WRITABLE_PAGETABLES
    guest.hv.cpu.gpr[RDI] = guest.va(L1) + 20 * 8
    guest.vcpu.trap_table = [TrapGate(n, 0, False, 0xE033, Vaddr(0x1000 + n)) for n in range(256)]
    return guest


def fault(guest: Any, code: str, *, cr2: int | None = None, error_code: int = WRITE_FAULT) -> bool:
    """Whether Xen repairs the fault of this instruction at `CODE`."""
    guest.hv.cpu.rip = guest.va(CODE)
    guest.write(CODE, bytes.fromhex(code).ljust(16, b"\x90"))
    cr2 = guest.va(L1) + 20 * 8 if cr2 is None else cr2
    return fixup_page_fault(guest.vcpu, Vaddr(cr2), error_code)


def test_a_write_to_an_l1_is_checked_and_carried_out(kernel: Any) -> None:
    cpu = kernel.hv.cpu
    cpu.gpr[RSI] = kernel.pte(21)
    assert fault(kernel, STORES["mov %rsi,(%rdi)"])
    assert kernel.entry(L1, 20) == kernel.pte(21) | PTE_GLOBAL
    assert cpu.rip == kernel.va(CODE) + 3
    kernel.audit()


def test_clearing_the_write_bit_of_half_an_entry_is_enough(kernel: Any) -> None:
    kernel.write_entries(L1, {20: kernel.entry(L1, 20) | PTE_DIRTY | PTE_NX})
    assert fault(kernel, "f08027fd")
    assert kernel.entry(L1, 20) == kernel.pte(20, READ_ONLY | PTE_DIRTY | PTE_NX | PTE_GLOBAL)
    assert fault(kernel, "c7470400000080", cr2=kernel.va(L1) + 20 * 8 + 4)
    assert kernel.entry(L1, 20) >> 32 == 0x8000_0000


def test_exchanging_an_entry_for_zero_returns_the_old_one(kernel: Any) -> None:
    old = kernel.entry(L1, 20)
    kernel.hv.cpu.gpr[RSI] = 0
    assert fault(kernel, STORES["xchg %rsi,(%rdi)"])
    assert (kernel.entry(L1, 20), kernel.hv.cpu.gpr[RSI]) == (0, old)


def test_a_failed_compare_leaves_the_entry_and_loads_rax(kernel: Any) -> None:
    old = kernel.entry(L1, 20)
    kernel.hv.cpu.gpr[RAX], kernel.hv.cpu.gpr[RSI] = 5, 0
    assert fault(kernel, STORES["lock cmpxchg %rsi,(%rdi)"])
    assert (kernel.entry(L1, 20), kernel.hv.cpu.gpr[RAX]) == (old, old)
    assert not kernel.hv.cpu.rflags & Rflags.ZF


@pytest.mark.parametrize("pfn", [L1, L4])
def test_a_writable_mapping_of_a_table_is_refused(kernel: Any, pfn: int) -> None:
    before = kernel.entry(L1, 20)
    kernel.hv.cpu.gpr[RSI] = kernel.pte(pfn)
    assert not fault(kernel, STORES["mov %rsi,(%rdi)"])
    assert kernel.entry(L1, 20) == before
    assert kernel.hv.cpu.rip == kernel.va(CODE)


def test_frames_of_others_are_refused(kernel: Any, neighbour: Any) -> None:
    for mfn in (neighbour.mfn(20), int(kernel.hv.m2p.frame), 1 << 39):
        kernel.hv.cpu.gpr[RSI] = mfn << 12 | READ_ONLY
        assert not fault(kernel, STORES["mov %rsi,(%rdi)"])


@pytest.mark.parametrize("pfn", [L2, L3, L4, CODE + 1])
def test_only_l1_tables_are_written_to(kernel: Any, pfn: int) -> None:
    kernel.make_read_only(CODE + 1)
    kernel.hv.cpu.gpr[RDI] = kernel.va(pfn)
    assert not fault(kernel, STORES["mov %rsi,(%rdi)"], cr2=kernel.va(pfn))


def test_the_guest_must_have_asked_for_it_and_be_in_kernel_mode(kernel: Any) -> None:
    code = "f08027fd"
    assert not fault(kernel, code, error_code=WRITE_FAULT & ~Pfec.PAGE_PRESENT)
    assert not fault(kernel, code, error_code=WRITE_FAULT & ~Pfec.WRITE_ACCESS)
    assert not fault(kernel, code, error_code=WRITE_FAULT | Pfec.RESERVED_BIT)
    assert not fault(kernel, code, error_code=WRITE_FAULT | Pfec.INSN_FETCH)
    kernel.vcpu.kernel_mode = False
    assert not fault(kernel, code)
    kernel.vcpu.kernel_mode = True
    kernel.domain.vm_assist = 0
    assert not fault(kernel, code)


def test_a_store_that_is_not_the_one_that_faulted_or_not_aligned_is_left_alone(kernel: Any) -> None:
    assert not fault(kernel, STORES["mov %rsi,(%rdi)"], cr2=kernel.va(L1) + 21 * 8)
    kernel.hv.cpu.gpr[RDI] += 4
    assert not fault(kernel, STORES["mov %rsi,(%rdi)"], cr2=kernel.hv.cpu.gpr[RDI])
    kernel.hv.cpu.rip = 0x1000
    assert not fixup_page_fault(kernel.vcpu, Vaddr(kernel.va(L1) + 20 * 8), WRITE_FAULT), "no code to be read"


def test_code_at_the_end_of_what_is_mapped_is_decoded(kernel: Any) -> None:
    code = bytes.fromhex("f08027fd")
    assert kernel.map(63, kernel.pte(63)) == 0
    kernel.write(63, code, 4096 - len(code))
    kernel.hv.cpu.rip = kernel.va(63) + 4096 - len(code)
    assert fixup_page_fault(kernel.vcpu, Vaddr(kernel.va(L1) + 20 * 8), WRITE_FAULT)
    assert not kernel.entry(L1, 20) & PTE_RW


@pytest.mark.parametrize(("direction", "step"), [(0, 8), (Rflags.DF, -8)])
def test_a_repeated_store_goes_on_element_by_element(kernel: Any, direction: int, step: int) -> None:
    cpu = kernel.hv.cpu
    start = cpu.gpr[RDI]
    cpu.gpr[RCX], cpu.gpr[RAX], cpu.rflags = 3, 0, 2 | direction
    for number in range(3):
        assert fault(kernel, "f348ab", cr2=cpu.gpr[RDI])
        assert cpu.rip == kernel.va(CODE) + (3 if number == 2 else 0)
        assert (cpu.gpr[RDI], cpu.gpr[RCX]) == (start + (number + 1) * step, 2 - number)
    assert [kernel.entry(L1, 20 + i * step // 8) for i in range(3)] == [0, 0, 0]


def test_entries_are_moved_from_memory(kernel: Any) -> None:
    cpu = kernel.hv.cpu
    cpu.gpr[RSI] = kernel.write(30, kernel.pte(25).to_bytes(8, "little"))
    assert fault(kernel, "48a5")
    assert kernel.entry(L1, 20) == kernel.pte(25) | PTE_GLOBAL
    assert cpu.gpr[RSI] == kernel.va(30) + 8
    cpu.gpr[RSI], cpu.gpr[RDI] = 0x5000, cpu.gpr[RDI] - 8
    assert not fault(kernel, "48a5")


def test_a_single_step_over_it_is_reported(kernel: Any) -> None:
    kernel.hv.cpu.rflags |= Rflags.TF
    assert fault(kernel, "f08027fd")
    assert kernel.vcpu.debugreg[6] & Dr6.BS
    assert kernel.vcpu.trap_bounce.vector == Vector.DB


def test_an_observer_is_told(kernel: Any) -> None:
    seen: list[Any] = []

    class Recorder:
        def observe(self, _vcpu: Any, event: Any) -> None:
            seen.append(event)

    kernel.hv.observer = Recorder()
    cr2 = kernel.va(L1) + 20 * 8
    assert fault(kernel, "f08027fd")
    kernel.hv.observer = None
    assert seen == [
        FaultFixedUp(kernel.va(CODE), cr2, "and to a page table"),
        MemoryWritten(kernel.slot(L1, 20), 8),
    ]


def test_faults_in_xens_range_are_the_guests_own(kernel: Any) -> None:
    assert not fault(kernel, "8937", cr2=0xFFFF_8000_0000_0000)
    assert not fault(kernel, "8937", cr2=0xFFFF_8200_0000_0000, error_code=0)


def test_a_page_of_the_ldt_is_mapped_when_the_cpu_looks_for_it(kernel: Any) -> None:
    kernel.make_read_only(20)
    assert kernel.mmuext(MmuextOp.SET_LDT, kernel.va(20), 1024) == 0
    at = ldt_shadow_base(kernel.vcpu)
    assert fixup_page_fault(kernel.vcpu, Vaddr(at + 8), 0)
    kernel.audit()
    assert kernel.vcpu.trap_bounce.flags == 0
    # Page 21 is mapped writable: no page of descriptors. The guest gets the fault at its own address.
    assert fixup_page_fault(kernel.vcpu, Vaddr(at + 4096 + 16), 0)
    assert kernel.vcpu.trap_bounce.vector == Vector.PF
    assert kernel.vcpu.cr2 == kernel.va(21) + 16
    assert not fixup_page_fault(kernel.vcpu, Vaddr(at + 8192), 0), "behind its end"


def test_a_hypercall_and_a_store_agree(kernel: Any) -> None:
    for value in (kernel.pte(L1), kernel.pte(20) | 1 << 7, kernel.pte(20, READ_ONLY), 0, 0x1000):
        kernel.hv.cpu.gpr[RSI] = value
        before = kernel.entry(L1, 20)
        result = kernel.call(Hypercall.UPDATE_VA_MAPPING, kernel.va(20), value, 0)
        after = kernel.entry(L1, 20)
        assert kernel.call(Hypercall.UPDATE_VA_MAPPING, kernel.va(20), before, 0) in {0, -Errno.EBUSY}
        assert fault(kernel, STORES["mov %rsi,(%rdi)"]) == (result == 0)
        assert kernel.entry(L1, 20) == after


def test_any_bytes_are_decoded_as_another_disassembler_does() -> None:
    """Whatever is taken for a store has the length, operation, size and operands that capstone sees."""
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    rnd = random.Random(1)
    names = {"movabs": "mov", "movnti": "mov"} | {f"{n}{s}": n for n in ("stos", "movs") for s in "bwdq"}
    taken = 0
    for _ in range(20_000):
        prefix = b"".join(rnd.choices([b"", b"\xf0", b"\x66", b"\x67", b"\x64", b"\x65"], k=2)) or b"\xf3"
        rex = rnd.choice([b"", b"\x48", b"\x40", bytes([0x40 | rnd.randrange(16)])])
        opcode = rnd.choice(OPCODES)
        code = (prefix + rex + opcode + rnd.randbytes(15))[:15]
        store = decode_store(code)
        seen = next(engine.disasm(code, 0, 1), None)
        if seen is None:
            continue
        operands = seen.operands
        known = names.get(seen.insn_name(), seen.insn_name())
        to_memory = bool(operands) and operands[0].type == x86.X86_OP_MEM and operands[0].size <= 8
        if store is None:
            other = seen.insn_name()[:4] in {"movs", "stos", "movn"}
            exotic = other or any(op.type == x86.X86_OP_REG and seen.reg_name(op.reg) in SEGMENTS for op in operands)
            assert not (to_memory and known in KNOWN and not exotic), (code.hex(), seen.mnemonic, seen.op_str)
            continue
        taken += 1
        memory = operands[0].mem
        assert to_memory, code.hex()
        assert (store.length, store.name, store.size) == (seen.size, known, operands[0].size), code.hex()
        assert store.address_size == seen.addr_size
        assert store.segment == (seen.reg_name(memory.segment) if memory.segment and not store.is_string else "")
        if store.source is None or isinstance(store.source, int) or not store.is_string:
            assert store.displacement == memory.disp or (store.base is None and not store.rip_relative), code.hex()
        assert store.rip_relative == (memory.base in {x86.X86_REG_RIP, x86.X86_REG_EIP})
        for register, number in ((store.base, memory.base), (store.index, memory.index)):
            name = "" if number in {0, x86.X86_REG_RIP, x86.X86_REG_EIP} else seen.reg_name(number)
            name = "" if name in {"riz", "eiz"} else name
            assert (register is None) == (name == ""), code.hex()
            if register is not None:
                assert name == register_name(register), code.hex()
        if isinstance(store.source, Register):
            assert seen.reg_name(operands[1].reg) == register_name(store.source), code.hex()
        elif isinstance(store.source, int):
            bits = 8 if store.name in BIT_OPERATIONS else 8 * store.size
            assert (operands[1].imm ^ store.source) & (1 << bits) - 1 == 0, code.hex()
    assert taken > 800


KNOWN = {name.split()[-2].removeprefix("lock") for name in STORES if " " in name} & {
    *("mov", "xchg", "cmpxchg", "xadd", "and", "or", "xor", "add", "adc", "sub", "sbb", "bts", "btr", "btc"),
}
OPCODES = [bytes([n]) for n in range(256) if n >> 4 != 4 and n not in b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3"]
OPCODES += [b"\x0f" + bytes([n]) for n in range(256)]
SEGMENTS = {"es", "cs", "ss", "ds", "fs", "gs"}


def register_name(register: Register) -> str:
    """What a disassembler calls it."""
    legacy = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
    index, size = register.index, register.size
    if register.shift:
        return f"{legacy[index][0]}h"
    if index >= 8:
        return f"r{index}" + {8: "", 4: "d", 2: "w", 1: "b"}[size]
    if size == 1:
        return f"{legacy[index][0]}l" if index < 4 else f"{legacy[index]}l"
    return {8: "r", 4: "e", 2: ""}[size] + legacy[index]


def test_addresses_wrap_at_the_end_of_the_address_space(kernel: Any) -> None:
    assert kernel.mmuext(MmuextOp.SET_LDT, 0xFFFF_FFFF_FFFF_F000, 1024) == 0
    assert fixup_page_fault(kernel.vcpu, Vaddr(ldt_shadow_base(kernel.vcpu) + 4096 + 8), 0)
    assert kernel.vcpu.cr2 == 8
