/*
 * The memory of processes. The kernel never uses a user address itself: it looks the frame up in the task's page tables
 * and goes there by its own mapping. So it reaches every task, the current one or not, and never faults.
 */
#include "kernel.h"

#include <pv/text.h>

/* What is at `va` up to the end of its page; NULL if that is not mapped with the right. */
static char *reach(const struct task *task, uint64_t va, uint64_t right, size_t *size)
{
    uint64_t entry = user_pte(&task->space, va);
    size_t rest = PAGE_SIZE - va % PAGE_SIZE;

    if ((entry & (PTE_PRESENT | PTE_USER | right)) != (PTE_PRESENT | PTE_USER | right))
        return NULL;
    if (*size > rest)
        *size = rest;
    return (char *)mfn_to_va((entry & PTE_FRAME) / PAGE_SIZE) + va % PAGE_SIZE;
}

bool user_read(const struct task *task, void *to, uint64_t va, size_t size)
{
    for (size_t done = 0, part; done < size; done += part) {
        part = size - done;
        const char *from = reach(task, va + done, 0, &part);
        if (!from)
            return false;
        memcpy((char *)to + done, from, part);
    }
    return true;
}

bool user_write(const struct task *task, uint64_t va, const void *from, size_t size)
{
    for (size_t done = 0, part; done < size; done += part) {
        part = size - done;
        char *to = reach(task, va + done, PTE_WRITABLE, &part);
        if (!to)
            return false;
        memcpy(to, (const char *)from + done, part);
    }
    return true;
}

/* A text that ends within `size`. */
bool user_read_text(const struct task *task, char *to, uint64_t va, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!user_read(task, &to[i], va + i, 1))
            return false;
        if (!to[i])
            return true;
    }
    return false;
}

static int prot_of(uint64_t entry)
{
    return PROT_READ | (entry & PTE_WRITABLE ? PROT_WRITE : 0) | (entry & PTE_NX ? 0 : PROT_EXEC);
}

/* A page of its own for a task, with the content of the one that it had. */
static void page_copy(struct task *task, uint64_t va, uint64_t entry)
{
    void *page = page_alloc();

    memcpy(page, mfn_to_va((entry & PTE_FRAME) / PAGE_SIZE), PAGE_SIZE);
    user_map(&task->space, va & PAGE_MASK, va_to_mfn(page), prot_of(entry));
}

/* Writes for a debugger: to read-only pages too, and to pages that other processes share with this one. */
bool user_poke(struct task *task, uint64_t va, const void *from, size_t size)
{
    for (size_t done = 0, part; done < size; done += part) {
        uint64_t entry = user_pte(&task->space, va + done);

        if (entry & PTE_PRESENT && program_owns(task->program, (entry & PTE_FRAME) / PAGE_SIZE))
            page_copy(task, va + done, entry);
        part = size - done;
        char *to = reach(task, va + done, 0, &part);
        if (!to)
            return false;
        memcpy(to, (const char *)from + done, part);
    }
    return true;
}

/* The frames that are the task's alone. Its page tables must be gone, or be about to go. */
void user_frames_free(struct task *task)
{
    for (struct vma *vma = task->vmas; vma < task->vmas + task->nr_vmas; vma++)
        for (uint64_t va = vma->start; va < vma->end; va += PAGE_SIZE) {
            uint64_t entry = user_pte(&task->space, va);

            if (entry & PTE_PRESENT && !program_owns(task->program, (entry & PTE_FRAME) / PAGE_SIZE))
                page_free(mfn_to_va((entry & PTE_FRAME) / PAGE_SIZE));
        }
}

/* The same frames where they are shared, copies of the others. The child's list of mappings is the parent's. */
void user_frames_copy(struct task *child, const struct task *parent)
{
    for (const struct vma *vma = parent->vmas; vma < parent->vmas + parent->nr_vmas; vma++)
        for (uint64_t va = vma->start; va < vma->end; va += PAGE_SIZE) {
            uint64_t entry = user_pte(&parent->space, va);

            if (program_owns(parent->program, (entry & PTE_FRAME) / PAGE_SIZE))
                user_map(&child->space, va, (entry & PTE_FRAME) / PAGE_SIZE, prot_of(entry));
            else if (entry & PTE_PRESENT)
                page_copy(child, va, entry);
        }
}
