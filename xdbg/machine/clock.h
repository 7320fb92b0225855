/*
 * The compiled half of xdbg.machine: what runs inside the engine, without Python.
 *
 * clock.c        the block hook (instruction count, deadline), the run loop
 * blocks.c       what each translated block was translated from: stale code, instruction boundaries
 * instruction.c  length and kind of one instruction
 * operands.c     where one instruction's operands in memory are, and the exceptions that depend on it
 * traps.c        exceptions, syscall, port and emulated instructions
 * sse.c          exceptions of SSE arithmetic
 * watches.c      data watch points
 * breakpoints.c  the guest's own debug registers
 * predicate.c    conditions of stop points
 * mode.c         64-bit mode and compatibility mode
 * state.c        FPU image and whole CPU state as bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef XDBG_CLOCK_H
#define XDBG_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
enum { PAGE = 4096, ARENA = 64 << 20 };
#define PAGE_OFFSET(x) ((x) & (uint64_t)(PAGE - 1))
#define PAGE_BASE(x) ((x) & ~(uint64_t)(PAGE - 1))
#define FLAG_TF 0x100u
#define FLAG_RF 0x10000u
#define FLAG_AC 0x40000u

/* Why `xdbg_run` came back; `arg` as said. The same numbers are in cpu.py. */
enum event {
    EVENT_NONE,
    EVENT_DEADLINE,
    EVENT_EXCEPTION,  /* vector, error code, length of an int n or 0, CR2 or DR6; a #DB before its instruction: 1 << 32 */
    EVENT_SYSCALL,
    EVENT_SYSENTER,
    EVENT_IO,         /* port, size, write */
    EVENT_STOP_POINT,
    EVENT_WATCH,      /* maddr, size, write, DR6 of the guest's #DB that is due as well, or 0 */
    EVENT_CPUID,      /* length of the instruction */
    EVENT_ENGINE,     /* enum failure */
    EVENT_WATCH_HIT,  /* internal: a watched byte is about to be touched */
    EVENT_CHECKS,     /* internal: what is to be checked of each instruction has changed */
};

/* The same numbers are in cpu.py. */
enum failure {
    FAILURE_ENGINE = 0,         /* + the engine's error code */
    FAILURE_OUTSIDE_RAM = 1000, /* an access or fetch there */
    FAILURE_STUCK,              /* the engine stops without a reason, or does not do as it is told */
    FAILURE_CODE_SEGMENT,       /* the guest is in code that is neither of 64 bits nor flat and of 32 */
    FAILURE_VM86,               /* an iret of 32-bit code loads the flag VM */
};

/* How one instruction asks for more than translation. */
enum special {
    PLAIN,
    SPECIAL_CPUID,
    SPECIAL_RDTSC,
    SPECIAL_RDTSCP,
    SPECIAL_IO,
    SPECIAL_RDPMC,
    SPECIAL_ICEBP,
    SPECIAL_SYSENTER,
    SPECIAL_INTO,
    SPECIAL_INVALID, /* #UD, which the engine takes for something: AVX, a misplaced LOCK, ... */
    /* left to the engine, but in blocks of their own that are looked at each time */
    SPECIAL_FLAGS, /* may load RFLAGS.AC: popf */
    SPECIAL_MXCSR, /* loads or stores MXCSR */
    SPECIAL_FAR,   /* may change the mode: far jump, call, return, iret */
};

struct instruction {
    uint8_t length;  /* 0: not decodable from the bytes given */
    uint8_t special; /* enum special */
    uint8_t rep;     /* a string instruction with a repeat prefix */
    uint8_t load_parts; /* its load is made in parts of at most 8 bytes; so many in all. 0: in one part */
    uint8_t map;     /* of the opcode: 0, or 1 behind 0F, 2 behind 0F 38, 3 behind 0F 3A */
    uint8_t opcode;
    uint8_t modrm;   /* offset of the ModRM byte, 0: none */
    uint8_t rex;
    uint8_t segment; /* the override: 4 FS, 5 GS; in 32-bit code 1 CS, 2 SS, 3 DS, SEGMENT_ES, too; 0 none that counts */
    uint8_t prefix;  /* the mandatory prefix: F2, F3, 66 or 0 */
    uint8_t address_bits;
    bool compat;     /* it is of 32-bit code */
    /* of SPECIAL_IO */
    uint8_t io_size;
    uint8_t io_write;
    uint8_t io_string;
    uint8_t io_immediate;
    uint8_t io_port;
};

