/*
 * Length and kind of one instruction of 64-bit mode or of 32-bit code in compatibility mode, as the engine decodes it. Intel SDM
 * vol. 2, "Instruction Format" and appendix A, "Opcode Map". Only instructions that the engine could execute need to be right:
 * the bytes come from blocks that it has translated.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "clock.h"

enum form {
    N = 0,   /* opcode only */
    M = 1,   /* ModRM */
    B = 2,   /* 8-bit immediate */
    Z = 4,   /* 32-bit immediate, 16-bit with the operand-size prefix */
    W = 8,   /* 16-bit immediate */
    V = 16,  /* as Z, 64-bit with REX.W */
    A = 32,  /* absolute address: 64-bit, 32-bit with the address-size prefix */
    G = 64,  /* ModRM; /0 and /1 have an immediate (opcodes F6, F7) */
    X = 128, /* prefix, escape or no instruction */
};
enum { F = A | W }; /* far pointer: offset of 32 bits, 16 with the operand-size prefix, and selector */

static const uint8_t one_byte[256] = {
    M, M, M, M, B, Z, N, N, M, M, M, M, B, Z, N, X, /* 00 */
    M, M, M, M, B, Z, N, N, M, M, M, M, B, Z, N, N, /* 10 */
    M, M, M, M, B, Z, X, N, M, M, M, M, B, Z, X, N, /* 20 */
    M, M, M, M, B, Z, X, N, M, M, M, M, B, Z, X, N, /* 30 */
    X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, /* 40: REX */
    N, N, N, N, N, N, N, N, N, N, N, N, N, N, N, N, /* 50 */
    N, N, X, M, X, X, X, X, Z, M | Z, B, M | B, N, N, N, N, /* 60 */
    B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, /* 70 */
    M | B, M | Z, M | B, M | B, M, M, M, M, M, M, M, M, M, M, M, M, /* 80 */
    N, N, N, N, N, N, N, N, N, N, N, N, N, N, N, N, /* 90 */
    A, A, A, A, N, N, N, N, B, Z, N, N, N, N, N, N, /* A0 */
    B, B, B, B, B, B, B, B, V, V, V, V, V, V, V, V, /* B0 */
    M | B, M | B, W, N, X, X, M | B, M | Z, W | B, N, W, N, N, B, N, N, /* C0 */
    M, M, M, M, N, N, N, N, M, M, M, M, M, M, M, M, /* D0 */
    B, B, B, B, B, B, B, B, Z, Z, N, B, N, N, N, N, /* E0 */
    X, N, X, X, N, N, G, G, N, N, N, N, N, N, M, M, /* F0 */
};

/* The form of a one-byte opcode in 32-bit code; `next` is the byte behind it. */
static uint8_t one_byte_32(uint8_t opcode, uint8_t next)
{
    switch (opcode) {
    case 0x40 ... 0x4f: /* inc, dec */
        return N;
    case 0x62: case 0xc4: case 0xc5: /* bound, les, lds: else EVEX, VEX */
        return next < 0xc0 ? M : X;
    case 0x9a: case 0xea:
        return F;
    case 0xa0 ... 0xa3:
        return A;
    case 0xd4: case 0xd5: /* aam, aad */
        return B;
    default:
        return one_byte[opcode];
    }
}

/* 0F xx that do not have just a ModRM byte. */
static uint8_t two_byte(uint8_t opcode)
{
    switch (opcode) {
    case 0x05: case 0x06: case 0x07: case 0x08: case 0x09: case 0x0b: case 0x0e:
    case 0x30 ... 0x37:
    case 0x77:
    case 0xa0 ... 0xa2: case 0xa8 ... 0xaa:
    case 0xc8 ... 0xcf:
        return N;
    case 0x20 ... 0x23: /* mov cr, dr: the ModRM byte always names registers */
        return B;
    case 0x80 ... 0x8f:
        return Z;
    case 0x0f: /* 3DNow!: the opcode is a suffix */
    case 0x70 ... 0x73:
    case 0xa4: case 0xac: case 0xba: case 0xc2: case 0xc4 ... 0xc6:
        return M | B;
    default:
        return M;
    }
}

/* Does an SSE instruction load 16 bytes? `prefix` is its mandatory prefix. */
static bool loads_16(uint8_t map, uint8_t opcode, uint8_t prefix)
{
    bool packed = prefix == 0 || prefix == 0x66;

    if (map == 2)
        return prefix == 0x66 && !((opcode >= 0x20 && opcode <= 0x25) || (opcode >= 0x30 && opcode <= 0x35)) && opcode < 0xf0;
    if (map == 3)
        return prefix == 0x66 && opcode != 0x0a && opcode != 0x0b && !(opcode >= 0x20 && opcode <= 0x22);
    switch (opcode) {
    case 0x10: case 0x14: case 0x15: case 0x28: case 0x51 ... 0x59: case 0x5c ... 0x5f: case 0xc2: case 0xc6:
        return packed;
    case 0x5b: case 0x7c: case 0x7d: case 0xd0:
        return true;
    case 0x2c: case 0x2d: case 0x5a: case 0x60 ... 0x6d: case 0x74 ... 0x76: case 0xd1 ... 0xd5: case 0xd8 ... 0xe5:
    case 0xe8 ... 0xef: case 0xf1 ... 0xf6: case 0xf8 ... 0xfe:
        return prefix == 0x66;
    case 0x6f: case 0x70:
        return prefix != 0;
    case 0xe6:
        return prefix == 0x66 || prefix == 0xf2;
    case 0xf0:
        return prefix == 0xf2;
    default:
        return false;
    }
}

