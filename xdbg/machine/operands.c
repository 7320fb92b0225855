/*
 * Where the operands of one instruction in memory are, and what depends on that: exceptions that the engine does not tell apart,
 * or does not know. Intel SDM vol. 1, "Operand Addressing"; vol. 3, "Interrupt 12", "Interrupt 17".
 *
 * The engine raises #GP for every address that is not canonical; on the stack (through RSP or RBP as base, or by push, call
 * and their like) it is #SS. It raises #GP for a branch to such an address at its target; it is raised at the branch, which
 * has changed nothing (but `call` has written below the stack).
 *
 * It has no #AC. While RFLAGS.AC is set (CR0.AM is, and all code here runs at CPL 3), a hook looks at each access. The engine keys
 * its translations by AC, so code that runs without is translated without the hook, and costs nothing. The instructions
 * that may change AC without leaving the guest are popf, which is looked at before it runs, and iret, behind which the engine
 * stops (mode.c).
 *
 * In 32-bit code every address has 32 bits, which is canonical.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "clock.h"

enum { UC_HOOK_MEM_READ = 1 << 10, UC_HOOK_MEM_WRITE = 1 << 11, UC_PROT_READ = 1, ALIGNMENT_CHECK = 17 };
enum { REX_B = 1, REX_X = 2 };

/* Does ModRM name a register, and no memory? */
static bool names_register(const uint8_t *code, const struct instruction *i)
{
    return !i->modrm || code[i->modrm] >> 6 == 3;
}

/* The base register of the memory operand: 0-15, or -1 for none. */
static int base_register(const uint8_t *code, const struct instruction *i)
{
    uint8_t modrm = code[i->modrm], rm = modrm & 7, mod = modrm >> 6;

    if (rm == 4)
        rm = code[i->modrm + 1] & 7;
    if (mod == 0 && rm == 5)
        return -1;
    return rm | (i->rex & REX_B) << 3;
}

