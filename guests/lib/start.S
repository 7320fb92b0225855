/*
 * The image's face to the domain builder (its ELF notes), the hypercall page that Xen fills in, and the first
 * instructions of the guest.
 */
#include <xen/elfnote.h>
#include <xen/xen.h>

.macro NOTE type, desc:vararg
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4, 2f - 1f, \type
    .asciz "Xen"
1:  \desc
2:  .balign 4
    .popsection
.endm

    NOTE XEN_ELFNOTE_GUEST_OS, .asciz "xdbg-guest"
    NOTE XEN_ELFNOTE_GUEST_VERSION, .asciz "1"
    NOTE XEN_ELFNOTE_XEN_VERSION, .asciz "xen-3.0"
    NOTE XEN_ELFNOTE_LOADER, .asciz "generic"
    NOTE XEN_ELFNOTE_FEATURES, .asciz "pae_pgdir_above_4gb"
    NOTE XEN_ELFNOTE_VIRT_BASE, .quad VIRT_BASE
    NOTE XEN_ELFNOTE_ENTRY, .quad _start
    NOTE XEN_ELFNOTE_HYPERCALL_PAGE, .quad hypercall_page

/*
 * Xen starts vcpu 0 here, in kernel mode, with events masked: rsi = start_info, rsp = the top of the boot stack, a page
 * behind the bootstrap page tables. All pages behind it, up to the end of the initial mapping, are free.
 */
    .cfi_sections .debug_frame
    .section .text.start, "ax", @progbits
    .globl _start
    .type _start, @function
_start:
    .cfi_startproc
    .cfi_undefined rip              /* nobody called us: backtraces end here */
    cld
    mov %rsi, start_info(%rip)
    mov %rsp, boot_stack_top(%rip)
    lea kernel_stack_top(%rip), %rsp
    xor %ebp, %ebp
    call guest_start
    ud2
    .cfi_endproc
    .size _start, . - _start

/*
 * One entry of 32 bytes for each hypercall, which Xen fills in: push %rcx; push %r11; mov $number, %eax; syscall;
 * pop %r11; pop %rcx; ret. That of iret pushes rcx, r11 and rax, and what is above is the frame that it returns to.
 * A debugger finds the caller by what is said here of the stack.
 */
    .macro STUBS from, to
    .cfi_startproc
    .rept (\to) - (\from)
    .cfi_def_cfa_offset 8
    .skip 1
    .cfi_def_cfa_offset 16
    .skip 2
    .cfi_def_cfa_offset 24
    .skip 9
    .cfi_def_cfa_offset 16
    .skip 1
    .cfi_def_cfa_offset 8
    .skip 19
    .endr
    .cfi_endproc
    .endm

    .section .text.hypercall_page, "ax", @progbits
    .balign 4096
    .globl hypercall_page
    .type hypercall_page, @function
hypercall_page:
    STUBS 0, __HYPERVISOR_iret
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_def_cfa rsp, 6 * 8
    .cfi_offset rip, -5 * 8
    .cfi_offset rsp, -2 * 8
    .skip 1
    .cfi_adjust_cfa_offset 8
    .skip 2
    .cfi_adjust_cfa_offset 8
    .skip 1
    .cfi_adjust_cfa_offset 8
    .skip 28
    .cfi_endproc
    STUBS __HYPERVISOR_iret + 1, 128
    .size hypercall_page, 4096

    .section .bss.pages, "aw", @nobits
    .balign 4096
    .globl kernel_stack, kernel_stack_top
    .type kernel_stack, @object
kernel_stack:
    .skip 4 * 4096
kernel_stack_top:
    .size kernel_stack, . - kernel_stack
