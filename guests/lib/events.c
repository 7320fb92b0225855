#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/vcpu.h>

static char shared_info_page[PAGE_SIZE] __attribute__((section(".bss.pages"), aligned(PAGE_SIZE)));

struct shared_info *shared_info = (struct shared_info *)shared_info_page;

static event_handler *handlers[NR_PORTS];

/* Xen and other vcpus change these words too: it takes one instruction to change a bit. */
static void set_bit(volatile unsigned long *word, unsigned bit)
{
    __asm__ volatile("lock bts %1, %0" : "+m"(*word) : "r"((unsigned long)bit) : "memory");
}

static void clear_bit(volatile unsigned long *word, unsigned bit)
{
    __asm__ volatile("lock btr %1, %0" : "+m"(*word) : "r"((unsigned long)bit) : "memory");
}

/* The event callback. The pending flag goes first: what becomes pending after that makes a new upcall. */
void events_take(struct regs *regs)
{
    struct vcpu *vcpu = this_vcpu();
    unsigned long selector, ports;

    vcpu->info->evtchn_upcall_pending = 0;
    selector = __atomic_exchange_n(&vcpu->info->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
    if (selector & ~1ul)
        fail("an event on a port beyond %u", NR_PORTS);
    ports = shared_info->evtchn_pending[0] & ~shared_info->evtchn_mask[0] & vcpu->ports;
    for (; ports; ports &= ports - 1) {
        unsigned port = __builtin_ctzl(ports);

        event_clear(port);
        if (!handlers[port])
            fail("an event on port %u, which nobody handles", port);
        handlers[port](port, regs);
    }
}

void events_init(void)
{
    if (kernel_map(shared_info_page, start_info->shared_info / PAGE_SIZE, PROT_READ | PROT_WRITE))
        fail("cannot map the shared info page");
    for (unsigned word = 0; word < 64; word++)
        shared_info->evtchn_mask[word] = ~0ul;
    trap_set(VECTOR_EVENT, 0, events_take);
    hypercall_vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL); /* Xen may start a domain with a tick */
}

void event_handle(unsigned port, event_handler *handler)
{
    if (port >= NR_PORTS)
        fail("port %u is beyond the first word", port);
    handlers[port] = handler;
}

/* A port that notifies the calling vcpu. It is still masked: nothing is lost while it changes hands. */
static unsigned take_port(unsigned port, event_handler *handler)
{
    struct vcpu *vcpu = this_vcpu();

    event_handle(port, handler);
    if (vcpu->id) {
        clear_bit(&vcpus[0].ports, port);
        vcpu->ports |= 1ul << port;
    }
    return port;
}

unsigned event_bind_virq(unsigned virq, event_handler *handler)
{
    struct evtchn_bind_virq bind = {.virq = virq, .vcpu = this_vcpu()->id};

    if (hypercall_event_channel_op(EVTCHNOP_bind_virq, &bind))
        fail("cannot bind VIRQ %u", virq);
    return take_port(bind.port, handler);
}

unsigned event_bind_ipi(event_handler *handler)
{
    struct evtchn_bind_ipi bind = {.vcpu = this_vcpu()->id};

    if (hypercall_event_channel_op(EVTCHNOP_bind_ipi, &bind))
        fail("cannot bind an IPI");
    return take_port(bind.port, handler);
}

void event_mask(unsigned port)
{
    set_bit(&shared_info->evtchn_mask[0], port);
}

void event_unmask(unsigned port)
{
    struct evtchn_unmask unmask = {.port = port};

    if (hypercall_event_channel_op(EVTCHNOP_unmask, &unmask))
        fail("cannot unmask port %u", port);
}

void event_send(unsigned port)
{
    struct evtchn_send send = {.port = port};

    if (hypercall_event_channel_op(EVTCHNOP_send, &send))
        fail("cannot send to port %u", port);
}

bool event_pending(unsigned port)
{
    return shared_info->evtchn_pending[0] >> port & 1;
}

void event_clear(unsigned port)
{
    clear_bit(&shared_info->evtchn_pending[0], port);
}

unsigned event_alloc(domid_t domid)
{
    struct evtchn_alloc_unbound alloc = {.dom = DOMID_SELF, .remote_dom = domid};

    if (hypercall_event_channel_op(EVTCHNOP_alloc_unbound, &alloc))
        fail("cannot make a port for domain %u", domid);
    return alloc.port;
}

void event_close(unsigned port)
{
    struct evtchn_close close = {.port = port};

    if (hypercall_event_channel_op(EVTCHNOP_close, &close))
        fail("cannot close port %u", port);
}

void event_wait(unsigned port)
{
    evtchn_port_t ports[1] = {port};
    struct sched_poll poll = {.nr_ports = 1};

    set_xen_guest_handle(poll.ports, ports);
    while (!event_pending(port))
        hypercall_sched_op(SCHEDOP_poll, &poll);
    event_clear(port);
}

void upcalls_off(void)
{
    this_vcpu()->info->evtchn_upcall_mask = 1;
    __asm__ volatile("" ::: "memory");
}

/* Clearing the mask is a plain store that Xen does not see: any hypercall makes it look at what is pending. */
void upcalls_on(void)
{
    volatile struct vcpu_info *info = this_vcpu()->info;

    __asm__ volatile("" ::: "memory");
    info->evtchn_upcall_mask = 0;
    if (info->evtchn_upcall_pending)
        hypercall_xen_version(XENVER_version, NULL);
}

void block(void)
{
    hypercall_sched_op(SCHEDOP_block, NULL);
}
