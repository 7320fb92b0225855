/* Memory and text, for kernel and programs. Built so that gcc does not turn the loops into calls of themselves. */
#include <pv/text.h>

#include <stdint.h>

void *memcpy(void *to, const void *from, size_t size)
{
    void *start = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
    return start;
}

void *memmove(void *to, const void *from, size_t size)
{
    char *t = to;
    const char *f = from;

    if (t <= f || t >= f + size)
        return memcpy(to, from, size);
    while (size--)
        t[size] = f[size];
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    void *start = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const unsigned char *x = a, *y = b;

    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;

    while (text[length])
        length++;
    return length;
}

int strncmp(const char *a, const char *b, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i] || !a[i])
            return (unsigned char)a[i] - (unsigned char)b[i];
    return 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

void copy_text(char *to, const char *from, size_t size)
{
    size_t i = 0;

    for (; i + 1 < size && from[i]; i++)
        to[i] = from[i];
    to[i] = 0;
}

unsigned long parse_number(const char *text)
{
    unsigned long number = 0;

    while (*text >= '0' && *text <= '9')
        number = number * 10 + (*text++ - '0');
    return number;
}

struct sink {
    char *to;
    size_t size, used;
};

static void put(struct sink *sink, char c)
{
    if (sink->used + 1 < sink->size)
        sink->to[sink->used++] = c;
}

struct directive {
    bool left, zero;
    int width;
};

static void put_padded(struct sink *sink, struct directive d, const char *text, size_t length)
{
    int space = d.width - (int)length;

    while (!d.left && space-- > 0)
        put(sink, d.zero ? '0' : ' ');
    while (length--)
        put(sink, *text++);
    while (d.left && space-- > 0)
        put(sink, ' ');
}

static void put_number(struct sink *sink, struct directive d, unsigned long number, unsigned base, bool negative)
{
    char digits[24];
    size_t at = sizeof(digits);

    do
        digits[--at] = "0123456789abcdef"[number % base];
    while (number /= base);
    if (negative)
        digits[--at] = '-';
    put_padded(sink, d, digits + at, sizeof(digits) - at);
}

size_t format_text(char *to, size_t size, const char *format, va_list args)
{
    struct sink sink = {.to = to, .size = size};

    for (; *format; format++) {
        struct directive d = {0};
        bool is_long = false;

        if (*format != '%') {
            put(&sink, *format);
            continue;
        }
        for (format++; *format == '-' || *format == '0'; format++)
            *(*format == '-' ? &d.left : &d.zero) = true;
        for (; *format >= '0' && *format <= '9'; format++)
            d.width = d.width * 10 + (*format - '0');
        for (; *format == 'l'; format++)
            is_long = true;
        switch (*format) {
        case 's': {
            const char *text = va_arg(args, const char *);
            put_padded(&sink, d, text, strlen(text));
            break;
        }
        case 'd': {
            long number = is_long ? va_arg(args, long) : va_arg(args, int);
            put_number(&sink, d, number < 0 ? -(unsigned long)number : (unsigned long)number, 10, number < 0);
            break;
        }
        case 'u':
            put_number(&sink, d, is_long ? va_arg(args, unsigned long) : va_arg(args, unsigned), 10, false);
            break;
        case 'x':
            put_number(&sink, d, is_long ? va_arg(args, unsigned long) : va_arg(args, unsigned), 16, false);
            break;
        case 'p':
            put_number(&sink, d, (uintptr_t)va_arg(args, void *), 16, false);
            break;
        case 'c':
            put(&sink, va_arg(args, int));
            break;
        case 0:
            format--; /* a lone % at the end */
            break;
        default:
            put(&sink, *format);
        }
    }
    sink.to[sink.used] = 0;
    return sink.used;
}
