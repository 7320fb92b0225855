"""The server side of the GDB remote serial protocol: bytes to requests, replies to bytes. No I/O, no guest."""
