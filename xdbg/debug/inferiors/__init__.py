"""What gdb sees as processes: the kernel and the guest's processes, with their registers, memory, files and tables."""
