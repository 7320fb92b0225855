/*
 * hello: the smallest guest says hello on its console, tells what the domain builder gave it, and powers off.
 *
 * It shows the way from the image's ELF notes to start_info, the console ring and the shutdown hypercall.
 *
 * Expect: exit 0
 * Expect-output: Hello from a paravirtual domain
 * Expect-output: PASS hello
 */
#include <pv/console.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/mm.h>

void main(const char *command_line)
{
    long version = hypercall_xen_version(XENVER_version, NULL);

    printk("Hello from a paravirtual domain\n");
    printk("  Xen %ld.%ld, %s\n", version >> 16, version & 0xffff, start_info->magic);
    printk("  %lu pages, %u of them free and mapped\n", start_info->nr_pages, pages_free());
    printk("  command line \"%s\"\n", command_line);
    printk("  module of %lu bytes\n", start_info->mod_len);
    printk("PASS hello\n");
}
