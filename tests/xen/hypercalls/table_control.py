"""What is for privileged domains, and hypercalls that this build of Xen does not have."""

from xdbg.abi.control import (
    XEN_DOMCTL_INTERFACE_VERSION,
    XEN_SYSCTL_INTERFACE_VERSION,
    XENPF_INTERFACE_VERSION,
    XenDmOpBuf,
    XenDomctl,
    XenPlatformOp,
    XenSysctl,
)
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_IO, DOMID_SELF

from .domain_under_test import FREE
from .vocabulary import (
    DOM0,
    DOMID_INVALID,
    E2BIG,
    EACCES,
    EFAULT,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    HIGH,
    IN_XEN,
    NEIGHBOUR,
    NOBODY,
    NULL,
    OWN,
    UNMAPPED,
    Operation,
    Place,
    Row,
    Table,
    anywhere,
    faults,
    fields,
    put,
    put_list,
    va,
)

CREATE, PAUSE, SHADOW_OP, ASSIGN, TEST_ASSIGN, DEASSIGN, VM_EVENT, GUESTMEMIO = 1, 3, 10, 37, 45, 47, 56, 1000
GETDOMAININFO, GETVCPUINFO, IOPORT_MAPPING, MEMORY_MAPPING, BIND_PT_IRQ = 5, 14, 48, 39, 38


def domctl(cmd: int, domain: object, version: int = XEN_DOMCTL_INTERFACE_VERSION):
    return put(XenDomctl, cmd=cmd, interface_version=version, domain=domain)


def only(number: Hypercall, summary: str, source: str, *rows: Row) -> Table:
    return Table(number, {None: Operation(summary, source, rows)})


def absent(number: Hypercall, why: str) -> Table:
    """Not in this Xen: whatever the arguments are."""
    return only(
        number,
        why,
        "pv_hypercall()",
        Row("zeros", (0, 0, 0), ENOSYS),
        Row("pointers to nothing", (UNMAPPED, UNMAPPED, UNMAPPED), ENOSYS),
        Row("pointers", (va(FREE), va(FREE), va(FREE)), ENOSYS),
    )


def unasked(number: Hypercall, summary: str, source: str, result: int = EPERM) -> Table:
    """Refused before any argument is looked at."""
    return only(
        number,
        summary,
        source,
        Row("zeros", (0, 0, 0, 0, 0), result),
        Row("pointers", (va(FREE), va(FREE), va(FREE), va(FREE), va(FREE)), result),
        Row("pointers to nothing", (UNMAPPED, UNMAPPED, UNMAPPED, UNMAPPED, UNMAPPED), result),
        Row("pointers into Xen's range", (IN_XEN, IN_XEN, IN_XEN, IN_XEN, IN_XEN), result),
        Row("an unknown command", (0xFFFF_FFFF, NULL, NULL, NULL, NULL), result),
    )


