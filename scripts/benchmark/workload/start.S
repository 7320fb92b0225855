/* Entry points and the loops whose instruction counts must be exact.
 * One static ELF serves every peer:
 *   _start      Linux user mode (native, qemu-x86_64, gdbserver, rr, valgrind, Qiling, raw Unicorn)
 *   pvh_start   PVH (Xen note 18, 32-bit flat, paging off): qemu-system-x86_64 -kernel
 *   pv_start    Xen PV (notes 1, 2, 3, 5, 6, 8 ...): for a PV domain builder; rsi = start_info
 */
        .section .note.Xen, "a", @note
        .macro XNOTEQ type, val
        .balign 4
        .long 4, 8, \type
        .asciz "Xen"
        .quad \val
        .endm
        .macro XNOTES type, str
        .balign 4
        .long 4, 8891f - 8890f, \type
        .asciz "Xen"
8890:   .asciz "\str"
8891:   .balign 4
        .endm
        XNOTEQ 18, pvh_start            /* PHYS32_ENTRY */
        XNOTEQ 1, pv_start              /* ENTRY */
        XNOTEQ 2, hypercall_page        /* HYPERCALL_PAGE */
        XNOTEQ 3, 0                     /* VIRT_BASE */
        XNOTEQ 4, 0                     /* PADDR_OFFSET */
        XNOTES 5, "xen-3.0"             /* XEN_VERSION */
        XNOTES 6, "xdbgbench"           /* GUEST_OS */
        XNOTES 8, "generic"             /* LOADER */

        .text
        .code64
        .globl _start
_start: xorl %ebp, %ebp
        movl $1, bench_env(%rip)
        movq 16(%rsp), %rdi             /* argv[1] or NULL */
        xorl %esi, %esi
        cmpq $3, (%rsp)
        jb 1f
        movq 24(%rsp), %rsi             /* argv[2] */
1:      andq $-16, %rsp
        call bench_main
        ud2

        .globl pv_start
pv_start:
        cld
        movl $3, bench_env(%rip)
        leaq boot_stack_top(%rip), %rsp
        xorl %ebp, %ebp
        xorl %edi, %edi
        xorl %esi, %esi
        call bench_main
        ud2

        .code32
        .globl pvh_start
pvh_start:
        cld
        movl $boot_stack_top, %esp
        movl %ebx, boot_info
        movl $boot_pd, %edi
        movl $0x83, %eax
        movl $512, %ecx
1:      movl %eax, (%edi)
        movl $0, 4(%edi)
        addl $0x200000, %eax
        addl $8, %edi
        decl %ecx
        jnz 1b
        movl $boot_pd + 3, boot_pdpt
        movl $boot_pdpt + 3, boot_pml4
        movl %cr4, %eax
        orl $0x20, %eax
        movl %eax, %cr4
        movl $boot_pml4, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x100, %eax
        wrmsr
        movl %cr0, %eax
        orl $0x80000001, %eax
        movl %eax, %cr0
        lgdt boot_gdt_ptr
        ljmp $8, $1f
        .code64
1:      movl $16, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movq $boot_stack_top, %rsp
        movl $2, bench_env(%rip)
        movl boot_info(%rip), %ebx
        xorl %edi, %edi
        testl %ebx, %ebx
        jz 1f
        movq 24(%rbx), %rdi             /* hvm_start_info.cmdline_paddr */
1:      xorl %esi, %esi
        xorl %ebp, %ebp
        call bench_main
        ud2

        /* cpu_loop(n): 2 + 10 n + 1 instructions; one load, one store, one taken branch per turn */
        .balign 4096
        .globl cpu_loop, cpu_loop_end, cpu_never
cpu_loop:
        movq $0x9e3779b97f4a7c15, %rcx
        xorl %eax, %eax
1:      addq %rcx, %rax
        movq %rax, %rdx
        shrq $29, %rdx
        xorq %rdx, %rax
        movq cpu_scratch(%rip), %rsi
        addq %rsi, %rax
        leaq (%rax, %rdi, 4), %rdx
        movq %rdx, cpu_scratch(%rip)
        subq $1, %rdi
        jnz 1b
