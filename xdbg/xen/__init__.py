"""The hypervisor: files are named as Xen's own where Xen has one, so that a reader of one finds the way in the other.

A guest runs until the CPU comes back with an `Exit`. `exit_handler` gives it to the mechanism that Xen would: an
exception goes through Xen's own IDT (`idt`, `traps`), a `syscall` is a hypercall or is bounced (`hypercall`, `entry`).
Those only change the `Domain` and its `Vcpu`. On the way back to the guest `entry` delivers what is pending.
"""