/* Base, index and displacement of 16-bit addressing; whether it is on the stack. */
static uint16_t address_16(const uint64_t *regs, const uint8_t *p, bool *is_on_stack)
{
    static const uint8_t bases[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
    uint8_t mod = p[0] >> 6, rm = p[0] & 7;
    uint16_t address = 0, displacement = 0;

    *is_on_stack = bases[rm] == RBP && !(mod == 0 && rm == 6);
    if (mod != 0 || rm != 6)
        address = (uint16_t)regs[bases[rm]];
    if (rm < 4)
        address = (uint16_t)(address + regs[rm & 1 ? RDI : RSI]);
    if (mod == 1)
        displacement = (uint16_t)(int8_t)p[1];
    else if (mod == 2 || rm == 6)
        memcpy(&displacement, p + 1, 2);
    return (uint16_t)(address + displacement);
}

/* The same in 32-bit code, where each segment has a base. */
static uint64_t effective_address_32(const struct clock *c, const uint8_t *code, const struct instruction *i)
{
    const uint64_t *regs = c->engine.regs;
    const uint8_t *p = code + i->modrm;
    uint8_t mod = p[0] >> 6, rm = p[0] & 7;
    bool is_on_stack;
    uint32_t address = 0;
    int32_t displacement = 0;
    unsigned segment;

    if (i->address_bits == 16) {
        address = address_16(regs, p, &is_on_stack);
    } else {
        int base = base_register(code, i);

        p++;
        if (rm == 4) {
            if ((p[0] >> 3 & 7) != 4)
                address = (uint32_t)(regs[p[0] >> 3 & 7] << (p[0] >> 6));
            p++;
        }
        if (mod == 1)
            displacement = (int8_t)p[0];
        else if (mod == 2 || base < 0)
            memcpy(&displacement, p, 4);
        address += (uint32_t)displacement + (base < 0 ? 0 : (uint32_t)regs[base]);
        is_on_stack = base == RSP || base == RBP;
    }
    segment = i->segment == SEGMENT_ES ? SEG_ES : i->segment ? i->segment : is_on_stack ? SEG_SS : SEG_DS;
    return (uint32_t)(address + segments(c)[segment].base);
}

/* The virtual address of the operand that ModRM names in memory. */
uint64_t effective_address(const struct clock *c, const uint8_t *code, const struct instruction *i)
{
    const struct engine *e = &c->engine;
    const uint8_t *p = code + i->modrm;
    uint8_t mod = p[0] >> 6, rm = p[0] & 7;
    int base = base_register(code, i);
    uint64_t address = 0;
    int32_t displacement = 0;

    if (i->compat)
        return effective_address_32(c, code, i);
    p++;
    if (rm == 4) {
        uint8_t index = (p[0] >> 3 & 7) | (i->rex & REX_X) << 2;
        if (index != 4)
            address = e->regs[index] << (p[0] >> 6);
        p++;
    }
    if (mod == 1)
        displacement = (int8_t)p[0];
    else if (mod == 2 || base < 0)
        memcpy(&displacement, p, 4);
    address += (uint64_t)(int64_t)displacement;
    if (base >= 0)
        address += e->regs[base];
    else if (rm == 5)
        address += *e->eip + i->length;
    if (i->address_bits == 32)
        address = (uint32_t)address;
    return address + (i->segment ? segments(c)[i->segment].base : 0);
}

/* How an instruction uses the stack by itself. */
static enum { NO_STACK, PUSHES, POPS, LEAVES } stack_use(const uint8_t *code, const struct instruction *i)
{
    uint8_t reg = i->modrm ? code[i->modrm] >> 3 & 7 : 0;

    if (i->map == 1)
        return i->opcode == 0xa0 || i->opcode == 0xa8 ? PUSHES : i->opcode == 0xa1 || i->opcode == 0xa9 ? POPS : NO_STACK;
    if (i->map)
        return NO_STACK;
    switch (i->opcode) {
    case 0x50 ... 0x57: case 0x68: case 0x6a: case 0x9c: case 0xc8: case 0xe8:
        return PUSHES;
    case 0x58 ... 0x5f: case 0x8f: case 0x9d: case 0xc2: case 0xc3: case 0xca: case 0xcb: case 0xcf:
        return POPS;
    case 0xc9:
        return LEAVES;
    case 0xff:
        return reg == 2 || reg == 6 ? PUSHES : NO_STACK;
    default:
        return NO_STACK;
    }
}

/* The instruction at EIP raised #GP without an error code: was it for an address on the stack, so that it is #SS? */
bool is_stack_fault(const struct clock *c, const uint8_t *code, size_t available)
{
    const uint64_t *regs = c->engine.regs;
    struct instruction i;
    bool operand_faults = false, is_on_stack = false;

    if (is_compat(c))
        return false;
    decode(code, available, false, &i);
    if (!i.length)
        return false;
    if (!names_register(code, &i)) {
        int base = base_register(code, &i);

        operand_faults = !canonical(effective_address(c, code, &i));
        is_on_stack = (base == RSP || base == RBP) && !i.segment;
    }
    switch (stack_use(code, &i)) {
    case PUSHES: /* after the operand was read */
        return operand_faults ? is_on_stack : !canonical(regs[RSP] - 8);
    case POPS: /* before it is written */
        return !canonical(regs[RSP]) || (operand_faults && is_on_stack);
    case LEAVES:
        return !canonical(regs[RBP]);
    default:
        return operand_faults && is_on_stack;
    }
}

/* The block that ran last ended in a branch to an address that is not canonical: go back to the branch. Is there one? */
bool undo_branch(struct clock *c)
{
    struct engine *e = &c->engine;
    const struct line *last = c->last;
    struct instruction i;
    const uint8_t *code;
    uint16_t popped = 0;

    if (!last)
        return false;
    code = last->block->bytes + last->block->last_offset;
    decode_at(last->block, last->block->last_offset, &i);
    switch (stack_use(code, &i)) {
    case PUSHES:
        e->regs[RSP] += 8;
        break;
    case POPS:
        if (i.opcode != 0xc2 && i.opcode != 0xc3)
            return false; /* a far return faults at its target indeed */
        if (i.opcode == 0xc2)
            memcpy(&popped, code + i.length - 2, 2);
        e->regs[RSP] -= 8u + popped;
        break;
    default:
        break;
    }
    *e->eip = last->pc + last->block->last_offset;
    settle(c, *e->eip);
    return true;
}

/* Of how many bytes is the operand in memory, if it is an unaligned one of 16 that is accessed in halves? Else 0. */
static unsigned accessed_in_halves(const struct instruction *i)
{
    if (i->map != 1)
        return 0;
    switch (i->opcode) {
    case 0x10: case 0x11:
        return i->prefix == 0 || i->prefix == 0x66 ? 16 : 0;
    case 0x6f: case 0x7f:
        return i->prefix == 0xf3 || i->prefix == 0x66 ? 16 : 0;
    case 0xf0:
        return 16;
    default:
        return 0;
    }
}

/* An access of 8 bytes at an odd multiple of 8: is it the first half of one of 16? */
static bool begins_misaligned_pair(const struct clock *c)
{
    uint64_t offset = c->last ? *c->engine.eip - c->last->pc : 0;
    struct instruction i;

    if (!c->last || offset >= c->last->block->size)
        return false;
    decode_at(c->last->block, offset, &i);
    return !names_register(c->last->block->bytes + offset, &i) && accessed_in_halves(&i) &&
           (effective_address(c, c->last->block->bytes + offset, &i) & 15);
}

/* UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, while AC is set */
static void access_hook(void *uc, int type, uint64_t address, int size, int64_t value, struct clock *c)
{
    struct engine *e = &c->engine;

    (void)uc;
    (void)type;
    (void)value;
    if (!(*e->eflags & FLAG_AC))
        return;
    if ((address & (uint64_t)(size - 1)) || (size == 8 && (address & 8) && begins_misaligned_pair(c))) {
        settle(c, *e->eip);
        raise_exception(c, ALIGNMENT_CHECK, 0, 0, 0);
        restart(c, 0);
    }
}

/* Check the alignment of each access from now on, or no more. The engine does not run. */
void check_alignment(struct clock *c, bool on)
{
    struct engine *e = &c->engine;

    if (on)
        e->hook_add(e->uc, &c->alignment_hook, UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, (void *)access_hook, c, 1, 0);
    else
        e->hook_del(e->uc, c->alignment_hook);
    c->checks_alignment = on;
}

/* The block is one popf: will it change AC? Where its flags can't be read it faults. */
bool loads_other_ac(struct clock *c, const struct block *b)
{
    struct engine *e = &c->engine;
    struct instruction i;
    uint64_t maddr, vaddr = e->regs[RSP];
    uint32_t flags;

    decode_at(b, 0, &i);
    if (i.prefix == 0x66)
        return false;
    if (i.compat)
        vaddr = (uint32_t)(vaddr + segments(c)[SEG_SS].base);
    if (e->vmem_translate(e->uc, vaddr, UC_PROT_READ, &maddr) || PAGE_OFFSET(maddr) > PAGE - sizeof(flags) ||
        maddr + sizeof(flags) > e->ram_size)
        return true;
    memcpy(&flags, e->ram + maddr, sizeof(flags));
    return (flags ^ (uint32_t)*e->eflags) & FLAG_AC;
}
