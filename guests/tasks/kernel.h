/*
 * The kernel of `tasks`, and what a debugger outside can know of it.
 *
 * A process is a `struct task` in the static table tasks[]; a slot whose state is TASK_FREE is empty. `current` is the
 * task whose address space is loaded, or NULL; the kernel idles if current's state is not TASK_RUNNING.
 *
 * A task has no kernel stack. Whenever the kernel is entered from user mode the registers go into task->regs, and they
 * come from there when it returns: so for every task but one that is in user mode at the moment, task->regs is
 * the truth. On the first instructions of the kernel it is not yet: task->in_user is set when the task is sent to user
 * mode and cleared when save() has its registers. In between, outside of enter_user_mode() and what it leaves through,
 * they are in the struct regs that ends at kernel_stack_top, as far as trap_common has built that. A system call that has to wait leaves a state in the task (what it waits for) and is completed by whoever
 * makes it come true, who also writes its result into task->regs.rax. The kernel runs with events masked, except to
 * idle.
 *
 * task->space has the frames of the two top-level page tables. The processor's cr3 is user_l4 in user mode and
 * kernel_l4 in kernel mode; both lead to the same user pages. task->vmas tells what lies where and from which file;
 * the file's whole ELF image, with its debugging information, is the member of that path in the module archive.
 */
#ifndef TASKS_KERNEL_H
#define TASKS_KERNEL_H

#include "abi.h"

#include <pv/mm.h>
#include <pv/traps.h>

#include <stddef.h>

/*
 * Functions of which each call means that something has just happened to a process, complete but for what the function
 * itself does. A debugger outside looks at their arguments, so they are called as they stand here.
 */
#define OBSERVED __attribute__((noipa))

#define NR_TASKS 16
#define NR_VMAS 8
#define NR_AUXV 10
#define NR_PROGRAMS 16
#define NR_SHARED 16
#define SLICE_NS (2 * NS_PER_MS)

enum task_state {
    TASK_FREE,
    TASK_NEW,      /* is being made */
    TASK_RUNNING,  /* at most one: current */
    TASK_READY,
    TASK_SLEEPING, /* until wake_ns */
    TASK_WAITING,  /* for the child wait_pid, or any if 0, to end */
    TASK_TRACING,  /* for the process wait_pid, which it traces, to stop or end */
    TASK_STOPPED,  /* by its tracer; was in stopped_from */
    TASK_ZOMBIE,   /* has ended; its parent has not asked for the status */
};

struct vma {
    uint64_t start, end;
    uint32_t prot; /* PROT_* */
    uint32_t shared; /* frames belong to the program, not to the task */
    uint64_t offset; /* in the file */
    char name[32]; /* path, or "[stack]" */
};

struct auxv {
    uint64_t type, value;
};

/* A signal and its cause; the numbers of `code` are those of Unix. */
struct signal_info {
    int signal; /* 0: none */
    int code;
    uint64_t address; /* of a fault */
    int sender;       /* pid, if a process sent it */
    int fault;        /* the task's own instruction caused it: task->regs tells more */
};

struct task {
    int pid;
    enum task_state state;
    char name[16]; /* last part of the path */
    char path[32];
    struct task *parent; /* NULL for the first process */
    struct task *tracer; /* NULL if nobody traces it */
    struct regs regs;    /* user registers, while the task is not in user mode */
    struct address_space space;
    uint64_t load_base; /* 0 unless the program is position-independent */
    uint64_t entry;
    uint64_t nr_auxv;
    struct auxv auxv[NR_AUXV];
    uint64_t nr_vmas;
    struct vma vmas[NR_VMAS];
    struct program *program;

    enum task_state stopped_from;
    struct signal_info pending; /* has been sent, and is acted upon before the task runs on */
    int in_user;                /* see above */
    uint64_t orig_rax;          /* number of the system call by which it entered the kernel, or -1 */
    int stop_signal; /* of the last stop; 0 once the tracer has heard of it */
    int stepping;    /* TF is the tracer's */
    int exit_status;
    int exit_signal; /* that ended it, or 0 */
    int wait_pid;
    uint64_t wait_status; /* user address for the status, or 0 */
    uint64_t wake_ns;
    char fpu[512] __attribute__((aligned(16)));
};

extern struct task tasks[NR_TASKS];
extern struct task *current;

/* A program that has run at least once, with the frames of its read-only segments: all its processes share them. */
struct program {
    char path[32];
    const char *image;
    size_t size;
    uint64_t nr_shared;
    struct {
        uint64_t va; /* without the load base */
        uint64_t mfn;
    } shared[NR_SHARED];
};

/* archive.c */
const char *archive_find(const char *path, size_t *size);

/* program.c */
struct program *program_get(const char *path);
uint64_t program_frame(const struct program *program, uint64_t va);
bool program_owns(const struct program *program, uint64_t mfn);
void program_share(struct program *program, uint64_t va, uint64_t mfn);

/* exec.c: fill a task that is otherwise new. 0 or ERROR_*; argv are kernel strings. */
int task_load(struct task *task, const char *path, int argc, char argv[][32]);
int task_load_from_user(struct task *task, const struct task *caller, uint64_t path, uint64_t argv);

/* fork.c */
void task_copy(struct task *child, struct task *parent);
int task_exec(struct task *task, uint64_t path, uint64_t argv);
OBSERVED void task_forked(struct task *parent, struct task *child);
OBSERVED void task_execed(struct task *task);

/* memory.c: the memory of any task, through the kernel's own mapping of its frames. False: not all is mapped so. */
bool user_read(const struct task *task, void *to, uint64_t va, size_t size);
bool user_write(const struct task *task, uint64_t va, const void *from, size_t size);
bool user_read_text(const struct task *task, char *to, uint64_t va, size_t size);
bool user_poke(struct task *task, uint64_t va, const void *from, size_t size);
void user_frames_free(struct task *task);
void user_frames_copy(struct task *child, const struct task *parent);

/* task.c */
struct task *task_new(struct task *parent);
void task_free(struct task *task);
struct task *task_find(int pid);
OBSERVED void task_spawned(struct task *parent, struct task *child);
OBSERVED void task_exit(struct task *task, int status, int signal);
OBSERVED void task_signal(struct task *task, struct signal_info *info);
void task_complete_wait(struct task *task);

/* schedule.c */
void schedule_init(void);
void task_sleep(struct task *task, uint64_t wake_ns);
void schedule_yield(void);
void schedule_leave(struct task *task);
void fpu_save(struct task *task);
_Noreturn void schedule(void);

/* trap.c */
void traps_to_tasks(void);
void fault_report(const struct task *task, int signal);

/* syscall.c */
void syscall(struct task *task);

/* trace.c */
long trace(struct task *tracer, enum trace_op op, int pid, uint64_t address, uint64_t data);
void trace_stop(struct task *task, int signal);
void trace_complete_wait(struct task *tracer);
void trace_forget(struct task *task);

#endif
