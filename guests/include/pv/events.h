/*
 * Event channels: the interrupts of a PV guest.
 *
 * A port has a pending and a mask bit in the shared info page; a 0 -> 1 change of an unmasked port's pending bit sets
 * evtchn_upcall_pending, and Xen enters the event callback as soon as evtchn_upcall_mask is 0. The callback masks
 * upcalls until its iret.
 */
#ifndef PV_EVENTS_H
#define PV_EVENTS_H

#include <pv/traps.h>
#include <stdbool.h>
#include <stdint.h>

#include <xen/xen.h>

#define NR_PORTS 64 /* the guests get along with the first word of the bitmaps */

extern struct shared_info *shared_info;

typedef void event_handler(unsigned port, struct regs *regs);

/* Maps the shared info page, masks all ports and registers the event callback; upcalls stay masked. */
void events_init(void);
/* Binds VIRQ_* or an IPI of the calling vcpu to a new port, still masked. Its handler runs on this vcpu. */
unsigned event_bind_virq(unsigned virq, event_handler *handler);
unsigned event_bind_ipi(event_handler *handler);
/* Calls `handler` for upcalls of `port`. */
void event_handle(unsigned port, event_handler *handler);
void event_mask(unsigned port);
/* Unmasks; a port that was pending all the while gets its upcall now. */
void event_unmask(unsigned port);
void event_send(unsigned port);
bool event_pending(unsigned port);
void event_clear(unsigned port);
/* Makes a port that domain `domid` may bind, masked. */
unsigned event_alloc(domid_t domid);
void event_close(unsigned port);
/* Sleeps until a port that is masked is pending, and clears it. */
void event_wait(unsigned port);

/* Calls the handlers of all pending ports: the event callback, unless the guest puts its own before it. */
void events_take(struct regs *regs);

/* The upcall mask of this vcpu, as `cli` and `sti` of a bare machine. on() takes what is pending at once. */
void upcalls_off(void);
void upcalls_on(void);
/* Unmasks upcalls and sleeps until one has come; upcalls are on afterwards. */
void block(void);

#endif
