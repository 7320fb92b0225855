/*
 * Predicates: what makes a stop point conditional. They are evaluated at the block start where the guest has come to the
 * stop point, so that one which does not hold costs no exit.
 *
 * There the engine's general registers are exact. Its flags and the state behind them are not looked at. Memory is read
 * through the guest's page tables as they are in RAM: no TLB is asked, no bit of an entry changes, nothing can fault.
 *
 * A predicate is a program of fixed-width steps over a stack of words (predicate.py has its rules). Whatever can't be done
 * (a word that is not mapped, a division by zero, a stack that runs over, no end within the budget) leaves the predicate
 * undecided, and undecided means stop: a caller that knows more can pass on, one that has not been told can't come back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "clock.h"

enum { STACK = 128, BUDGET = 10000, BITS = 64 };
enum { PRESENT = 1 << 0, LARGE = 1 << 7, L4_SHIFT = 39, L1_SHIFT = 12 };
static const uint64_t ADDRESS = 0x000ffffffffff000;
static const uint64_t IN_USE = ~(uint64_t)0;

/* The same numbers are in predicate.py. */
enum predicate_op {
    OP_END,     /* the result is on top */
    OP_OR_ELSE, /* if the top is not zero: the result is true; else go on at `operand` with an empty stack */
    OP_CONST,
    OP_REGISTER,
    OP_LOAD, /* `operand` bytes */
    OP_GOTO,
    OP_IF_GOTO,
    OP_DUP,
    OP_POP,
    OP_SWAP,
    OP_ROT,
    OP_PICK,
    OP_LOG_NOT,
    OP_BIT_NOT,
    OP_EXT,
    OP_ZERO_EXT,
    OP_ADD, /* this one and those behind it take two and leave one */
    OP_SUB,
    OP_MUL,
    OP_DIV_SIGNED,
    OP_DIV_UNSIGNED,
    OP_REM_SIGNED,
    OP_REM_UNSIGNED,
    OP_LSH,
    OP_RSH_SIGNED,
    OP_RSH_UNSIGNED,
    OP_BIT_AND,
    OP_BIT_OR,
    OP_BIT_XOR,
    OP_EQUAL,
    OP_LESS_SIGNED,
    OP_LESS_UNSIGNED,
};

static bool translate(const struct clock *c, uint64_t cr3, uint64_t vaddr, uint64_t *maddr)
{
    uint64_t entry = cr3 == IN_USE ? c->engine.cr[3] : cr3;

    if ((uint64_t)((int64_t)(vaddr << 16) >> 16) != vaddr)
        return false;
    for (unsigned shift = L4_SHIFT;; shift -= 9) {
        uint64_t at = (entry & ADDRESS) + (vaddr >> shift & 511) * 8;

        if (at + 8 > c->engine.ram_size)
            return false;
        memcpy(&entry, c->engine.ram + at, 8);
        if (!(entry & PRESENT))
            return false;
        if (shift == L1_SHIFT || (shift != L4_SHIFT && (entry & LARGE))) {
            uint64_t mask = ((uint64_t)1 << shift) - 1;
            *maddr = (entry & ADDRESS & ~mask) | (vaddr & mask);
            return true;
        }
    }
}

/* All bytes through one table, which is the first one that has the first byte. */
static bool load(const struct clock *c, const struct predicate *p, uint64_t vaddr, uint64_t size, uint64_t *value)
{
    uint64_t first = vaddr >> 63 ? p->nr_tables - 1 : 0, maddr, second;
    uint64_t part = PAGE - PAGE_OFFSET(vaddr) < size ? PAGE - PAGE_OFFSET(vaddr) : size;

    *value = 0;
    if (size && vaddr + size - 1 < vaddr) /* nothing is behind the last address */
        return false;
    for (uint64_t i = first; i < p->nr_tables; i++) {
        if (!translate(c, p->tables[i], vaddr, &maddr))
            continue;
        if (maddr + part > c->engine.ram_size)
            return false;
        memcpy(value, c->engine.ram + maddr, part);
        if (part == size)
            return true;
        if (!translate(c, p->tables[i], vaddr + part, &second) || second + size - part > c->engine.ram_size)
            return false;
        memcpy((uint8_t *)value + part, c->engine.ram + second, size - part);
        return true;
    }
    return false;
}

static uint64_t extended(uint64_t value, unsigned bits)
{
    return (uint64_t)((int64_t)(value << (BITS - bits)) >> (BITS - bits));
}

