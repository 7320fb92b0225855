"""xdbg: a paravirt Xen domain on an emulated CPU, debugged by real gdb."""

__version__ = "0.1.0"