enum { SEGMENT_ES = 8 };

/* One translated block's source: `size` bytes at `maddr`, going on at `maddr2` when it crosses a page. */
struct block {
    uint64_t maddr;
    uint64_t maddr2; /* ~0: one page only */
    struct block *next;
    uint16_t size;
    uint16_t icount;
    uint16_t special_index; /* of the first instruction with a special, or NO_SPECIAL */
    uint16_t last_offset;   /* of the last instruction */
    uint8_t special;
    uint8_t rep; /* the last instruction is a repeated string instruction */
    bool compat; /* its instructions are of 32-bit code */
    uint8_t bytes[];
};
enum { NO_SPECIAL = 0xffff };

/* uc_tb: what the engine says of a block it has translated. */
struct translation {
    uint64_t pc;
    uint16_t icount;
    uint16_t size;
};

/*
 * What is known of a virtual block in the present epoch. The key of a block of one instruction is another one, so that the
 * block hook does not find it and looks closer.
 */
struct line {
    uint64_t key;
    uint32_t icount;
    uint32_t limit; /* how many instructions the engine was told to translate at most; 0: no limit */
    struct block *block;
    uint64_t pc;
};
enum { LINES = 65536 };
#define LINE_OF(pc) ((uint16_t)(pc))
/* Virtual addresses have 48 bits. */
#define KEY_OF(pc, size) ((pc) << 16 | (size))
#define INVALID_KEY 1 /* of no block: the size is 1, the address 0 */
#define SINGLE_KEY (1u << 15) /* no block has 32768 bytes */

struct segment {
    uint32_t selector;
    uint64_t base;
    uint32_t limit, flags; /* `flags`: the high word of the descriptor */
};
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEGMENTS };

struct predicate_step {
    uint32_t op; /* enum predicate_op */
    uint32_t operand;
    uint64_t value;
};

/* A program that decides, and the tables through which it reads memory: see predicate.c. */
struct predicate {
    uint64_t nr_tables;
    uint64_t tables[2]; /* ~0: the one in use */
    uint64_t nr_steps;
    const struct predicate_step *steps;
};

struct stop_point {
    uint64_t vaddr;
    uint64_t cr3; /* ~0: in every address space */
    const struct predicate *predicate; /* NULL: it always stops */
};

enum { NR_BREAKPOINTS = 4 };

struct watch {
    uint64_t maddr;
    uint64_t length;
    uint64_t access; /* 1 read, 2 write */
    uint64_t reach;  /* where the watch that goes furthest ends, of this one and all before it */
    uint64_t number; /* of the guest's debug register that it stands for, or NR_BREAKPOINTS: it is a debugger's */
    uint64_t hit;
};

/* A frame whose page lies right before a page of the watched frame `next`. */
struct predecessor {
    uint64_t maddr;
    uint64_t next;
};

