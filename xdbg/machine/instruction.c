/*
 * Length and kind of one 64-bit mode instruction, as the engine decodes it. Intel SDM vol. 2, "Instruction Format" and
 * appendix A, "Opcode Map". Only instructions that the engine could execute need to be right: the bytes come from blocks
 * that it has translated.
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

/* How many bytes the instruction may load at one address in several parts of at most 8; 0: in one part. */
static uint8_t load_parts(uint8_t opcode, bool two_byte_map, bool scalar, uint8_t modrm)
{
    uint8_t reg = modrm >> 3 & 7;

    if (!two_byte_map)
        return opcode == 0xdb && reg == 5 ? 10 : opcode == 0xd9 && reg == 4 ? 28 : opcode == 0xdd && reg == 4 ? 108 : 0;
    switch (opcode) {
    case 0x10: case 0x28 ... 0x2f: case 0x51: case 0x58 ... 0x5f:
        return scalar ? 0 : 16;
    case 0x14: case 0x15: case 0x38: case 0x3a: case 0x52 ... 0x57: case 0x60 ... 0x70: case 0x74 ... 0x76: case 0x7c:
    case 0x7d: case 0xc2: case 0xc6: case 0xd0 ... 0xff:
        return 16;
    default:
        return 0;
    }
}

/* Bytes of ModRM, SIB and displacement. */
static size_t modrm_length(const uint8_t *p, size_t left)
{
    uint8_t mod = p[0] >> 6, rm = p[0] & 7;
    size_t length = 1;

    if (mod == 3)
        return 1;
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

static void decode_io(struct instruction *out, uint8_t opcode, uint8_t port, bool operand16)
{
    out->special = SPECIAL_IO;
    out->io_string = opcode < 0x70;
    out->io_write = (opcode & 2) != 0;
    out->io_size = !(opcode & 1) ? 1 : operand16 ? 2 : 4;
    out->io_immediate = (opcode & 0xf8) == 0xe0;
    out->io_port = port;
}

void decode(const uint8_t *code, size_t available, struct instruction *out)
{
    size_t at = 0, limit = available < 15 ? available : 15;
    bool operand16 = false, address32 = false, repeat = false, prefix66 = false, prefixf2 = false, two_bytes = false;
    uint8_t rex = 0, opcode, form;

    *out = (struct instruction){0};
    for (;; at++) {
        if (at >= limit)
            return;
        opcode = code[at];
        if ((opcode & 0xf0) == 0x40) {
            rex = opcode;
            continue;
        }
        if (opcode == 0x64 || opcode == 0x65)
            out->segment = opcode & 1 ? 5 : 4;
        if (opcode == 0x66) {
            operand16 = true;
            prefix66 = true;
        } else if (opcode == 0x67) {
            address32 = true;
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
    out->address32 = address32;
    out->prefix = prefixf2 ? 0xf2 : repeat ? 0xf3 : prefix66 ? 0x66 : 0;
    form = one_byte[opcode];
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
    } else if (opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62) {
        out->special = SPECIAL_VEX;
        out->length = (uint8_t)at;
        return;
    } else if (opcode == 0xf1) {
        out->special = SPECIAL_ICEBP;
    } else if (opcode == 0x9d || opcode == 0xcf) {
        out->special = SPECIAL_FLAGS;
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
        out->load_parts = load_parts(opcode, two_bytes, repeat, code[at]);
        out->modrm = (uint8_t)at;
        if (two_bytes && opcode == 0xae && code[at] < 0xc0 && (code[at] & 0x38) <= 0x18)
            out->special = SPECIAL_MXCSR;
        if ((form & G) && (code[at] & 0x38) <= 8)
            form |= opcode == 0xf6 ? B : Z;
        at += modrm_length(code + at, limit - at);
    }
    if (form & B)
        at += 1;
    if (form & W)
        at += 2;
    if (form & Z)
        at += operand16 ? 2 : 4;
    if (form & V)
        at += rex & 8 ? 8 : operand16 ? 2 : 4;
    if (form & A)
        at += address32 ? 4 : 8;
    if (at <= limit)
        out->length = (uint8_t)at;
}

/* For tests: the length of the instruction at `code`, 0 when it is not whole. */
unsigned xdbg_instruction_length(const uint8_t *code, size_t available)
{
    struct instruction instruction;

    decode(code, available, &instruction);
    return instruction.length;
}
