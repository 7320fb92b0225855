/* The instructions of the probes. rip is saved at a faulting instruction, and behind int3, int n and a stepped one. */
#include "traps.h"

.macro PROBE name
    .globl \name, \name\()_rip
    .type \name, @function
    .balign 16
\name:
.endm

/* What user and kernel code have in common is written once. */
.macro COMMON mode
    PROBE \mode\()_divide
    xor %ecx, %ecx
    mov $1, %eax
    xor %edx, %edx
\mode\()_divide_rip:
    div %ecx
    ret

    PROBE \mode\()_step
    pushf
    orl $0x100, (%rsp)              /* TF: the trap comes after the instruction behind popf */
    popf
    nop
\mode\()_step_rip:
    nop
    ret

    PROBE \mode\()_int3
    int3
\mode\()_int3_rip:
    ret

    PROBE \mode\()_int3_long
    .byte 0xcd, 3
\mode\()_int3_long_rip:
    ret

    PROBE \mode\()_overflow
    int $4
\mode\()_overflow_rip:
    ret

    PROBE \mode\()_bound
    int $5
\mode\()_bound_rip:
    ret

    PROBE \mode\()_ud2
\mode\()_ud2_rip:
    ud2
    ret

    PROBE \mode\()_forced_nop
\mode\()_forced_nop_rip:
    ud2a
    .ascii "xen"
    nop
    ret

    PROBE \mode\()_hlt
\mode\()_hlt_rip:
    hlt
    ret

    PROBE \mode\()_not_canonical
    movabs $NOT_CANONICAL, %rdx
\mode\()_not_canonical_rip:
    mov (%rdx), %rax
    ret

    PROBE \mode\()_selector
    mov $0x1233, %edx
\mode\()_selector_rip:
    mov %edx, %ds
    ret

    PROBE \mode\()_rdmsr
    mov $0xdead, %ecx
\mode\()_rdmsr_rip:
    rdmsr
    ret

    PROBE \mode\()_in
    mov $0x80, %edx
\mode\()_in_rip:
    in %dx, %al
    ret

    PROBE \mode\()_read
    mov $NOT_MAPPED + 8, %edx
\mode\()_read_rip:
    mov (%rdx), %rax
    ret

    PROBE \mode\()_write
    mov $NOT_MAPPED + 16, %edx
\mode\()_write_rip:
    mov %rax, (%rdx)
    ret

    PROBE \mode\()_push
    mov %rsp, %rcx
    mov $NOT_MAPPED + 32, %esp
\mode\()_push_rip:
    push %rax
    mov %rcx, %rsp
    ret

    PROBE \mode\()_execute
    mov $NOT_MAPPED + 24, %edx
    jmp *%rdx

    PROBE \mode\()_write_read_only
    mov $USER_READ_ONLY, %edx
\mode\()_write_read_only_rip:
    mov %rax, (%rdx)
    ret

    PROBE \mode\()_execute_data
    movabs $USER_NO_EXECUTE, %rdx
    jmp *%rdx

    PROBE \mode\()_x87
    fninit
    push $0x37b                     /* control word with the divide-by-zero exception unmasked */
    fldcw (%rsp)
    pop %rax
    fld1
    fldz
    fdivrp                          /* 1 / 0 is noted */
\mode\()_x87_rip:
    fwait                           /* and raised here */
    ret

    PROBE \mode\()_gate_0
\mode\()_gate_0_rip:
    int $GATE_0
\mode\()_gate_0_after:
    ret

    PROBE \mode\()_gate_1
\mode\()_gate_1_rip:
    int $GATE_1
    .globl \mode\()_gate_1_after
\mode\()_gate_1_after:
    ret

    PROBE \mode\()_gate_2
\mode\()_gate_2_rip:
    int $GATE_2
    .globl \mode\()_gate_2_after
\mode\()_gate_2_after:
    ret

    PROBE \mode\()_gate_3
\mode\()_gate_3_rip:
    int $GATE_3
    .globl \mode\()_gate_3_after
\mode\()_gate_3_after:
    ret

    PROBE \mode\()_gate_none
\mode\()_gate_none_rip:
    int $GATE_NONE
    ret

    PROBE \mode\()_int_80
    int $0x80
\mode\()_int_80_rip:
    ret

    PROBE \mode\()_device_not_available
\mode\()_device_not_available_rip:
    fninit
    ret
.endm

    .text
    COMMON kernel

    .section .user, "ax", @progbits
    /* First of the user text, at USER_READ_ONLY. */
    COMMON user

    PROBE user_cli
user_cli_rip:
    cli
    ret

    PROBE user_syscall
    syscall
user_syscall_rip:
    ret

    PROBE user_kernel_read
    mov $kernel_stack, %rdx         /* kernel pages are in no user page table */
user_kernel_read_rip:
    mov (%rdx), %rax
    ret
