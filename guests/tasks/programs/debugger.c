/*
 * debugger PID FUNCTION HITS: a debugger inside the guest.
 *
 * It attaches to the process, finds the function in the symbols of its program, writes int3 over the first byte there,
 * and lets it run. The processor's #BP goes to Xen, from Xen to the kernel as any trap of a guest, and from the kernel
 * to here as a stop with SIGNAL_TRAP: no debugger outside is needed or asked. At each hit it reports registers and a
 * variable, puts the byte back, steps over the instruction, and plants the int3 again. Ends with the number of hits.
 */
#include "program.h"

#include "../../elf64.h"

#define INT3 0xcc

static int pid;
static struct trace_info info;

static void check(const char *what, long result)
{
    if (result >= 0)
        return;
    print("debugger: %s: error %ld\n", what, result);
    exit(100);
}

static void read_program(unsigned long offset, void *buffer, unsigned long length)
{
    if (read_file(info.path, offset, buffer, length) != (long)length) {
        print("debugger: cannot read %s\n", info.path);
        exit(101);
    }
}

/* Looks a name up in one symbol table; 0 if it is not there. */
static unsigned long symbol_in(const struct elf_section *table, const struct elf_section *names, const char *name)
{
    struct elf_symbol symbol;
    char text[32];

    for (unsigned long at = 0; at < table->size; at += sizeof(symbol)) {
        unsigned long rest;

        read_program(table->offset + at, &symbol, sizeof(symbol));
        rest = names->size - symbol.name;
        read_program(names->offset + symbol.name, text, rest < sizeof(text) ? rest : sizeof(text));
        if (!strncmp(text, name, sizeof(text)))
            return info.load_base + symbol.value;
    }
    return 0;
}

static unsigned long address_of(const char *name)
{
    struct elf_header header;
    struct elf_section section, names;
    unsigned long address = 0;

    read_program(0, &header, sizeof(header));
    for (unsigned i = 0; i < header.shnum && !address; i++) {
        read_program(header.shoff + i * sizeof(section), &section, sizeof(section));
        if (section.type != ELF_SYMTAB)
            continue;
        read_program(header.shoff + section.link * sizeof(names), &names, sizeof(names));
        address = symbol_in(&section, &names, name);
    }
    if (!address) {
        print("debugger: no symbol %s\n", name);
        exit(102);
    }
    return address;
}

static unsigned long peek(unsigned long address)
{
    unsigned long word;

    check("peek", trace(TRACE_PEEK, pid, address, (unsigned long)&word));
    return word;
}

static void poke_byte(unsigned long address, unsigned char byte)
{
    check("poke", trace(TRACE_POKE, pid, address, (peek(address) & ~0xfful) | byte));
}

static void expect_stop(int signal)
{
    long stop = trace(TRACE_WAIT, pid, 0, 0);

    if (stop != signal) {
        print("debugger: stop %lx, expected %d\n", stop, signal);
        exit(103);
    }
}

/* Runs to the int3; rip is behind it then. */
static void run_to(unsigned long address, struct trace_regs *regs)
{
    check("continue", trace(TRACE_CONTINUE, pid, 0, 0));
    expect_stop(SIGNAL_TRAP);
    check("get registers", trace(TRACE_GETREGS, pid, 0, (unsigned long)regs));
    if (regs->rip != address + 1) {
        print("debugger: rip %lx, expected %lx\n", regs->rip, address + 1);
        exit(104);
    }
}

/* Executes the instruction that belongs there. */
static void step_over(unsigned long address, unsigned char byte, struct trace_regs *regs)
{
    poke_byte(address, byte);
    regs->rip = address;
    check("set registers", trace(TRACE_SETREGS, pid, 0, (unsigned long)regs));
    check("step", trace(TRACE_STEP, pid, 0, 0));
    expect_stop(SIGNAL_TRAP);
    check("get registers", trace(TRACE_GETREGS, pid, 0, (unsigned long)regs));
    if (regs->rip == address) {
        print("debugger: the step went nowhere\n");
        exit(105);
    }
}

int main(int argc, char *argv[])
{
    unsigned long address, sum;
    struct trace_regs regs;
    unsigned char byte;
    int hits;

    if (argc != 4)
        return 106;
    pid = parse_number(argv[1]);
    hits = parse_number(argv[3]);
    check("attach", trace(TRACE_ATTACH, pid, 0, 0));
    expect_stop(SIGNAL_STOP);
    check("info", trace(TRACE_INFO, pid, 0, (unsigned long)&info));
    address = address_of(argv[2]);
    sum = address_of("sum");
    byte = peek(address);
    print("debugger: %s at %lx in %s, pid %d\n", argv[2], address, info.path, pid);

    poke_byte(address_of("go"), 1);
    for (int hit = 1; hit <= hits; hit++) {
        poke_byte(address, INT3);
        run_to(address, &regs);
        print("debugger: hit %d at %s, rip %lx, n = %lu, sum = %lu\n", hit, argv[2], regs.rip, regs.rdi, peek(sum));
        step_over(address, byte, &regs);
    }
    check("detach", trace(TRACE_DETACH, pid, 0, 0));
    return hits;
}
