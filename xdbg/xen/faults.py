"""The three ways in which something a guest did can fail.

* `HypercallError`: the hypercall returns `-errno`; nothing has changed.
* `GuestFault`: a guest pointer could not be followed; in a hypercall that is -EFAULT.
* `DomainCrash`: the guest can't go on; its domain ends with SHUTDOWN_crash, all others run on.

Anything else that escapes is a bug of the hypervisor. `AuditError` is one that it has found itself.
"""

from xdbg.abi.errno import Errno
from xdbg.abi.frames import Vaddr


class HypercallError(Exception):
    """The hypercall fails with `errno`; the guest sees its negative in rax."""

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno)
        self.errno = errno


class GuestFault(Exception):  # noqa: N818 - the field's word
    """`vaddr` is not accessible to the guest in the wanted way."""

    def __init__(self, vaddr: Vaddr, *, write: bool = False) -> None:
        super().__init__(f"guest address {vaddr:#x} is not {'writable' if write else 'readable'}")
        self.vaddr = vaddr
        self.write = write


class DomainCrash(Exception):  # noqa: N818 - Xen: domain_crash()
    """The domain made its own continuation impossible; `reason` says how, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AuditError(Exception):
    """What Xen keeps of its frames is not what it should be: every difference, one a line (`audit`)."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
