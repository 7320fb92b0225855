/* Entry points for set_callbacks: they count, and go on as those of the runtime. Bounce frames stay as they are. */
    .text
.macro COUNTED name
    .globl old_\name
    .type old_\name, @function
old_\name:
    incl \name\()_entries(%rip)
    jmp entry_\name
    .size old_\name, . - old_\name
.endm

    COUNTED event
    COUNTED syscall
    COUNTED failsafe

    .section .user, "ax", @progbits
    .globl user_syscall, user_after
    .type user_syscall, @function
user_syscall:
    mov $0x5555, %eax
    syscall
user_after:
    jmp .
    .size user_syscall, . - user_syscall
