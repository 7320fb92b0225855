/*
 * The first instructions of the guest, and the hypercall page that Xen fills in. What the image says to the domain
 * builder is in notes.S.
 */
#include <xen/xen.h>

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

/* A vcpu that the guest has started begins here, on a stack of its own. */
    .globl vcpu_entry
    .type vcpu_entry, @function
vcpu_entry:
    .cfi_startproc
    .cfi_undefined rip
    cld
    xor %ebp, %ebp
    call vcpu_main
    ud2
    .cfi_endproc
    .size vcpu_entry, . - vcpu_entry

/*
 * Entry N, 32 bytes long, calls hypercall N. Xen writes them at the start, each the same:
 *      push %rcx; push %r11; mov $N, %eax; syscall; pop %r11; pop %rcx; ret
 * but that of iret, which does not come back: push %rcx; push %r11; push %rax; mov $N, %eax; syscall. Nothing is here
 * but room, and what a debugger has to know of the stack to see the caller of a guest that waits in a hypercall.
 */
.macro PUSHED length, register
    .skip \length
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset \register, 0
.endm

.macro POPPED length, register
    .skip \length
    .cfi_adjust_cfa_offset -8
    .cfi_restore \register
.endm

    .section .hypercall_page, "ax", @nobits
    .balign 4096
    .globl hypercall_page
    .type hypercall_page, @function
hypercall_page:
    .cfi_startproc
    number = 0
    .rept 128
  .if number == __HYPERVISOR_iret
    .cfi_endproc
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_def_cfa rsp, 6 * 8         /* flags, rip, cs, rflags, rsp, ss: the caller is who will be returned to */
    .cfi_offset rip, -5 * 8
    .cfi_offset rsp, -2 * 8
    PUSHED 1, rcx
    PUSHED 2, r11
    PUSHED 1, rax
    .skip 28                        /* mov, syscall */
    .cfi_endproc
    .cfi_startproc
  .else
    PUSHED 1, rcx
    PUSHED 2, r11
    .skip 7                         /* mov, syscall */
    POPPED 2, r11
    POPPED 1, rcx
    .skip 19                        /* ret */
  .endif
    number = number + 1
    .endr
    .cfi_endproc
    .size hypercall_page, 4096

    .section .bss.pages, "aw", @nobits
    .balign 4096
    .globl kernel_stack, kernel_stack_top
    .type kernel_stack, @object
kernel_stack:
    .skip 4 * 4096
kernel_stack_top:
    .size kernel_stack, . - kernel_stack
