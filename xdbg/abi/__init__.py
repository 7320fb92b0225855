"""Numbers, bit fields and C structures of the Xen ABI and of x86; no behaviour."""
