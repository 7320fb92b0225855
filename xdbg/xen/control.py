"""Hypercalls of the toolstack and of other privileged domains, each refused as Xen refuses it to a domU.

Xen: common/domctl.c, common/sysctl.c, arch/x86/platform_hypercall.c and others. What the errno is depends on what Xen
looks at first: some read their argument before they ask who is calling, some do not. With XSM's dummy policy a domU has
none of the privileges, and is no device model for any domain.
"""

from typing import Final

from xdbg.abi.control import (
    XEN_DOMCTL_ASSIGN_DEVICE,
    XEN_DOMCTL_CREATEDOMAIN,
    XEN_DOMCTL_DEASSIGN_DEVICE,
    XEN_DOMCTL_GDBSX_GUESTMEMIO,
    XEN_DOMCTL_INTERFACE_VERSION,
    XEN_DOMCTL_SHADOW_OP,
    XEN_DOMCTL_TEST_ASSIGN_DEVICE,
    XEN_DOMCTL_VM_EVENT_OP,
    XEN_SYSCTL_INTERFACE_VERSION,
    XENPF_INTERFACE_VERSION,
    XenDmOpBuf,
    XenDomctl,
    XenPlatformOp,
    XenSysctl,
)
from xdbg.abi.errno import Errno
from xdbg.abi.hypercalls import Hypercall
from xdbg.abi.mmu import DOMID_INVALID, DOMID_IO

from .domain_lookup import domain_exists
from .faults import HypercallError
from .guest_access import copy_from_guest, read_struct
from .hypercall import hypercall
from .vcpu import Vcpu

MAX_DM_OP_BUFS: Final = 3
"""Buffers that one dm_op has at most."""


@hypercall(Hypercall.DOMCTL)
def do_domctl(vcpu: Vcpu, u_domctl: int) -> int:
    """HYPERVISOR_domctl(op): for the toolstack; -EPERM.

    Before that: -EFAULT, -EACCES for another version of the interface, -ESRCH for no such domain.
    """
    op = read_struct(vcpu, u_domctl, XenDomctl)
    if op.interface_version != XEN_DOMCTL_INTERFACE_VERSION:
        raise HypercallError(Errno.EACCES)
    if not _domctl_target_exists(vcpu, op.cmd, op.domain):
        raise HypercallError(Errno.ESRCH)
    raise HypercallError(Errno.EPERM)


def _domctl_target_exists(vcpu: Vcpu, cmd: int, domid: int) -> bool:
    """Whether a domctl's domain exists, where the command is about one."""
    if cmd in {XEN_DOMCTL_CREATEDOMAIN, XEN_DOMCTL_GDBSX_GUESTMEMIO}:
        return True
    if cmd in {XEN_DOMCTL_ASSIGN_DEVICE, XEN_DOMCTL_DEASSIGN_DEVICE} and domid == DOMID_IO:
        return True
    if cmd in {XEN_DOMCTL_TEST_ASSIGN_DEVICE, XEN_DOMCTL_VM_EVENT_OP} and domid == DOMID_INVALID:
        return True
    return domain_exists(vcpu.domain.hv, domid)


@hypercall(Hypercall.ARCH_1)
def do_paging_domctl_cont(vcpu: Vcpu, u_domctl: int) -> int:
    """HYPERVISOR_arch_1(op): how Xen continues a long domctl on a domain's shadows; -EPERM.

    Before that: -EFAULT, -EOPNOTSUPP for another version or command, -ESRCH. Xen: arch/x86/mm/paging.c.
    """
    op = read_struct(vcpu, u_domctl, XenDomctl)
    if op.interface_version != XEN_DOMCTL_INTERFACE_VERSION or op.cmd != XEN_DOMCTL_SHADOW_OP:
        raise HypercallError(Errno.EOPNOTSUPP)
    if not domain_exists(vcpu.domain.hv, op.domain):
        raise HypercallError(Errno.ESRCH)
    raise HypercallError(Errno.EPERM)


@hypercall(Hypercall.SYSCTL)
def do_sysctl(vcpu: Vcpu, u_sysctl: int) -> int:
    """HYPERVISOR_sysctl(op): for the toolstack; -EPERM. Else -EFAULT, or -EACCES for another version."""
    if read_struct(vcpu, u_sysctl, XenSysctl).interface_version != XEN_SYSCTL_INTERFACE_VERSION:
        raise HypercallError(Errno.EACCES)
    raise HypercallError(Errno.EPERM)


@hypercall(Hypercall.PLATFORM_OP)
def do_platform_op(vcpu: Vcpu, u_xenpf_op: int) -> int:
    """HYPERVISOR_platform_op(op): for the hardware domain; -EPERM. Else -EFAULT, or -EACCES for another version."""
    if read_struct(vcpu, u_xenpf_op, XenPlatformOp).interface_version != XENPF_INTERFACE_VERSION:
        raise HypercallError(Errno.EACCES)
    raise HypercallError(Errno.EPERM)


@hypercall(Hypercall.ARCH_0)
def do_mca(vcpu: Vcpu, u_xen_mc: int) -> int:
    """HYPERVISOR_mca(mc): machine checks, for the hardware domain; -EPERM. Xen: arch/x86/cpu/mcheck/mce.c."""
    raise HypercallError(Errno.EPERM)


@hypercall(Hypercall.KEXEC_OP)
def do_kexec_op(vcpu: Vcpu, op: int, uarg: int) -> int:
    """HYPERVISOR_kexec_op(op, arg): what runs after Xen, for the hardware domain; -EPERM. Xen: common/kexec.c."""
    raise HypercallError(Errno.EPERM)


@hypercall(Hypercall.HYPFS_OP)
def do_hypfs_op(vcpu: Vcpu, cmd: int, arg1: int, arg2: int, arg3: int, arg4: int) -> int:
    """HYPERVISOR_hypfs_op(cmd, ...): Xen's settings as files, for the toolstack; -EPERM. Xen: common/hypfs.c."""
    raise HypercallError(Errno.EPERM)


@hypercall(Hypercall.XENPMU_OP)
def do_xenpmu_op(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_xenpmu_op(op, params): performance counters; -EOPNOTSUPP, they are off (vpmu=0, the default).

    Xen: arch/x86/cpu/vpmu.c.
    """
    raise HypercallError(Errno.EOPNOTSUPP)


@hypercall(Hypercall.DM_OP)
def do_dm_op(vcpu: Vcpu, domid: int, count: int, bufs: int) -> int:
    """HYPERVISOR_dm_op(domid, nr_bufs, bufs): the device model of an HVM domain.

    There is none: -E2BIG and -EFAULT for bad buffers, -ESRCH for no such domain, -EPERM for the caller's own, and for
    another one nothing is done. Xen: common/dm.c, arch/x86/hvm/dm.c.
    """
    if count > MAX_DM_OP_BUFS:
        raise HypercallError(Errno.E2BIG)
    copy_from_guest(vcpu, bufs, count * XenDmOpBuf.SIZE)
    domid &= 0xFFFF
    if not domain_exists(vcpu.domain.hv, domid):
        raise HypercallError(Errno.ESRCH)
    if domid == vcpu.domain.domid:
        raise HypercallError(Errno.EPERM)
    return 0
