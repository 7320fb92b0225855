/*
 * tick: event channels: timers, masking, blocking and notifications that the guest sends to itself.
 *
 * Each step makes events in one way and counts the upcalls that they give: the timer by set_timer_op, by VCPUOP
 * single-shot and periodic; a port that is masked, the vcpu's upcall mask, both of which hold events back and lose
 * none; blocking and polling for them; an IPI, and an interdomain channel with both ends here.
 *
 * Expect: exit 0
 * Expect-output: 13 steps, 0 wrong
 * Expect-output: PASS tick
 */
#include <pv/console.h>
#include <pv/events.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/time.h>

static unsigned timer, ipi, other_ipi;    /* ports */
static volatile unsigned upcalls[NR_PORTS]; /* by port */
static volatile unsigned depth, deepest;  /* of upcalls within upcalls */
static unsigned wrong;

static void check(const char *what, long got, long expected)
{
    if (got == expected)
        return;
    printk("  %s: %ld, expected %ld\n", what, got, expected);
    wrong++;
}

static bool upcall_pending(void)
{
    return *(volatile uint8_t *)&shared_info->vcpu_info[0].evtchn_upcall_pending;
}

static void count(unsigned port, struct regs *regs)
{
    check("upcall mask in the upcall", shared_info->vcpu_info[0].evtchn_upcall_mask, 1);
    check("saved upcall mask", regs->cs >> 32 & 0xff, 0);
    if (++depth > deepest)
        deepest = depth;
    upcalls[port]++;
    if (port == other_ipi && upcalls[other_ipi] == 1)
        event_send(ipi); /* may not nest: it comes after this one */
    depth--;
}

/* Some microseconds of work. The clock is not looked at all the time: it costs far more than an instruction. */
static void work(void)
{
    for (unsigned i = 0; i < 5000; i++)
        __asm__ volatile("");
}

/* Works until `ns` have gone by. */
static void spin(uint64_t ns)
{
    uint64_t end = now_ns() + ns;

    while (now_ns() < end)
        work();
}

static void wait_for(unsigned port, unsigned wanted)
{
    while (upcalls[port] < wanted) {
        upcalls_off();
        if (upcalls[port] < wanted)
            block();
        upcalls_on();
    }
}

static void set_timer_op(void)
{
    uint64_t deadline = now_ns() + 5 * NS_PER_MS;

    check("set_timer_op", hypercall_set_timer_op(deadline), 0);
    check("upcalls before the time", upcalls[timer], 0);
    wait_for(timer, 1);
    check("the time has come", now_ns() >= deadline, 1);
}

static void timer_while_running(void)
{
    hypercall_set_timer_op(now_ns() + NS_PER_MS);
    spin(3 * NS_PER_MS);
    check("upcalls", upcalls[timer], 1);
}

static void timer_stopped(void)
{
    hypercall_set_timer_op(now_ns() + NS_PER_MS);
    check("set_timer_op 0", hypercall_set_timer_op(0), 0);
    spin(3 * NS_PER_MS);
    check("upcalls", upcalls[timer], 0);
}

static void single_shot(void)
{
    struct vcpu_set_singleshot_timer past = {.timeout_abs_ns = 1};
    struct vcpu_set_singleshot_timer next = {.timeout_abs_ns = now_ns() + 3 * NS_PER_MS};

    check("a time in the past", hypercall_vcpu_op(VCPUOP_set_singleshot_timer, 0, &past), 0);
    wait_for(timer, 1); /* at once */
    check("a time to come", hypercall_vcpu_op(VCPUOP_set_singleshot_timer, 0, &next), 0);
    wait_for(timer, 2);
    check("the time has come", now_ns() >= next.timeout_abs_ns, 1);
    next.timeout_abs_ns = now_ns() + NS_PER_MS;
    hypercall_vcpu_op(VCPUOP_set_singleshot_timer, 0, &next);
    check("stop", hypercall_vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL), 0);
    spin(3 * NS_PER_MS);
    check("upcalls", upcalls[timer], 2);
}

