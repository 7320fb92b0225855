/* The first instructions of every program: rsp points to argc, argv, the environment and the auxiliary vector. */
    .weak _DYNAMIC
    .hidden _DYNAMIC
    .section .text.start, "ax", @progbits
    .globl _start
    .type _start, @function
_start:
    .cfi_startproc
    .cfi_undefined rip
    xor %ebp, %ebp
    mov %rsp, %rdi
    lea _DYNAMIC(%rip), %rsi        /* 0 if the program is not position-independent */
    call start
    hlt
    .cfi_endproc
    .size _start, . - _start
    .section .note.GNU-stack, "", @progbits
