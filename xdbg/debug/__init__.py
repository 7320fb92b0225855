"""The gdb target: a domain as gdb debugs it, its kernel and its processes; and what stops the guest for it."""
