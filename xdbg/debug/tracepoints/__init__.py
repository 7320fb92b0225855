"""Tracepoints of the debugger: definitions, what is collected where the guest comes by, and the buffer for it.

Hits never stop the guest, and it computes the same with a trace running as without.
"""