/* Xen lets a periodic timer rest while its vcpu is blocked: a guest that waits for one has to run. */
static void periodic(void)
{
    struct vcpu_set_periodic_timer too_fast = {.period_ns = NS_PER_MS - 1}, tick = {.period_ns = 2 * NS_PER_MS};
    uint64_t start = now_ns();
    unsigned seen;

    check("a period below 1 ms", hypercall_vcpu_op(VCPUOP_set_periodic_timer, 0, &too_fast), -XEN_EINVAL);
    check("set", hypercall_vcpu_op(VCPUOP_set_periodic_timer, 0, &tick), 0);
    while (upcalls[timer] < 5 && now_ns() < start + 100 * NS_PER_MS)
        work();
    check("upcalls", upcalls[timer], 5);
    check("four periods have gone by", now_ns() - start >= 4 * tick.period_ns, 1);
    check("stop", hypercall_vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL), 0);
    seen = upcalls[timer];
    spin(5 * NS_PER_MS);
    check("upcalls after the stop", upcalls[timer] - seen, 0);
}

static void notify_self(void)
{
    event_send(ipi);
    check("upcalls", upcalls[ipi], 1);
    check("pending", event_pending(ipi), 0);
}

static void masked_port(void)
{
    event_mask(ipi);
    event_send(ipi);
    event_send(ipi);
    check("pending", event_pending(ipi), 1);
    check("upcall pending", upcall_pending(), 0);
    check("upcalls while masked", upcalls[ipi], 0);
    event_unmask(ipi);
    check("upcalls for both", upcalls[ipi], 1);
}

static void masked_upcalls(void)
{
    upcalls_off();
    event_send(ipi);
    event_send(other_ipi);
    check("upcall pending", upcall_pending(), 1);
    check("upcalls while masked", upcalls[ipi] + upcalls[other_ipi], 0);
    upcalls_on();
    check("upcalls", upcalls[ipi], 2); /* the second is sent by count() */
    check("upcalls of the other", upcalls[other_ipi], 1);
    check("upcalls within upcalls", deepest, 1);
}

static void block_with_event_pending(void)
{
    upcalls_off();
    event_send(ipi);
    block(); /* returns at once, with the event taken and upcalls on */
    check("upcalls", upcalls[ipi], 1);
    check("upcall mask", shared_info->vcpu_info[0].evtchn_upcall_mask, 0);
}

static void poll_port(void)
{
    evtchn_port_t port = ipi;
    uint64_t start = now_ns();
    struct sched_poll poll = {.nr_ports = 1, .timeout = start + 2 * NS_PER_MS};

    set_xen_guest_handle(poll.ports, &port);
    upcalls_off(); /* polling is for kernels that take no upcalls */
    event_mask(ipi);
    check("poll until the time", hypercall_sched_op(SCHEDOP_poll, &poll), 0);
    check("the time has come", now_ns() - start >= 2 * NS_PER_MS, 1);
    event_send(ipi);
    poll.timeout = 0;
    check("poll a pending port", hypercall_sched_op(SCHEDOP_poll, &poll), 0);
    check("pending", event_pending(ipi), 1);
    event_clear(ipi);
    event_unmask(ipi);
    upcalls_on();
    check("upcalls", upcalls[ipi], 0);
}

