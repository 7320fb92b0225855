/* Programs that have run, and the frames that their processes share. They stay for good: there are few. */
#include "kernel.h"

#include <pv/text.h>

struct program programs[NR_PROGRAMS];

struct program *program_get(const char *path)
{
    for (struct program *p = programs; p < programs + NR_PROGRAMS; p++) {
        if (!strcmp(p->path, path))
            return p;
        if (p->path[0])
            continue;
        p->image = archive_find(path, &p->size);
        if (!p->image)
            return NULL;
        copy_text(p->path, path, sizeof(p->path));
        return p;
    }
    return NULL;
}

uint64_t program_frame(const struct program *program, uint64_t va)
{
    for (uint64_t i = 0; i < program->nr_shared; i++)
        if (program->shared[i].va == va)
            return program->shared[i].mfn;
    return 0;
}

bool program_owns(const struct program *program, uint64_t mfn)
{
    for (uint64_t i = 0; i < program->nr_shared; i++)
        if (program->shared[i].mfn == mfn)
            return true;
    return false;
}

void program_share(struct program *program, uint64_t va, uint64_t mfn)
{
    program->shared[program->nr_shared].va = va;
    program->shared[program->nr_shared++].mfn = mfn;
}
