"""What Xen tells of itself. Xen: common/kernel.c, common/version.c, public/version.h.

The version is that of the Xen whose behaviour the other modules follow, since guests choose their ways by it. Strings
are cut to their buffers and zero behind the NUL. The command line and the build are not for an unprivileged domain.
"""

from typing import Final

from xdbg.abi.errno import Errno
from xdbg.abi.features import XenFeat
from xdbg.abi.frames import PAGE_SIZE
from xdbg.abi.hypercalls import Hypercall, VmasstType
from xdbg.abi.version import (
    XEN_CAPABILITIES_INFO_LEN,
    XEN_CHANGESET_INFO_LEN,
    XEN_EXTRAVERSION_LEN,
    XenCompileInfo,
    XenFeatureInfo,
    XenPlatformParameters,
    XenVer,
)
from xdbg.abi.x86 import HYPERVISOR_VIRT_START

from .domain import Domain
from .faults import HypercallError
from .guest_access import copy_string, copy_to_guest, read_struct, write_struct
from .hypercall import hypercall
from .vcpu import Vcpu

XEN_MAJOR_VERSION: Final = 4
XEN_MINOR_VERSION: Final = 17
XEN_EXTRA_VERSION: Final = b".7"
CAPABILITIES: Final = b"xen-3.0-x86_64 "
"""Kinds of guests that run here: PV, 64 bits; each ends with a space."""
CHANGESET: Final = b"unavailable"
DENIED: Final = b"<denied>\0"
"""Instead of a string that a domain may not have."""

_FEATURES = (
    1 << XenFeat.MEMORY_OP_VNODE_SUPPORTED
    | 1 << XenFeat.NOT_DIRECT_MAPPED
    | 1 << XenFeat.MMU_PT_UPDATE_PRESERVE_AD
    | 1 << XenFeat.HIGHMEM_ASSIST
    | 1 << XenFeat.GNTTAB_MAP_AVAIL_BITS
)


def features(domain: Domain) -> int:
    """Bits 0 to 31 of XENFEAT_* for a PV domain."""
    if domain.vm_assist >> VmasstType.PAE_EXTENDED_CR3 & 1:
        return _FEATURES | 1 << XenFeat.PAE_PGDIR_ABOVE_4GB
    return _FEATURES


def domain_handle(domain: Domain) -> bytes:
    """The domain's UUID, 16 bytes; the same as in the store."""
    return domain.domid.to_bytes(16, "big")


def compile_info() -> XenCompileInfo:
    """Who built this Xen, with what and when: the same for everybody, so that runs can be repeated."""
    info = XenCompileInfo()
    info.compiler = b"Python"
    info.compile_by = b"xdbg"
    info.compile_domain = b"localdomain"
    info.compile_date = b"Sun Jan  1 00:00:00 UTC 2006"
    return info


@hypercall(Hypercall.XEN_VERSION)
def do_xen_version(vcpu: Vcpu, cmd: int, arg: int) -> int:
    """HYPERVISOR_xen_version(cmd, arg): the version, as major << 16 | minor, and other facts about Xen.

    With a command that just returns a number it is also how a guest has Xen look for pending events.
    Xen: common/kernel.c.
    """
    match cmd:
        case XenVer.VERSION:
            return XEN_MAJOR_VERSION << 16 | XEN_MINOR_VERSION
        case XenVer.EXTRAVERSION:
            copy_string(vcpu, arg, XEN_EXTRA_VERSION, XEN_EXTRAVERSION_LEN)
        case XenVer.COMPILE_INFO:
            write_struct(vcpu, arg, compile_info())
        case XenVer.CAPABILITIES:
            copy_string(vcpu, arg, CAPABILITIES, XEN_CAPABILITIES_INFO_LEN)
        case XenVer.CHANGESET:
            copy_string(vcpu, arg, CHANGESET, XEN_CHANGESET_INFO_LEN)
        case XenVer.PLATFORM_PARAMETERS:
            parameters = XenPlatformParameters()
            parameters.virt_start = HYPERVISOR_VIRT_START
            write_struct(vcpu, arg, parameters)
        case XenVer.GET_FEATURES:
            info = read_struct(vcpu, arg, XenFeatureInfo)
            if info.submap_idx != 0:
                raise HypercallError(Errno.EINVAL)
            info.submap = features(vcpu.domain)
            write_struct(vcpu, arg, info)
        case XenVer.PAGESIZE:
            if arg:
                raise HypercallError(Errno.EINVAL)
            return PAGE_SIZE
        case XenVer.GUEST_HANDLE:
            copy_to_guest(vcpu, arg, domain_handle(vcpu.domain))
        case XenVer.COMMANDLINE:
            copy_to_guest(vcpu, arg, DENIED)
        case XenVer.BUILD_ID:
            raise HypercallError(Errno.EPERM)
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0