cpu_loop_end:
        ret
        .balign 16
cpu_never:                              /* same page as the loop, never executed */
        nop
        ret

        /* alu_loop(n): 1 + 7 n + 1 instructions, registers only */
        .balign 4096
        .globl alu_loop, alu_never
alu_loop:
        xorl %eax, %eax
1:      leaq 7(%rax, %rdi, 2), %rax
        movq %rax, %rdx
        shrq $13, %rdx
        xorq %rdx, %rax
        imulq $31, %rax, %rax
        subq $1, %rdi
        jnz 1b
        ret
        .balign 16
alu_never:                              /* same page as the loop, never executed */
        nop
        ret

        /* hot_loop(n): calls hot_function n times; 5 + 4 n + 3 n instructions */
        .balign 4096
        .globl hot_loop
hot_loop:
        pushq %rbx
        movq %rdi, %rbx
1:      movq %rbx, %rdi
        call hot_function
        subq $1, %rbx
        jnz 1b
        popq %rbx
        ret
        .balign 4096
        .globl hot_function
hot_function:
        movq hot_counter(%rip), %rax
        addq $1, %rax
        movq %rax, hot_counter(%rip)
        ret
        .balign 4096
        /* watch loops: n stores to another page (far) or to the watched word's own page (near),
         * then one store to watched_word */
        .globl watch_loop_far, watch_loop_near
watch_loop_far:
        xorl %eax, %eax
1:      addq %rdi, %rax
        movq %rax, far_word(%rip)
        movq far_word(%rip), %rdx
        xorq %rdx, %rax
        subq $1, %rdi
        jnz 1b
        movq bench_seq(%rip), %rax
        movq %rax, watched_word(%rip)
        nop
        ret
        .balign 16
watch_loop_near:
        xorl %eax, %eax
1:      addq %rdi, %rax
        movq %rax, near_word(%rip)
        movq near_word(%rip), %rdx
        xorq %rdx, %rax
        subq $1, %rdi
        jnz 1b
        movq bench_seq(%rip), %rax
        movq %rax, watched_word(%rip)
        nop
        ret
        .balign 4096
        .globl bench_ready, bench_done
bench_ready:
        nop
        ret
        .balign 2048
bench_done:
        nop
        ret
        .balign 4096
        .globl bench_exit
bench_exit:                             /* bench_exit(code): leaves the guest in all three worlds */
        movl bench_env(%rip), %ecx
        cmpl $2, %ecx
        je 2f
        cmpl $3, %ecx
        je 3f
        movl $231, %eax
        syscall
        ud2
2:      movl %edi, %eax
        movw $0xf4, %dx                 /* -device isa-debug-exit,iobase=0xf4,iosize=4 */
        outl %eax, %dx
        cli
1:      hlt
        jmp 1b
3:      leaq shutdown_arg(%rip), %rsi   /* sched_op(SCHEDOP_shutdown, {reason}) */
        movl %edi, (%rsi)
        movl $2, %edi
        call hypercall_page + 29 * 32
1:      jmp 1b
        .balign 4096
        .globl hypercall_page
hypercall_page:
        .skip 4096, 0x90

        .section .rodata
        .balign 8
boot_gdt:
        .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
boot_gdt_ptr:
        .word . - boot_gdt - 1
        .quad boot_gdt

        .data
        .balign 64
        .globl bench_env
bench_env: .long 0
boot_info: .long 0
shutdown_arg: .quad 0
        .balign 64
        .globl cpu_scratch, hot_counter
cpu_scratch: .quad 0
hot_counter: .quad 0
        .balign 4096
        .globl far_word, near_word, watched_word
far_word: .quad 0
        .balign 4096
watched_word: .quad 0
        .skip 1016
near_word: .quad 0
        .balign 4096

        .bss
        .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4096
boot_stack: .skip 65536
boot_stack_top:
        .section .note.GNU-stack, "", @progbits
