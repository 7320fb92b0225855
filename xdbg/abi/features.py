"""Features of the ABI that Xen offers and a kernel asks for. Xen public/features.h.

The FEATURES note names them as C does after the prefix, `writable_page_tables|pae_pgdir_above_4gb`; a `!` in front
says "required".
"""

from typing import Final

from xdbg.abi.cenum import CEnum

XENFEAT_NR_SUBMAPS: Final = 1
"""Words of 32 features that XENVER_get_features knows."""


class XenFeat(CEnum, prefix="XENFEAT_"):
    """XENFEAT_*: bit number of a feature. Xen public/features.h."""

    WRITABLE_PAGE_TABLES = 0
    WRITABLE_DESCRIPTOR_TABLES = 1
    AUTO_TRANSLATED_PHYSMAP = 2
    SUPERVISOR_MODE_KERNEL = 3
    PAE_PGDIR_ABOVE_4GB = 4
    MMU_PT_UPDATE_PRESERVE_AD = 5
    HIGHMEM_ASSIST = 6
    GNTTAB_MAP_AVAIL_BITS = 7
    HVM_CALLBACK_VECTOR = 8
    HVM_SAFE_PVCLOCK = 9
    HVM_PIRQS = 10
    DOM0 = 11
    MEMORY_OP_VNODE_SUPPORTED = 13
    ARM_SMCCC_SUPPORTED = 14
    LINUX_RSDP_UNRESTRICTED = 15
    NOT_DIRECT_MAPPED = 16
    DIRECT_MAPPED = 17
