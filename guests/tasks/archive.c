/*
 * The module: a cpio archive in the "newc" format. Each member is a header of 110 characters ("070701" and 13 numbers
 * of 8 hexadecimal digits), its name and its content, the latter two padded to 4 bytes. The last is TRAILER!!!.
 */
#include "kernel.h"

#include <pv/text.h>

enum { HEADER = 110, FIELD_SIZE = 6, FIELD_NAME_SIZE = 11 };

static size_t field(const char *header, unsigned number)
{
    const char *digit = header + 6 + 8 * number;
    size_t value = 0;

    for (unsigned i = 0; i < 8; i++, digit++)
        value = value * 16 + (*digit <= '9' ? *digit - '0' : (*digit | 32) - 'a' + 10);
    return value;
}

static size_t padded(size_t size)
{
    return (size + 3) & ~3ul;
}

/* `path` is absolute, the names in the archive are not. */
const char *archive_find(const char *path, size_t *size)
{
    const char *archive = (const char *)start_info->mod_start;
    size_t at = 0;

    while (at + HEADER < start_info->mod_len && !strncmp(archive + at, "070701", 6)) {
        const char *header = archive + at, *name = header + HEADER;
        size_t name_size = field(header, FIELD_NAME_SIZE);
        size_t content = at + padded(HEADER + name_size);

        *size = field(header, FIELD_SIZE);
        if (content + *size > start_info->mod_len || !strcmp(name, "TRAILER!!!"))
            return NULL;
        if (path[0] == '/' && !strcmp(name, path + 1))
            return archive + content;
        at = content + padded(*size);
    }
    return NULL;
}
