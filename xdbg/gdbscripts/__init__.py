"""Scripts for gdb's own Python.

Nothing of xdbg imports them, and they import nothing of xdbg: gdb may have another Python.
"""
