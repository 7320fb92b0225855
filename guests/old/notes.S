/*
 * The image's face to the domain builder, in the older form: one string, in a section that is found by its name. It
 * gives the hypercall page by its number, counted from VIRT_BASE; guest.lds puts it first. It says nothing of the
 * entry point and of the offset of physical addresses: those are e_entry then, and VIRT_BASE.
 */
    .section __xen_guest, "", @progbits
    .ascii "GUEST_OS=xdbg-guest,GUEST_VER=1,XEN_VER=xen-3.0,LOADER=generic"
    .ascii ",VIRT_BASE=0xffffffff80000000,HYPERCALL_PAGE=0x100"
    .asciz ",FEATURES=pae_pgdir_above_4gb,PAE=yes[extended-cr3],BSD_SYMTAB=yes"
