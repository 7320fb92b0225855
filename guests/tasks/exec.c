/*
 * Programs become processes: segments with their rights, a stack with the arguments and the auxiliary vector.
 *
 *     0x400000          a program linked for a fixed address
 *     0x555555554000    a position-independent one
 *     0x7ffffffff000    the end of the stack
 */
#include "elf64.h"
#include "kernel.h"

#include <pv/text.h>

#define PIE_BASE 0x555555554000ul
#define STACK_TOP 0x7ffffffff000ul
#define STACK_PAGES 4
#define MAX_ARGS 8

static uint64_t page_down(uint64_t va)
{
    return va & PAGE_MASK;
}

static uint64_t page_up(uint64_t va)
{
    return (va + PAGE_SIZE - 1) & PAGE_MASK;
}

static int prot_of(const struct elf_segment *segment)
{
    return (segment->flags & ELF_READ ? PROT_READ : 0) | (segment->flags & ELF_WRITE ? PROT_WRITE : 0) |
           (segment->flags & ELF_EXECUTE ? PROT_EXEC : 0);
}

static bool vma_add(struct task *task, uint64_t start, uint64_t end, int prot, uint64_t offset, const char *name)
{
    struct vma *vma = &task->vmas[task->nr_vmas];

    if (task->nr_vmas == NR_VMAS)
        return false;
    task->nr_vmas++;
    *vma = (struct vma){.start = start, .end = end, .prot = prot, .offset = offset};
    vma->shared = name[0] == '/' && !(prot & PROT_WRITE);
    copy_text(vma->name, name, sizeof(vma->name));
    return true;
}

/* A page of a segment, with zeros where the file has nothing for it. */
static void *page_of(const struct program *program, const struct elf_segment *segment, uint64_t va)
{
    char *page = page_alloc();
    uint64_t from = va > segment->vaddr ? va : segment->vaddr;
    uint64_t to = va + PAGE_SIZE;

    if (to > segment->vaddr + segment->filesz)
        to = segment->vaddr + segment->filesz;
    if (from < to)
        memcpy(page + (from - va), program->image + segment->offset + (from - segment->vaddr), to - from);
    return page;
}

/* The frame for a page: the program's own if nobody may write to it, and then the same one for all its processes. */
static uint64_t frame_of(struct program *program, const struct elf_segment *segment, uint64_t va)
{
    uint64_t mfn = segment->flags & ELF_WRITE ? 0 : program_frame(program, va);

    if (mfn)
        return mfn;
    mfn = va_to_mfn(page_of(program, segment, va));
    if (!(segment->flags & ELF_WRITE))
        program_share(program, va, mfn);
    return mfn;
}

static bool segment_load(struct task *task, const struct elf_segment *segment)
{
    struct program *program = task->program;
    uint64_t start = page_down(segment->vaddr), end = page_up(segment->vaddr + segment->memsz);
    int prot = prot_of(segment);

    if (segment->offset + segment->filesz > program->size || segment->filesz > segment->memsz || end <= start ||
        end > STACK_TOP / 4)
        return false;
    if (!vma_add(task, task->load_base + start, task->load_base + end, prot, page_down(segment->offset), program->path))
        return false;
    for (uint64_t va = start; va < end; va += PAGE_SIZE) {
        if (user_pte(&task->space, task->load_base + va) & PTE_PRESENT)
            return false;
        if (!(prot & PROT_WRITE) && !program_frame(program, va) && program->nr_shared == NR_SHARED)
            return false;
        user_map(&task->space, task->load_base + va, frame_of(program, segment, va), prot);
    }
    return true;
}

static bool image_load(struct task *task)
{
    const struct program *program = task->program;
    const struct elf_header *header = (const struct elf_header *)program->image;
    const struct elf_segment *segments = (const struct elf_segment *)(program->image + header->phoff);

    if (program->size < sizeof(*header) || memcmp(header->ident, "\177ELF\2\1", 6) || header->machine != ELF_X86_64 ||
        (header->type != ELF_EXEC && header->type != ELF_DYN) || header->phentsize != sizeof(*segments) ||
        header->phoff + header->phnum * sizeof(*segments) > program->size)
        return false;
    task->load_base = header->type == ELF_DYN ? PIE_BASE : 0;
    task->entry = task->load_base + header->entry;
    for (unsigned i = 0; i < header->phnum; i++)
        if (segments[i].type == ELF_LOAD && !segment_load(task, &segments[i]))
            return false;
    return true;
}