/* False: it can't be done. */
static bool binary(uint32_t op, uint64_t left, uint64_t right, uint64_t *result)
{
    bool overflow = right == ~(uint64_t)0; /* the least number divided by -1 traps on the host */

    if (op >= OP_DIV_SIGNED && op <= OP_REM_UNSIGNED && right == 0)
        return false;
    switch (op) {
    case OP_ADD:
        *result = left + right;
        break;
    case OP_SUB:
        *result = left - right;
        break;
    case OP_MUL:
        *result = left * right;
        break;
    case OP_DIV_SIGNED:
        *result = overflow ? -left : (uint64_t)((int64_t)left / (int64_t)right);
        break;
    case OP_DIV_UNSIGNED:
        *result = left / right;
        break;
    case OP_REM_SIGNED:
        *result = overflow ? 0 : (uint64_t)((int64_t)left % (int64_t)right);
        break;
    case OP_REM_UNSIGNED:
        *result = left % right;
        break;
    case OP_LSH:
        *result = right < BITS ? left << right : 0;
        break;
    case OP_RSH_SIGNED:
        *result = (uint64_t)((int64_t)left >> (right < BITS ? right : BITS - 1));
        break;
    case OP_RSH_UNSIGNED:
        *result = right < BITS ? left >> right : 0;
        break;
    case OP_BIT_AND:
        *result = left & right;
        break;
    case OP_BIT_OR:
        *result = left | right;
        break;
    case OP_BIT_XOR:
        *result = left ^ right;
        break;
    case OP_EQUAL:
        *result = left == right;
        break;
    case OP_LESS_SIGNED:
        *result = (int64_t)left < (int64_t)right;
        break;
    case OP_LESS_UNSIGNED:
        *result = left < right;
        break;
    default:
        return false;
    }
    return true;
}

/* Is the guest to be stopped at the stop point where it is? True, too, when that can't be said. `budget` loses the steps. */
static bool decide(const struct clock *c, const struct predicate *p, unsigned *budget)
{
    uint64_t stack[STACK], saved;
    uint64_t place = 0, height = 0;

    for (; *budget && place < p->nr_steps; --*budget) {
        const struct predicate_step *step = &p->steps[place++];
        uint32_t op = step->op, operand = step->operand;
        uint64_t needs = op >= OP_ADD || op == OP_SWAP ? 2 : op == OP_ROT ? 3 : op == OP_PICK ? (uint64_t)operand + 1
                         : op == OP_CONST || op == OP_REGISTER || op == OP_GOTO ? 0 : 1;

        if (height < needs || height + 1 > STACK)
            return true;
        switch (op) {
        case OP_END:
            return stack[height - 1] != 0;
        case OP_OR_ELSE:
            if (stack[height - 1])
                return true;
            height = 0;
            place = operand;
            break;
        case OP_CONST:
            stack[height++] = step->value;
            break;
        case OP_REGISTER:
            if (operand > 15)
                return true;
            stack[height++] = c->engine.regs[operand];
            break;
        case OP_LOAD:
            if (operand > 8 || !load(c, p, stack[height - 1], operand, &stack[height - 1]))
                return true;
            break;
        case OP_GOTO:
            place = operand;
            break;
        case OP_IF_GOTO:
            if (stack[--height])
                place = operand;
            break;
        case OP_DUP:
            stack[height] = stack[height - 1];
            height++;
            break;
        case OP_POP:
            height--;
            break;
        case OP_SWAP:
            saved = stack[height - 1];
            stack[height - 1] = stack[height - 2];
            stack[height - 2] = saved;
            break;
        case OP_ROT: /* a b c: c a b */
            saved = stack[height - 1];
            stack[height - 1] = stack[height - 2];
            stack[height - 2] = stack[height - 3];
            stack[height - 3] = saved;
            break;
        case OP_PICK:
            stack[height] = stack[height - 1 - operand];
            height++;
            break;
        case OP_LOG_NOT:
            stack[height - 1] = !stack[height - 1];
            break;
        case OP_BIT_NOT:
            stack[height - 1] = ~stack[height - 1];
            break;
        case OP_EXT:
            if (operand && operand < BITS)
                stack[height - 1] = extended(stack[height - 1], operand);
            break;
        case OP_ZERO_EXT:
            if (operand < BITS)
                stack[height - 1] &= ((uint64_t)1 << operand) - 1;
            break;
        default:
            height--;
            if (!binary(op, stack[height - 1], stack[height], &stack[height - 1]))
                return true;
            break;
        }
    }
    return true;
}

bool predicate_holds(struct clock *c, const struct predicate *p)
{
    unsigned budget = BUDGET;
    bool holds = decide(c, p, &budget);

    c->predicate_steps += BUDGET - budget + 1;
    return holds;
}
