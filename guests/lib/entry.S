/*
 * All ways from Xen into the guest kernel, and the one way out.
 *
 * Xen leaves a bounce frame on the kernel stack and enters at the address registered for the event. From the top:
 *
 *     rcx, r11, [error code], rip, cs | saved upcall mask << 32, rflags, rsp, ss
 *
 * Each stub takes rcx and r11 off (they hold these values already), puts a zero where a vector has no error code, and
 * adds its number: what trap_common then completes is struct regs. The way out is the hypercall iret, because only
 * Xen can change between kernel and user mode, and give the upcall mask back in the same step.
 */
#include <pv/vectors.h>
#include <xen/xen.h>

    .cfi_sections .debug_frame
    .text

/*
 * The first instructions of every entry. On the stack: rcx, r11, `more` words, rip, cs, rflags, rsp, ss. Call frame
 * information counts from their end, so that rip and rsp are always at the same place.
 */
.macro TAKE_RCX_AND_R11 more
    .cfi_def_cfa rsp, (7 + \more) * 8
    .cfi_offset rcx, -(7 + \more) * 8
    .cfi_offset r11, -(6 + \more) * 8
    pop %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_same_value rcx
    pop %r11
    .cfi_adjust_cfa_offset -8
    .cfi_same_value r11
.endm

/* entry_stubs[256]: 16 bytes each, for set_trap_table. Vectors 8, 10-14, 17 and 21 come with an error code. */
    .balign 16
    .globl entry_stubs
    .type entry_stubs, @function
entry_stubs:
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_offset rip, -5 * 8
    .cfi_offset rsp, -2 * 8
    vector = 0
    .rept 256
    .balign 16
    has_error = 0
    .if vector < 32
    has_error = (0x227d00 >> vector) & 1
    .endif
    TAKE_RCX_AND_R11 has_error
    .if !has_error
    push $0
    .cfi_adjust_cfa_offset 8
    .endif
    .byte 0x68                      /* push imm32, in the same length for each vector */
    .long vector
    .cfi_adjust_cfa_offset 8
    jmp trap_common
    vector = vector + 1
    .endr
    .cfi_endproc
    .size entry_stubs, . - entry_stubs

.macro CALLBACK name, number, more=0
    .globl \name
    .type \name, @function
\name:
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_offset rip, -5 * 8
    .cfi_offset rsp, -2 * 8
    TAKE_RCX_AND_R11 \more
    .if \more
    add $\more * 8, %rsp
    .cfi_adjust_cfa_offset -\more * 8
    .endif
    push $0
    .cfi_adjust_cfa_offset 8
    push $\number
    .cfi_adjust_cfa_offset 8
    jmp trap_common
    .cfi_endproc
    .size \name, . - \name
.endm

    CALLBACK entry_event, VECTOR_EVENT
    CALLBACK entry_syscall, VECTOR_SYSCALL

/* The failsafe callback: Xen could not return to the guest as asked. Its frame has ds, es, fs, gs before rip. */
    CALLBACK entry_failsafe, VECTOR_FAILSAFE, 4

.macro SAVE register
    push %\register
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset \register, 0
.endm

/* The call frame information tells a debugger where struct regs keeps the interrupted registers. */
    .type trap_common, @function
trap_common:
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_def_cfa rsp, 7 * 8
    .cfi_offset rip, -5 * 8
    .cfi_offset rsp, -2 * 8
    SAVE rdi
    SAVE rsi
    SAVE rdx
    SAVE rcx
    SAVE rax
    SAVE r8
    SAVE r9
    SAVE r10
    SAVE r11
    SAVE rbx
    SAVE rbp
    SAVE r12
    SAVE r13
    SAVE r14
    SAVE r15
    cld
    mov %rsp, %rdi
    call trap_dispatch
    mov %rsp, %rdi
    .cfi_endproc
    .size trap_common, . - trap_common
    /* falls through */

.macro RESTORE register
    pop %\register
    .cfi_adjust_cfa_offset -8
    .cfi_same_value \register
.endm

/*
 * void regs_enter(struct regs *regs): leaves the kernel with the registers at `regs`, wherever they are. Entry 23 of
 * the hypercall page pushes rcx, r11 and rax on top of what is built here: together that is struct iret_context.
 */
    .globl regs_enter
    .type regs_enter, @function
regs_enter:
    .cfi_startproc simple           /* the caller is who will be returned to */
    .cfi_signal_frame
    .cfi_def_cfa rdi, 22 * 8
    .cfi_offset rip, -5 * 8
    .cfi_offset rsp, -2 * 8
    .cfi_offset r15, -22 * 8
    .cfi_offset r14, -21 * 8
    .cfi_offset r13, -20 * 8
    .cfi_offset r12, -19 * 8
    .cfi_offset rbp, -18 * 8
    .cfi_offset rbx, -17 * 8
    .cfi_offset r11, -16 * 8
    .cfi_offset r10, -15 * 8
    .cfi_offset r9, -14 * 8
    .cfi_offset r8, -13 * 8
    .cfi_offset rax, -12 * 8
    .cfi_offset rcx, -11 * 8
    .cfi_offset rdx, -10 * 8
    .cfi_offset rsi, -9 * 8
    .cfi_offset rdi, -8 * 8
    mov %rdi, %rsp
    .cfi_def_cfa_register rsp
    RESTORE r15
    RESTORE r14
    RESTORE r13
    RESTORE r12
    RESTORE rbp
    RESTORE rbx
    RESTORE r11
    RESTORE r10
    RESTORE r9
    RESTORE r8
    RESTORE rax
    RESTORE rcx
    RESTORE rdx
    RESTORE rsi
    RESTORE rdi
    add $2 * 8, %rsp                /* vector, error */
    .cfi_adjust_cfa_offset -2 * 8
    push $0                         /* flags: rcx and r11 are to be restored too, even after a syscall */
    .cfi_adjust_cfa_offset 8
    jmp hypercall_page + __HYPERVISOR_iret * 32
    .cfi_endproc
    .size regs_enter, . - regs_enter