static void interdomain(void)
{
    struct evtchn_alloc_unbound alloc = {.dom = DOMID_SELF, .remote_dom = DOMID_SELF};
    struct evtchn_bind_interdomain bind = {.remote_dom = DOMID_SELF};
    struct evtchn_status status = {.dom = DOMID_SELF};

    check("alloc_unbound", hypercall_event_channel_op(EVTCHNOP_alloc_unbound, &alloc), 0);
    bind.remote_port = alloc.port;
    check("bind_interdomain", hypercall_event_channel_op(EVTCHNOP_bind_interdomain, &bind), 0);
    check("bind_interdomain again", hypercall_event_channel_op(EVTCHNOP_bind_interdomain, &bind), -XEN_EINVAL);
    status.port = alloc.port;
    check("status", hypercall_event_channel_op(EVTCHNOP_status, &status), 0);
    check("status.status", status.status, EVTCHNSTAT_interdomain);
    check("status.port", status.u.interdomain.port, bind.local_port);

    event_clear(bind.local_port); /* a fresh binding is pending, lest a notification be lost */
    event_handle(alloc.port, count);
    event_handle(bind.local_port, count);
    event_unmask(alloc.port);
    event_unmask(bind.local_port);
    event_send(bind.local_port);
    check("upcalls of the one end", upcalls[alloc.port], 1);
    event_send(alloc.port);
    event_send(alloc.port);
    check("upcalls of the other", upcalls[bind.local_port], 2);
}

static void closed_port(void)
{
    unsigned port = event_bind_ipi(count);
    struct evtchn_close close = {.port = port};
    struct evtchn_send send = {.port = port}, beyond = {.port = 100000};

    check("close", hypercall_event_channel_op(EVTCHNOP_close, &close), 0);
    check("close again", hypercall_event_channel_op(EVTCHNOP_close, &close), -XEN_EINVAL);
    check("send to a closed port", hypercall_event_channel_op(EVTCHNOP_send, &send), -XEN_EINVAL);
    check("send to a port that cannot be", hypercall_event_channel_op(EVTCHNOP_send, &beyond), -XEN_EINVAL);
}

static void second_timer_port(void)
{
    struct evtchn_bind_virq bind = {.virq = VIRQ_TIMER, .vcpu = 0};

    check("bind VIRQ_TIMER twice", hypercall_event_channel_op(EVTCHNOP_bind_virq, &bind), -XEN_EEXIST);
    bind.virq = NR_VIRQS;
    check("bind a VIRQ that cannot be", hypercall_event_channel_op(EVTCHNOP_bind_virq, &bind), -XEN_EINVAL);
}

static const struct step {
    const char *text;
    void (*run)(void);
} steps[] = {
    {"set_timer_op wakes a blocked vcpu", set_timer_op},
    {"set_timer_op interrupts a running one", timer_while_running},
    {"set_timer_op of 0 stops the timer", timer_stopped},
    {"a single-shot timer of vcpu_op", single_shot},
    {"a periodic timer of vcpu_op", periodic},
    {"a notification to itself", notify_self},
    {"a masked port keeps its event", masked_port},
    {"masked upcalls keep theirs, and do not nest", masked_upcalls},
    {"block with an event pending", block_with_event_pending},
    {"poll, with and without an event", poll_port},
    {"an interdomain channel within the domain", interdomain},
    {"a closed port", closed_port},
    {"a VIRQ has one port", second_timer_port},
};

void main(const char *command_line)
{
    const unsigned nr_steps = sizeof(steps) / sizeof(steps[0]);

    (void)command_line;
    timer = event_bind_virq(VIRQ_TIMER, count);
    ipi = event_bind_ipi(count);
    other_ipi = event_bind_ipi(count);
    event_unmask(timer);
    event_unmask(ipi);
    event_unmask(other_ipi);
    upcalls_on();
    for (unsigned i = 0; i < nr_steps; i++) {
        unsigned wrong_before = wrong;

        for (unsigned port = 0; port < NR_PORTS; port++)
            upcalls[port] = 0;
        steps[i].run();
        printk("%s %s\n", wrong == wrong_before ? "ok   " : "WRONG", steps[i].text);
    }
    printk("%u steps, %u wrong\n", nr_steps, wrong);
    if (wrong)
        fail("tick");
    printk("PASS tick\n");
}
