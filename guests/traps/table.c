/* The probes and what is expected of each: the same on a bare processor, but for what the comments say. */
#include "traps.h"

#include <pv/vectors.h>

#define CODE(name) \
    void name(void); \
    extern char name##_rip[];
#define BOTH(name) CODE(kernel_##name) CODE(user_##name)

BOTH(divide) BOTH(step) BOTH(int3) BOTH(int3_long) BOTH(overflow) BOTH(bound) BOTH(ud2) BOTH(forced_nop)
BOTH(device_not_available) BOTH(hlt) BOTH(not_canonical) BOTH(selector) BOTH(rdmsr) BOTH(in) BOTH(read) BOTH(write)
BOTH(push) BOTH(execute) BOTH(write_read_only) BOTH(execute_data) BOTH(x87)
BOTH(gate_0) BOTH(gate_1) BOTH(gate_2) BOTH(gate_3) BOTH(gate_none) BOTH(int_80)
CODE(user_cli) CODE(user_syscall) CODE(user_kernel_read)
extern char kernel_gate_1_after[], kernel_gate_2_after[], kernel_gate_3_after[], user_gate_3_after[];
extern char kernel_stack[];

#define K(text, name, ...) {"kernel: " text, KERNEL, kernel_##name, kernel_##name##_rip, __VA_ARGS__}
#define U(text, name, ...) {"user: " text, USER, user_##name, user_##name##_rip, __VA_ARGS__}

/* int n that the gate does not let through is a #GP with the gate's place in the IDT, and the bit that says so. */
#define REFUSED(gate) VECTOR_GP, (gate) * 8 + 2, 0

/* A page fault's error code: present 1, write 2, user 4, instruction fetch 16. Kernel mode never shows the 4. */
const struct probe probes[] = {
    K("div by 0", divide, VECTOR_DE, 0, 0),
    U("div by 0", divide, VECTOR_DE, 0, 0),
    K("TF", step, VECTOR_DB, 0, 0),
    U("TF", step, VECTOR_DB, 0, 0),
    K("int3", int3, VECTOR_BP, 0, 0),
    U("int3", int3, VECTOR_BP, 0, 0),
    K("int 3, two bytes", int3_long, VECTOR_BP, 0, 0),
    U("int 3, two bytes", int3_long, VECTOR_BP, 0, 0),
    K("int 4, gate of DPL 3", overflow, VECTOR_OF, 0, 0),
    U("int 4, gate of DPL 3", overflow, VECTOR_OF, 0, 0),
    K("int 5, gate of DPL 3", bound, VECTOR_BR, 0, 0),
    U("int 5, gate of DPL 3", bound, VECTOR_BR, 0, 0),
    K("ud2", ud2, VECTOR_UD, 0, 0),
    U("ud2", ud2, VECTOR_UD, 0, 0),
    /* Xen emulates nothing but cpuid behind its prefix. */
    K("forced emulation of nop", forced_nop, VECTOR_UD, 0, 0),
    U("forced emulation of nop", forced_nop, VECTOR_UD, 0, 0),
    K("x87 after fpu_taskswitch", device_not_available, VECTOR_NM, 0, 0),
    U("x87 after fpu_taskswitch", device_not_available, VECTOR_NM, 0, 0),
    K("hlt", hlt, VECTOR_GP, 0, 0),
    U("hlt", hlt, VECTOR_GP, 0, 0),
    U("cli", cli, VECTOR_GP, 0, 0),
    K("read of no canonical address", not_canonical, VECTOR_GP, 0, 0),
    U("read of no canonical address", not_canonical, VECTOR_GP, 0, 0),
    K("selector beyond the GDT", selector, VECTOR_GP, 0x1230, 0),
    U("selector beyond the GDT", selector, VECTOR_GP, 0x1230, 0),
    K("rdmsr of no register", rdmsr, VECTOR_GP, 0, 0),
    U("rdmsr of no register", rdmsr, VECTOR_GP, 0, 0),
    K("in without the privilege", in, VECTOR_GP, 0, 0),
    U("in without the privilege", in, VECTOR_GP, 0, 0),
    K("read, not present", read, VECTOR_PF, 0, NOT_MAPPED + 8),
    U("read, not present", read, VECTOR_PF, 4, NOT_MAPPED + 8),
    K("write, not present", write, VECTOR_PF, 2, NOT_MAPPED + 16),
    U("write, not present", write, VECTOR_PF, 6, NOT_MAPPED + 16),
    U("push, not present", push, VECTOR_PF, 6, NOT_MAPPED + 24),
    {"kernel: execute, not present", KERNEL, kernel_execute, (char *)NOT_MAPPED + 24, VECTOR_PF, 0x10, NOT_MAPPED + 24},
    {"user: execute, not present", USER, user_execute, (char *)NOT_MAPPED + 24, VECTOR_PF, 0x14, NOT_MAPPED + 24},
    K("write, read-only", write_read_only, VECTOR_PF, 3, USER_READ_ONLY),
    U("write, read-only", write_read_only, VECTOR_PF, 7, USER_READ_ONLY),
    {"kernel: execute data", KERNEL, kernel_execute_data, (char *)USER_NO_EXECUTE, VECTOR_PF, 0x11, USER_NO_EXECUTE},
    {"user: execute data", USER, user_execute_data, (char *)USER_NO_EXECUTE, VECTOR_PF, 0x15, USER_NO_EXECUTE},
    U("read of the kernel", kernel_read, VECTOR_PF, 4, (uint64_t)kernel_stack),
    K("x87 1 / 0", x87, VECTOR_MF, 0, 0),
    U("x87 1 / 0", x87, VECTOR_MF, 0, 0),
    /* Levels 1 and 2 are the kernel's, although it runs at 3 like its processes. */
    K("int, gate of DPL 0", gate_0, REFUSED(GATE_0)),
    U("int, gate of DPL 0", gate_0, REFUSED(GATE_0)),
    {"kernel: int, gate of DPL 1", KERNEL, kernel_gate_1, kernel_gate_1_after, GATE_1, 0, 0},
    U("int, gate of DPL 1", gate_1, REFUSED(GATE_1)),
    {"kernel: int, gate of DPL 2", KERNEL, kernel_gate_2, kernel_gate_2_after, GATE_2, 0, 0},
    U("int, gate of DPL 2", gate_2, REFUSED(GATE_2)),
    {"kernel: int, gate of DPL 3", KERNEL, kernel_gate_3, kernel_gate_3_after, GATE_3, 0, 0},
    {"user: int, gate of DPL 3", USER, user_gate_3, user_gate_3_after, GATE_3, 0, 0},
    K("int, no gate", gate_none, REFUSED(GATE_NONE)),
    U("int, no gate", gate_none, REFUSED(GATE_NONE)),
    K("int 0x80, gate of DPL 3", int_80, 0x80, 0, 0),
    U("int 0x80, gate of DPL 3", int_80, 0x80, 0, 0),
    U("syscall", syscall, VECTOR_SYSCALL, 0, 0),
};

const unsigned nr_probes = sizeof(probes) / sizeof(probes[0]);
