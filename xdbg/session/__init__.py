"""One machine and the people who look at it: launching a domain, running it, serving debuggers.

The only layer with sockets, signals and a poll loop. It holds no knowledge of its own of guests or protocols.
"""