/* How many bytes the instruction loads at one address in several parts of at most 8; 0: in one part. */
static uint8_t load_parts(uint8_t map, uint8_t opcode, uint8_t prefix, uint8_t modrm)
{
    uint8_t reg = modrm >> 3 & 7;

    if (map == 0)
        return opcode == 0xdb && reg == 5 ? 10 : opcode == 0xd9 && reg == 4 ? 28 : opcode == 0xdd && reg == 4 ? 108 : 0;
    return loads_16(map, opcode, prefix) ? 16 : 0;
}

/* Bytes of ModRM, SIB and displacement. */
static size_t modrm_length(const uint8_t *p, size_t left, bool address16)
{
    uint8_t mod = p[0] >> 6, rm = p[0] & 7;
    size_t length = 1;

    if (mod == 3)
        return 1;
    if (address16)
        return mod == 1 ? 2 : mod == 2 || rm == 6 ? 3 : 1;
    if (rm == 4) {
        if (left < 2)
            return 2;
        length = 2;
        if (mod == 0 && (p[1] & 7) == 5)
            return 6;
    } else if (rm == 5 && mod == 0) {
        return 5;
    }
    return length + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

/* May the instruction, with its operand in memory, have a LOCK prefix? */
static bool is_lockable(uint8_t map, uint8_t opcode, uint8_t reg)
{
    if (map == 1)
        return opcode == 0xab || opcode == 0xb3 || opcode == 0xbb || opcode == 0xb0 || opcode == 0xb1 || opcode == 0xc0 ||
               opcode == 0xc1 || (opcode == 0xba && reg >= 5) || (opcode == 0xc7 && reg == 1);
    if (map)
        return false;
    if (opcode < 0x38)
        return (opcode & 7) < 2;
    return ((opcode == 0x80 || opcode == 0x81 || opcode == 0x83) && reg != 7) || opcode == 0x86 || opcode == 0x87 ||
           ((opcode == 0xf6 || opcode == 0xf7) && (reg == 2 || reg == 3)) || (opcode >= 0xfe && reg < 2);
}

/* Is it #UD on the processor that the engine stands for, although the engine executes something? */
static bool is_invalid(const struct instruction *i, const uint8_t *code, bool lock)
{
    uint8_t modrm = i->modrm ? code[i->modrm] : 0xc0, reg = modrm >> 3 & 7;

    if (lock && (modrm >= 0xc0 || !is_lockable(i->map, i->opcode, reg)))
        return true;
    switch (i->map << 8 | i->opcode) {
    case 0x105: case 0x107: /* syscall and sysret of Intel's are of 64-bit mode only */
        return i->compat;
    case 0x08f: /* AMD's XOP */
        return reg != 0;
    case 0x0c6: case 0x0c7: /* transactions */
        return modrm >= 0xc0 && reg == 7;
    case 0x1ae: /* shadow stacks, waiting in user mode */
        return modrm >= 0xc0 && i->prefix;
    case 0x1c3: /* movnti */
        return i->prefix != 0;
    default:
        return false;
    }
}

static void decode_io(struct instruction *out, uint8_t opcode, uint8_t port, bool operand16)
{
    out->special = SPECIAL_IO;
    out->io_string = opcode < 0x70;
    out->io_write = (opcode & 2) != 0;
    out->io_size = !(opcode & 1) ? 1 : operand16 ? 2 : 4;
    out->io_immediate = (opcode & 0xf8) == 0xe0;
    out->io_port = port;
}

/* The opcode transfers control to another code segment, perhaps of the other mode. */
static bool is_far(uint8_t opcode, uint8_t modrm)
{
    uint8_t reg = modrm >> 3 & 7;

    return opcode == 0x9a || opcode == 0xea || opcode == 0xca || opcode == 0xcb || opcode == 0xcf ||
           (opcode == 0xff && (reg == 3 || reg == 5) && modrm < 0xc0);
}

void decode(const uint8_t *code, size_t available, bool compat, struct instruction *out)
{
    size_t at = 0, limit = available < 15 ? available : 15;
    bool lock = false, operand16 = false, address_prefix = false, repeat = false, prefix66 = false, prefixf2 = false, two_bytes = false;
    uint8_t rex = 0, opcode, form;

    *out = (struct instruction){0};
    for (;; at++) {
        if (at >= limit)
            return;
        opcode = code[at];
        if (!compat && (opcode & 0xf0) == 0x40) {
            rex = opcode;
            continue;
        }
        if (opcode == 0x64 || opcode == 0x65)
            out->segment = opcode & 1 ? 5 : 4;
        else if (compat && (opcode & 0xe7) == 0x26)
            out->segment = opcode >> 3 & 3 ? opcode >> 3 & 3 : SEGMENT_ES;
        lock |= opcode == 0xf0;
        if (opcode == 0x66) {
            operand16 = true;
            prefix66 = true;
        } else if (opcode == 0x67) {
            address_prefix = true;
        } else if (opcode == 0xf2 || opcode == 0xf3) {
            repeat = true;
            prefixf2 |= opcode == 0xf2;
        } else if (opcode != 0xf0 && opcode != 0x26 && opcode != 0x2e && opcode != 0x36 && opcode != 0x3e &&
                 opcode != 0x64 && opcode != 0x65) {
            break;
        }
        rex = 0;
    }
    if (rex & 8)
        operand16 = false;
    at++;
    out->rex = rex;
    out->opcode = opcode;
    out->compat = compat;
    out->address_bits = compat ? (address_prefix ? 16 : 32) : address_prefix ? 32 : 64;
    out->prefix = prefixf2 ? 0xf2 : repeat ? 0xf3 : prefix66 ? 0x66 : 0;
    form = compat ? one_byte_32(opcode, at < limit ? code[at] : 0xff) : one_byte[opcode];
    if (opcode == 0x0f) {
        two_bytes = true;
        if (at >= limit)
            return;
        opcode = code[at++];
        form = two_byte(opcode);
        out->map = opcode == 0x38 ? 2 : opcode == 0x3a ? 3 : 1;
        out->opcode = out->map > 1 && at < limit ? code[at] : opcode;
        switch (opcode) {
        case 0x01:
            if (at < limit && code[at] == 0xf9)
                out->special = SPECIAL_RDTSCP;
            break;
        case 0x31:
            out->special = SPECIAL_RDTSC;
            break;
        case 0x33:
            out->special = SPECIAL_RDPMC;
            break;
        case 0x34:
            out->special = SPECIAL_SYSENTER;
            break;
        case 0xa2:
            out->special = SPECIAL_CPUID;
            break;
        case 0x78: /* SSE4a: two immediates */
            if (prefix66 || prefixf2)
                form = M | W;
            break;
        case 0x38:
        case 0x3a:
            form = opcode == 0x3a ? M | B : M;
            at++;
            break;
        default:
            break;
        }
    } else if ((opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62) && form == X) {
        out->special = SPECIAL_INVALID;
        out->length = (uint8_t)at;
        return;
    } else if (opcode == 0xf1) {
        out->special = SPECIAL_ICEBP;
    } else if (is_far(opcode, at < limit ? code[at] : 0xff)) {
        out->special = SPECIAL_FAR;
    } else if (opcode == 0x9d) {
        out->special = SPECIAL_FLAGS;
    } else if (opcode == 0xce && compat) {
        out->special = SPECIAL_INTO;
    } else if ((opcode >= 0xe4 && opcode <= 0xe7) || (opcode >= 0xec && opcode <= 0xef)) {
        decode_io(out, opcode, at < limit ? code[at] : 0, operand16);
    } else if (opcode >= 0x6c && opcode <= 0x6f) {
        decode_io(out, opcode, 0, operand16);
        out->rep = repeat;
    } else if ((opcode >= 0xa4 && opcode <= 0xa7) || (opcode >= 0xaa && opcode <= 0xaf)) {
        out->rep = repeat;
    }
    if (form & (M | G)) {
        if (at >= limit)
            return;
        out->load_parts = load_parts(out->map, out->opcode, out->prefix, code[at]);
        out->modrm = (uint8_t)at;
        if (two_bytes && opcode == 0xae && code[at] < 0xc0 && (code[at] & 0x38) <= 0x18)
            out->special = SPECIAL_MXCSR;
        if ((form & G) && (code[at] & 0x38) <= 8)
            form |= opcode == 0xf6 ? B : Z;
        at += modrm_length(code + at, limit - at, out->address_bits == 16);
    }
    if (form & B)
        at += 1;
    if (form & W)
        at += 2;
    if (form & Z)
        at += operand16 ? 2 : 4;
    if (form & V)
        at += rex & 8 ? 8 : operand16 ? 2 : 4;
    if (form == F)
        at += operand16 ? 2 : 4;
    else if (form & A)
        at += out->address_bits / 8;
    if (at > limit)
        return;
    out->length = (uint8_t)at;
    if (is_invalid(out, code, lock))
        out->special = SPECIAL_INVALID;
}

/* For tests: the length of the instruction at `code`, 0 when it is not whole. */
unsigned xdbg_instruction_length(const uint8_t *code, size_t available, bool compat)
{
    struct instruction instruction;

    decode(code, available, compat, &instruction);
    return instruction.length;
}