TABLES = (
    only(
        Hypercall.DOMCTL,
        "control of domains, for the toolstack",
        "do_domctl(), xsm_domctl()",
        *anywhere(Row("on another domain", (domctl(PAUSE, NEIGHBOUR),), EPERM)),
        Row("on itself", (domctl(PAUSE, OWN),), EPERM),
        Row("on domain 0", (domctl(PAUSE, DOM0),), EPERM),
        Row("on nobody", (domctl(PAUSE, NOBODY),), ESRCH),
        Row("on DOMID_SELF", (domctl(PAUSE, DOMID_SELF),), ESRCH),
        Row("getdomaininfo of itself", (domctl(GETDOMAININFO, OWN),), EPERM),
        Row("getvcpuinfo of itself", (domctl(GETVCPUINFO, OWN),), EPERM),
        Row("of a device model", (domctl(BIND_PT_IRQ, NEIGHBOUR),), EPERM),
        Row("memory_mapping", (domctl(MEMORY_MAPPING, OWN),), EPERM),
        Row("ioport_mapping", (domctl(IOPORT_MAPPING, OWN),), EPERM),
        Row("createdomain", (domctl(CREATE, 0),), EPERM),
        Row("createdomain with a free number", (domctl(CREATE, NOBODY),), EPERM),
        Row("guestmemio of nobody", (domctl(GUESTMEMIO, NOBODY),), EPERM),
        Row("assign_device to dom_io", (domctl(ASSIGN, DOMID_IO),), EPERM),
        Row("deassign_device of dom_io", (domctl(DEASSIGN, DOMID_IO),), EPERM),
        Row("assign_device to DOMID_INVALID", (domctl(ASSIGN, DOMID_INVALID),), ESRCH),
        Row("test_assign_device of DOMID_INVALID", (domctl(TEST_ASSIGN, DOMID_INVALID),), EPERM),
        Row("test_assign_device of dom_io", (domctl(TEST_ASSIGN, DOMID_IO),), ESRCH),
        Row("vm_event_op of DOMID_INVALID", (domctl(VM_EVENT, DOMID_INVALID),), EPERM),
        Row("vm_event_op of nobody", (domctl(VM_EVENT, NOBODY),), ESRCH),
        Row("unknown command", (domctl(9999, OWN),), EPERM),
        Row("another version of the interface", (domctl(PAUSE, NOBODY, 0x14),), EACCES),
        *faults(domctl(PAUSE, OWN)),
        Row("in a read-only page", (domctl(PAUSE, OWN).at(Place.READ_ONLY),), EPERM),
    ),
    only(
        Hypercall.ARCH_1,
        "how Xen continues a long domctl",
        "do_paging_domctl_cont()",
        *anywhere(Row("on another domain", (domctl(SHADOW_OP, NEIGHBOUR),), EPERM)),
        Row("on itself", (domctl(SHADOW_OP, OWN),), EPERM),
        Row("on domain 0", (domctl(SHADOW_OP, DOM0),), EPERM),
        Row("on nobody", (domctl(SHADOW_OP, NOBODY),), ESRCH),
        Row("on DOMID_SELF", (domctl(SHADOW_OP, DOMID_SELF),), ESRCH),
        Row("another command", (domctl(PAUSE, NOBODY),), EOPNOTSUPP),
        Row("another version of the interface", (domctl(SHADOW_OP, NOBODY, 0x14),), EOPNOTSUPP),
        *faults(domctl(SHADOW_OP, OWN)),
    ),
    only(
        Hypercall.SYSCTL,
        "control of the machine, for the toolstack",
        "do_sysctl()",
        *anywhere(Row("valid", (put(XenSysctl, cmd=1, interface_version=XEN_SYSCTL_INTERFACE_VERSION),), EPERM)),
        Row("unknown command", (put(XenSysctl, cmd=9999, interface_version=XEN_SYSCTL_INTERFACE_VERSION),), EPERM),
        Row("another version of the interface", (put(XenSysctl, cmd=1, interface_version=0x14),), EACCES),
        *faults(put(XenSysctl, cmd=1, interface_version=XEN_SYSCTL_INTERFACE_VERSION)),
    ),
    only(
        Hypercall.PLATFORM_OP,
        "control of the hardware, for the hardware domain",
        "do_platform_op()",
        *anywhere(Row("valid", (put(XenPlatformOp, cmd=17, interface_version=XENPF_INTERFACE_VERSION),), EPERM)),
        Row("unknown command", (put(XenPlatformOp, cmd=99, interface_version=XENPF_INTERFACE_VERSION),), EPERM),
        Row("another version of the interface", (put(XenPlatformOp, cmd=17, interface_version=1),), EACCES),
        *faults(put(XenPlatformOp, cmd=17, interface_version=XENPF_INTERFACE_VERSION)),
    ),
    unasked(Hypercall.ARCH_0, "machine checks (mca), for the hardware domain", "do_mca()"),
    unasked(Hypercall.KEXEC_OP, "what runs after Xen, for the hardware domain", "do_kexec_op()"),
    unasked(Hypercall.HYPFS_OP, "Xen's settings as files, for the toolstack", "do_hypfs_op()"),
    unasked(Hypercall.XENPMU_OP, "performance counters; they are off (vpmu=0)", "do_xenpmu_op()", EOPNOTSUPP),
    only(
        Hypercall.DM_OP,
        "device model of an HVM domain; for a PV domain nothing is done",
        "do_dm_op(), dm_op()",
        Row("for another domain", (NEIGHBOUR, 1, put(XenDmOpBuf, h=va(FREE), size=16)), 0),
        Row("for domain 0", (DOM0, 0, NULL), 0),
        Row("for itself", (OWN, 0, NULL), EPERM),
        Row("for DOMID_SELF", (DOMID_SELF, 0, NULL), ESRCH),
        Row("for nobody", (NOBODY, 0, NULL), ESRCH),
        Row("a domid has 16 bits", (NEIGHBOUR | HIGH | 0xA_0000, 0, NULL), 0),
        Row("three buffers", (NEIGHBOUR, 3, put_list(*[fields(XenDmOpBuf)] * 3)), 0),
        Row("four buffers", (NOBODY, 4, NULL), E2BIG),
        Row("a count has 32 bits", (NEIGHBOUR, HIGH, NULL), 0),
        Row("two buffers, one mapped", (NOBODY, 2, put_list(*[fields(XenDmOpBuf)] * 2).at(Place.STRADDLE)), EFAULT),
        *faults(put(XenDmOpBuf), before=(NOBODY, 1)),
    ),
    absent(Hypercall.XSM_OP, "XSM's own; its dummy policy has none"),
    absent(Hypercall.XENOPROF_OP, "profiling (CONFIG_XENOPROF)"),
    absent(Hypercall.TMEM_OP, "is gone from Xen"),
    absent(Hypercall.ARGO_OP, "messages between domains (CONFIG_ARGO)"),
    *(absent(number, "not defined for x86") for number in Hypercall if Hypercall.ARCH_2 <= number <= Hypercall.ARCH_7),
)