/* The engine: functions of the library and fields of its hidden state, found by engine_state.py. */
struct engine {
    void *uc;
    int (*emu_start)(void *uc, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    int (*emu_stop)(void *uc);
    int (*reg_read)(void *uc, int reg, void *value);
    int (*reg_write)(void *uc, int reg, const void *value);
    int (*hook_add)(void *uc, size_t *hook, int type, void *callback, void *data, uint64_t begin, uint64_t end, ...);
    int (*hook_del)(void *uc, size_t hook);
    int (*ctl)(void *uc, unsigned control, ...);
    int (*vmem_translate)(void *uc, uint64_t vaddr, int prot, uint64_t *maddr);
    void (*loop_exit)(void *cpu); /* leaves the running block by longjmp, no exception pending */
    void (*tlb_flush)(void *cpu);
    void (*tb_flush)(void *cpu);
    void *(*tb_lookup)(void *cpu, uint64_t pc, uint64_t cs_base, uint32_t flags, uint32_t cflags);
    void *cpu;
    uint32_t *cflags_next_tb; /* how the next block is to be translated: low bits = at most so many instructions */
    uint16_t *icount_high;    /* not 0: leave at the next block start */
    uint64_t *regs;
    uint64_t *eip;
    uint64_t *eflags;
    uint32_t *hflags;
    uint64_t *cr;
    int32_t *error_code;
    int32_t *exception_is_int;
    uint64_t *dr;
    int32_t *old_exception;
    uint32_t *mxcsr;    /* as it was loaded; the flags raised since are apart */
    uint8_t *sse_flags; /* of the engine's arithmetic, not all with the numbers of MXCSR */
    uint8_t *ram;
    uint64_t ram_size;
};

struct clock {
    /* shared with Python, by name */
    uint64_t count;
    uint64_t deadline;
    uint64_t event;
    uint64_t arg[4];
    uint64_t rflags; /* at the last exit */
    uint64_t cr2;    /* of the last page fault: the engine's own is clobbered by its look-ups */
    uint64_t cr3;
    uint64_t cr3_pending;
    uint64_t tlb_pending;
    uint64_t code_pending; /* flush translated code */
    uint64_t code_limit;   /* bytes that copies of blocks may take before all is flushed */
    uint64_t skip_stop_point;
    uint64_t tsc_offset;
    uint64_t tsc_aux;
    uint64_t io_allowed;
    uint64_t rdtsc_allowed;
    uint64_t cpuid_allowed;
    uint64_t nr_stop_points;
    struct stop_point *stop_points; /* sorted by vaddr */
    uint64_t nr_watches;
    struct watch *watches; /* sorted by maddr */
    uint64_t nr_predecessors;
    struct predecessor *predecessors;
    uint64_t watches_read; /* some watch is for reads: some frame is read-protected */
    uint64_t breakpoints[NR_BREAKPOINTS]; /* the guest's DR0-DR3 */
    uint64_t break_execute; /* which of them (bit 0-3) are for execution */
    uint64_t break_data;    /* which are for data, and have a watch */
    struct engine engine;
    /* counters for tests and tuning */
    uint64_t stale_blocks;
    uint64_t slow_blocks;
    uint64_t translations;
    uint64_t predicates; /* evaluated */
    uint64_t predicate_steps; /* taken in them */
    /* private */
    struct line *last; /* the block that runs or ran last; NULL: none since the last known boundary */
    uint64_t fresh_pc; /* the block that the engine has just translated */
    uint64_t fresh_size;
    uint64_t fresh_icount;
    uint64_t limit; /* of the block that the engine was told to run next */
    uint64_t modified_itself; /* the block before the last exit was dropped in its middle */
    uint64_t restarts; /* since a block ran */
    uint64_t predicate_limit; /* of `predicate_steps` in this run */
    uint64_t resume_pc; /* RFLAGS.RF was set when the guest was entered here, at `resume_count` */
    uint64_t resume_count;
    uint64_t skip_pc;
    uint64_t skip_count;
    uint64_t rep_pc; /* the last instruction retired was an iteration of the rep here, at `rep_count` */
    uint64_t rep_count;
    uint64_t single_pc; /* a block start whose fetch faulted: tried again instruction by instruction */
    uint64_t single_count;
    uint64_t far; /* a far transfer runs, and may have to be taken back: where it was, when, and what it found */
    uint64_t far_pc;
    uint64_t far_count;
    uint64_t far_rsp;
    uint64_t far_rflags;
    struct segment far_segments[SEGMENTS];
    uint64_t checks_sse; /* MXCSR lets an exception through: instructions run one by one */
    uint64_t sse_pc;     /* of the one that runs, and what it is to leave as it was if it faults */
    uint64_t sse_count;
    uint64_t sse_rflags;
    uint64_t sse_gpr[16];
    uint8_t sse_xmm[16][16];
    uint64_t checks_alignment; /* RFLAGS.AC is set, and the engine has the hook that checks each access */
    size_t alignment_hook;
    uint64_t watch_step; /* the instruction that runs is one that touches a protected frame */
    uint64_t watch_loads; /* how many loads of the step were announced */
    uint64_t watch_first;
    uint64_t watch_end;
    uint64_t watch_write;
    uint8_t *frame_has_code;
    uint8_t *frame_is_watched; /* the watches in a frame: 1 some for reads, 2 for writes; 4: it is in `predecessors` */
    struct block **buckets;
    uint8_t *arena;
    size_t arena_used;
    struct line spare;
    uint32_t nr_used;
    uint32_t used[LINES]; /* the lines filled in this epoch */
    _Alignas(64) struct line lines[LINES];
};

/* instruction.c */
void decode(const uint8_t *code, size_t available, bool compat, struct instruction *out);

/* mode.c */
struct segment *segments(const struct clock *c);
bool is_compat(const struct clock *c);
bool enter_mode(struct clock *c);
bool wraps(struct clock *c, uint64_t pc);
unsigned before_wrap(const struct block *block, uint64_t pc, unsigned limit);
void begin_far(struct clock *c, uint64_t pc, const struct block *block);
void end_far(struct clock *c);

/* blocks.c */
void decode_at(const struct block *block, size_t offset, struct instruction *out);
bool blocks_create(struct clock *c);
void blocks_destroy(struct clock *c);
void blocks_forget(struct clock *c);
void drop_translation(struct clock *c, uint64_t pc, uint32_t size);
struct block *block_of(struct clock *c, uint64_t pc, uint32_t size);
unsigned instructions_before(const struct block *block, uint64_t offset);
unsigned offset_of_instruction(const struct block *block, unsigned index);

/* clock.c */
void leave(struct clock *c, enum event event);
void fail(struct clock *c, uint64_t failure);
bool account_self_modification(struct clock *c, uint64_t pc);
_Noreturn void restart(struct clock *c, unsigned limit);
void settle(struct clock *c, uint64_t rip);
void new_epoch(struct clock *c);
void note_rep(struct clock *c, uint64_t pc);
bool is_iteration(const struct clock *c, uint64_t vaddr);
bool stop_point_at(const struct clock *c, uint64_t vaddr);
bool stop_point_stops(struct clock *c, uint64_t vaddr);

/* predicate.c */
bool predicate_holds(struct clock *c, const struct predicate *p);

/* operands.c */
uint64_t effective_address(const struct clock *c, const uint8_t *code, const struct instruction *instruction);
bool is_stack_fault(const struct clock *c, const uint8_t *code, size_t available);
bool undo_branch(struct clock *c);
void check_alignment(struct clock *c, bool on);
bool loads_other_ac(struct clock *c, const struct block *b);

/* sse.c */
void merge_sse_flags(struct clock *c);
bool unmasks_sse(const struct clock *c);
void begin_sse_check(struct clock *c, uint64_t pc);
bool end_sse_check(struct clock *c);
bool prepare_mxcsr(struct clock *c, const struct block *b);

/* traps.c */
bool canonical(uint64_t vaddr);
bool special_is_active(const struct clock *c, const struct block *block);
_Noreturn void special(struct clock *c, uint64_t pc, const struct block *block);

void raise_exception(struct clock *c, uint64_t vector, uint64_t error_code, uint64_t length, uint64_t detail);

/* breakpoints.c */
uint64_t breakpoints_at(const struct clock *c, uint64_t vaddr);
unsigned first_breakpoint_inside(const struct clock *c, uint64_t pc, const struct block *b, unsigned limit);
bool breakpoint_stops(struct clock *c, uint64_t vaddr);
uint64_t hide_pages(const struct clock *c);
void show_pages(const struct clock *c, uint64_t numbers);
uint64_t on_page(const struct clock *c, uint64_t numbers, uint64_t vaddr);

/* watches.c */
uint64_t leaf_of(const uint8_t *ram, uint64_t ram_size, uint64_t cr3, uint64_t vaddr);
bool is_block_read_protected(const struct clock *c, const struct block *block);

#endif
