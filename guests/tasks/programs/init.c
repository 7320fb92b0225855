/* init: starts the other programs, waits for all of them, and compares how they ended. */
#include "program.h"

struct child {
    const char *name;
    char *argv[5];
    int expected; /* status */
    int pid;
    int status;
    int ended;
};

static char debuggee_pid[12];

static struct child children[] = {
    {.name = "counter a", .argv = {"counter", "a", "40"}, .expected = 3},
    {.name = "counter b", .argv = {"counter", "b", "60"}, .expected = 51},
    {.name = "spin", .argv = {"spin"}, .expected = STATUS_OF_SIGNAL(SIGNAL_KILL)},
    {.name = "fault", .argv = {"fault"}, .expected = STATUS_OF_SIGNAL(SIGNAL_SEGV)},
    {.name = "forker", .argv = {"forker"}, .expected = 0},
    {.name = "debuggee", .argv = {"debuggee"}, .expected = 64},
    {.name = "debuggee free", .argv = {"debuggee", "free"}, .expected = 64},
    {.name = "debugger", .argv = {"debugger", debuggee_pid, "step", "5"}, .expected = 5},
};

enum { NR_CHILDREN = sizeof(children) / sizeof(children[0]), SPIN = 2, DEBUGGEE = 5 };

static void format(char *to, unsigned long size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    format_text(to, size, format, args);
    va_end(args);
}

static int start_all(void)
{
    for (struct child *child = children; child < children + NR_CHILDREN; child++) {
        char path[32];

        format(path, sizeof(path), "/bin/%s", child->argv[0]);
        format(debuggee_pid, sizeof(debuggee_pid), "%d", children[DEBUGGEE].pid);
        child->pid = spawn(path, child->argv);
        if (child->pid < 0) {
            print("init: cannot spawn %s: error %d\n", path, child->pid);
            return 1;
        }
    }
    return 0;
}

/* spin is killed when it is the only one left. */
static void wait_for_all(void)
{
    for (int ended = 0; ended < NR_CHILDREN; ended++) {
        int status, pid;

        if (ended == NR_CHILDREN - 1)
            kill(children[SPIN].pid);
        pid = wait(0, &status);
        for (struct child *child = children; child < children + NR_CHILDREN; child++)
            if (child->pid == pid) {
                child->status = status;
                child->ended = 1;
            }
    }
}

static int verdict(void)
{
    int wrong = 0;

    for (struct child *child = children; child < children + NR_CHILDREN; child++) {
        int right = child->ended && child->status == child->expected;

        print("init: %-13s pid %2d, status %3d %s\n", child->name, child->pid, child->status, right ? "ok" : "WRONG");
        wrong += !right;
    }
    return wrong;
}

int main(int argc, char *argv[])
{
    (void)argc, (void)argv;
    if (start_all())
        return 1;
    wait_for_all();
    if (verdict())
        return 1;
    print("init: all ended as they should\n");
    return 0;
}
