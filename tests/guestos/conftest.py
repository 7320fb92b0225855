"""A small program with every kind of symbol and member, compiled once."""

import subprocess
from pathlib import Path

import pytest

SOURCE = """
struct point { int x, y; };
typedef struct { char tag; struct point at[3]; } record;
enum colour { RED, GREEN = 7, BLUE = -1 };
struct whole {
    char name[16];
    volatile const enum colour colour;
    struct point here;
    union { long number; struct { short low, high; }; };
    record records[2];
    struct whole *next;
    int grid[2][3];
    void (*call)(void);
    unsigned char tail[];
};
struct whole the_whole;
record the_record = { 1, {{ 2, 3 }} };
static long hidden = 5;
static __attribute__((noinline)) long helper(long n) { return n * hidden + the_record.tag; }
__attribute__((noinline)) long work(long n) { return helper(n) + helper(n + 1); }
__attribute__((weak, alias("work"))) long alias_of_work(long n);
void _start(void) { the_whole.next = 0; work(the_whole.here.x); for (;;); }
__asm__(".text\\n.globl label\\nlabel: nop\\nnop\\nlocal_label: nop\\nnop\\n"
        ".globl an_absolute\\nan_absolute = 0x1234\\n"
        ".globl outer\\n.type outer, @function\\nouter: nop\\nnop\\n"
        ".globl inner\\n.type inner, @function\\ninner: nop\\nnop\\n.size inner, . - inner\\n"
        "nop\\n.size outer, . - outer\\n");
"""
FLAGS = ["-g", "-O1", "-static", "-nostdlib", "-ffreestanding", "-no-pie", "-fno-pie", "-Wl,--build-id=none"]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of its ELF file."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.c").write_text(SOURCE)
    subprocess.run(["gcc", *FLAGS, "program.c", "-o", "program"], cwd=folder, check=True)
    return folder / "program"
