"""Domains by their numbers, as a guest may name them. Xen: rcu_lock_domain_by_id() and its like, common/domain.c.

Domain 0 always exists: the backends of console, xenstore and disks are in it. It has no memory, vcpus or ports that a
guest could see; whatever a domU asks about it, it is not permitted to.
"""

from typing import TYPE_CHECKING, Final

from xdbg.abi.errno import Errno
from xdbg.abi.mmu import DOMID_SELF

from .domain import Domain
from .faults import HypercallError
from .vcpu import Vcpu

if TYPE_CHECKING:
    from .setup import Hypervisor

CONTROL_DOMID: Final = 0


def domain_exists(hv: "Hypervisor", domid: int) -> bool:
    """Whether `domid` is a domain's number; DOMID_SELF is none. Xen: rcu_lock_domain_by_id()."""
    return domid == CONTROL_DOMID or domid in hv.domains


def check_exists(vcpu: Vcpu, domid: int) -> None:
    """-ESRCH if `domid` is neither a domain's number nor DOMID_SELF. Xen: rcu_lock_domain_by_any_id()."""
    if domid != DOMID_SELF and not domain_exists(vcpu.domain.hv, domid):
        raise HypercallError(Errno.ESRCH)


def target_domain(vcpu: Vcpu, domid: int) -> Domain:
    """The caller's own domain, by DOMID_SELF or its number; -ESRCH for none, -EPERM for another. Xen: XSM_TARGET."""
    check_exists(vcpu, domid)
    if domid not in {DOMID_SELF, vcpu.domain.domid}:
        raise HypercallError(Errno.EPERM)
    return vcpu.domain
