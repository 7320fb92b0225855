"""A virtual CPU: what Xen keeps of it beside the registers. Xen: struct vcpu, struct pv_vcpu.

While a vcpu is current its registers live in the one physical CPU; otherwise in `context`. Everything here is plain
data.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdbg.abi.frames import INVALID_MFN, Maddr, Mfn, Vaddr
from xdbg.abi.x86 import Cr4

if TYPE_CHECKING:
    from xdbg.machine.state import CpuState

    from .domain import Domain

CR4_VISIBLE = int(Cr4.PAE | Cr4.MCE | Cr4.OSFXSR | Cr4.OSXMMEXCPT)
"""What a guest sees of Xen's own CR4. Xen: PV_CR4_GUEST_VISIBLE_MASK."""
TBF_EXCEPTION = 1
"""trap_bounce holds an exception. Xen: asm-x86/processor.h."""
TBF_EXCEPTION_ERRCODE = 2
"""The frame gets an error code."""
TBF_INTERRUPT = 8
"""The upcall mask is set on delivery."""


@dataclass(frozen=True, slots=True)
class TrapGate:
    """One entry of a guest's trap table (struct trap_info): who may raise it by `int n`, and where it is handled."""

    vector: int
    dpl: int
    masks_events: bool
    cs: int
    address: Vaddr


@dataclass(slots=True)
class TrapBounce:
    """The pending delivery of one exception. Xen: struct trap_bounce."""

    error_code: int = 0
    flags: int = 0
    cs: int = 0
    eip: Vaddr = Vaddr(0)
    vector: int = 0
    """Xen does not keep it; a trace wants it."""


@dataclass(slots=True)
class Callback:
    """An entry point that the guest registered by set_callbacks or callback_op; address 0: none."""

    address: Vaddr = Vaddr(0)
    masks_events: bool = False
    cs: int = 0


@dataclass(slots=True)
class Timers:
    """A vcpu's virtual timers; times are system time in ns, 0: off."""

    singleshot_ns: int = 0
    """VCPUOP_set_singleshot_timer and set_timer_op share one timer in Xen."""
    periodic_period_ns: int = 0
    periodic_next_ns: int = 0
    poll_ns: int = 0
    """The time-out of a SCHEDOP_poll under way."""


@dataclass(slots=True)
class Runstate:
    """struct vcpu_runstate_info as Xen keeps it; `area` is where the guest wants to see it (0: nowhere)."""

    state: int = 3
    """RUNSTATE_*; offline until it runs."""
    since_ns: int = 0
    time_ns: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    area: Vaddr = Vaddr(0)


@dataclass(slots=True, eq=False)
class Vcpu:
    """One virtual CPU of `domain`."""

    domain: "Domain"
    vcpu_id: int
    context: "CpuState | None" = None
    """Registers while the vcpu is not current; None while it is."""

    # scheduling
    is_initialised: bool = False
    """It has been given registers and a page table, by the builder (the first) or by VCPUOP_initialise."""
    is_up: bool = False
    blocked: bool = False
    polling: tuple[int, ...] | None = None
    """The ports of a SCHEDOP_poll under way; () waits for the time-out alone."""
    paused: bool = False
    """Somebody beside the guest wants it to stand still. Xen: vcpu_pause()."""

    # modes and address spaces
    kernel_mode: bool = True
    """TF_kernel_mode: both modes run at CPL 3, this says which one it is."""
    guest_table: Mfn = INVALID_MFN
    """L4 of the kernel's address space."""
    guest_table_user: Mfn | None = None
    """L4 of user mode's address space."""
    gs_base_kernel: int = 0
    """The GS base of the mode the vcpu is not in is kept here or in `gs_base_user`."""
    gs_base_user: int = 0

    # entry points and stacks
    trap_table: list[TrapGate | None] = field(default_factory=lambda: [None] * 256)
    trap_bounce: TrapBounce = field(default_factory=TrapBounce)
    kernel_ss: int = 0
    kernel_sp: Vaddr = Vaddr(0)
    event_callback: Callback = field(default_factory=Callback)
    failsafe_callback: Callback = field(default_factory=Callback)
    syscall_callback: Callback = field(default_factory=Callback)
    syscall32_callback: Callback = field(default_factory=Callback)
    sysenter_callback: Callback = field(default_factory=Callback)

    # virtual machine state
    cr0: int = 0x80050033
    cr2: Vaddr = Vaddr(0)
    cr4: int = CR4_VISIBLE
    """What the guest sees: Xen's choice, and of its own TSD and DE."""
    tsc_aux: int = 0
    cpuid_faulting: bool = False
    """The guest wants `cpuid` in user mode to be #GP. Xen: misc_features_enables."""
    mcg_status: int = 0
    iopl: int = 0
    """Virtual IOPL, 0..3. Kernel mode counts as CPL 1 against it."""
    io_bitmap: Vaddr = Vaddr(0)
    """Guest address of the I/O permission bitmap that PHYSDEVOP_set_iobitmap gave."""
    io_bitmap_ports: int = 0
    debugreg: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400])
    dr7_emul: int = 0
    """The enable bits of DR7 that are for ports: `debugreg[7]` does not have them."""
    gdt_frames: tuple[Mfn, ...] = ()
    gdt_entries: int = 0
    ldt_base: Vaddr = Vaddr(0)
    ldt_entries: int = 0

    # shared with the guest
    vcpu_info: Maddr = Maddr(0)
    """Where struct vcpu_info is: in shared_info, or where VCPUOP_register_vcpu_info put it."""
    time_area: Vaddr = Vaddr(0)
    timers: Timers = field(default_factory=Timers)
    runstate: Runstate = field(default_factory=Runstate)
    virq_ports: dict[int, int] = field(default_factory=dict)
    """VIRQ number -> port."""

    nmi_pending: bool = False
    """VCPUOP_send_nmi was called for it."""
    nmi_masked: bool = False
    """An NMI was delivered, and no iret has been made since. Xen: async_exception_mask."""
    check_events: bool = False
    """Something was made pending for this vcpu from outside its own exits: deliver before it runs next."""

    @property
    def runnable(self) -> bool:
        """Whether the scheduler may run it."""
        return (
            self.is_up
            and not self.blocked
            and self.polling is None
            and not self.paused
            and not self.domain.paused
            and self.domain.shutdown_code is None
        )

    @property
    def cr3(self) -> Maddr:
        """The page table in use: the kernel's or user mode's L4, as a machine address."""
        table = self.guest_table if self.kernel_mode or self.guest_table_user is None else self.guest_table_user
        return Maddr(table << 12)

    @property
    def kernel_cr3(self) -> Maddr:
        """The kernel's L4, as a machine address."""
        return Maddr(self.guest_table << 12)
