"""A server ends on SIGTERM whatever it is doing when the signal comes."""

import os
import signal

from xdbg.session.server import end_on_signals


class FakeServer:
    """What `end_on_signals` needs of a server."""

    def __init__(self):
        self.read_fd, self.wake_fd = os.pipe()
        os.set_blocking(self.wake_fd, False)
        self.ended = False

    def end(self):
        self.ended = True


def test_the_interpreter_itself_wakes_a_server_that_is_about_to_sleep():
    server = FakeServer()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with end_on_signals(server):
            signal.raise_signal(signal.SIGTERM)
            assert os.read(server.read_fd, 1) == bytes([signal.SIGTERM])
            assert server.ended
        assert signal.getsignal(signal.SIGTERM) is before
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        os.close(server.read_fd)
        os.close(server.wake_fd)


def test_a_server_that_a_client_has_just_left_ends_on_sigterm(xdbg_serve):
    import socket

    for _ in range(5):
        guest = xdbg_serve("hello")
        host, port = guest.address.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"$qSupported#37")
            assert client.recv(1) == b"+"
        guest.stop()
        assert not guest.alive
