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

/* entry_stubs[256]: 16 bytes each, for set_trap_table. Vectors 8, 10-14, 17 and 21 come with an error code. */
    .balign 16
    .globl entry_stubs
    .type entry_stubs, @function
entry_stubs:
    vector = 0
    .rept 256
    .balign 16
    pop %rcx
    pop %r11
    has_error = 0
    .if vector < 32
    has_error = (0x227d00 >> vector) & 1
    .endif
    .if !has_error
    push $0
    .endif
    .byte 0x68                      /* push imm32, in the same length for each vector */
    .long vector
    jmp trap_common
    vector = vector + 1
    .endr
    .size entry_stubs, . - entry_stubs

.macro CALLBACK name, number
    .globl \name
    .type \name, @function
\name:
    pop %rcx
    pop %r11
    push $0
    push $\number
    jmp trap_common
    .size \name, . - \name
.endm

    CALLBACK entry_event, VECTOR_EVENT
    CALLBACK entry_syscall, VECTOR_SYSCALL

/* The failsafe callback: Xen could not return to the guest as asked. Its frame has ds, es, fs, gs before rip. */
    .globl entry_failsafe
    .type entry_failsafe, @function
entry_failsafe:
    pop %rcx
    pop %r11
    add $4 * 8, %rsp
    push $0
    push $VECTOR_FAILSAFE
    jmp trap_common
    .size entry_failsafe, . - entry_failsafe

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

/*
 * void regs_enter(struct regs *regs): leaves the kernel with the registers at `regs`, wherever they are. Entry 23 of
 * the hypercall page pushes rcx, r11 and rax on top of what is built here: together that is struct iret_context.
 */
    .globl regs_enter
    .type regs_enter, @function
regs_enter:
    mov %rdi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $2 * 8, %rsp                /* vector, error */
    push $0                         /* flags: rcx and r11 are to be restored too, even after a syscall */
    jmp hypercall_page + __HYPERVISOR_iret * 32
    .size regs_enter, . - regs_enter