static void auxv_add(struct task *task, uint64_t type, uint64_t value)
{
    task->auxv[task->nr_auxv++] = (struct auxv){type, value};
}

/* The headers are in memory, because the first segment starts with the file's first byte. */
static void auxv_fill(struct task *task, uint64_t path)
{
    const struct elf_header *header = (const struct elf_header *)task->program->image;
    uint64_t start = task->vmas[0].start - task->vmas[0].offset;

    auxv_add(task, AT_PHDR, start + header->phoff);
    auxv_add(task, AT_PHENT, header->phentsize);
    auxv_add(task, AT_PHNUM, header->phnum);
    auxv_add(task, AT_PAGESZ, PAGE_SIZE);
    auxv_add(task, AT_BASE, 0); /* no interpreter */
    auxv_add(task, AT_ENTRY, task->entry);
    auxv_add(task, AT_EXECFN, path);
    auxv_add(task, AT_NULL, 0);
}

static uint64_t push(struct task *task, uint64_t sp, const void *from, size_t size)
{
    user_write(task, sp - size, from, size);
    return sp - size;
}

/* From the top: texts; the auxiliary vector; an empty environment; argv; argc, 16-byte aligned, where rsp points. */
static void stack_fill(struct task *task, int argc, char argv[][32])
{
    uint64_t words[1 + MAX_ARGS + 2 + 2 * NR_AUXV], count = 0, sp, path;

    for (uint64_t va = STACK_TOP - STACK_PAGES * PAGE_SIZE; va < STACK_TOP; va += PAGE_SIZE)
        user_map(&task->space, va, va_to_mfn(page_alloc()), PROT_READ | PROT_WRITE);
    sp = path = push(task, STACK_TOP - 8, task->path, strlen(task->path) + 1);
    auxv_fill(task, path);

    words[count++] = argc;
    for (int i = 0; i < argc; i++)
        words[count++] = sp = push(task, sp, argv[i], strlen(argv[i]) + 1);
    words[count++] = 0;
    words[count++] = 0;
    memcpy(&words[count], task->auxv, task->nr_auxv * sizeof(task->auxv[0]));
    count += 2 * task->nr_auxv;
    sp = (sp - count * sizeof(words[0])) & ~15ul;
    user_write(task, sp, words, count * sizeof(words[0]));
    task->regs.rsp = sp;
}

static void registers_fill(struct task *task)
{
    static const struct {
        uint16_t control, status, tag, opcode;
        uint64_t ip, dp;
        uint32_t mxcsr;
    } fresh = {.control = 0x37f, .mxcsr = 0x1f80};

    task->regs = (struct regs){.rsp = task->regs.rsp};
    task->regs.rip = task->entry;
    task->regs.cs = FLAT_USER_CS;
    task->regs.ss = FLAT_USER_SS;
    task->regs.rflags = RFLAGS_FIXED | RFLAGS_IF;
    memcpy(task->fpu, &fresh, sizeof(fresh));
}

int task_load(struct task *task, const char *path, int argc, char argv[][32])
{
    const char *name = path;

    task->program = program_get(path);
    if (!task->program)
        return ERROR_no_file;
    for (const char *c = path; *c; c++)
        if (*c == '/')
            name = c + 1;
    copy_text(task->path, path, sizeof(task->path));
    copy_text(task->name, name, sizeof(task->name));
    address_space_create(&task->space);
    if (!image_load(task) ||
        !vma_add(task, STACK_TOP - STACK_PAGES * PAGE_SIZE, STACK_TOP, PROT_READ | PROT_WRITE, 0, "[stack]")) {
        user_frames_free(task);
        address_space_destroy(&task->space);
        return ERROR_no_file;
    }
    stack_fill(task, argc, argv);
    registers_fill(task);
    return 0;
}

/* path and argv (a list of texts that ends with NULL) are addresses in the caller's memory. */
int task_load_from_user(struct task *task, const struct task *caller, uint64_t path, uint64_t argv)
{
    char file[32], args[MAX_ARGS][32];
    int argc = 0;

    if (!user_read_text(caller, file, path, sizeof(file)))
        return ERROR_bad_address;
    for (;; argc++) {
        uint64_t arg;

        if (!user_read(caller, &arg, argv + 8 * argc, sizeof(arg)))
            return ERROR_bad_address;
        if (!arg)
            break;
        if (argc == MAX_ARGS || !user_read_text(caller, args[argc], arg, sizeof(args[argc])))
            return ERROR_bad_argument;
    }
    return task_load(task, file, argc, args);
}
