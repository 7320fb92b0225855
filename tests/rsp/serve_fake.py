"""Serves the fake target on stdin and stdout, for ``target remote | python serve_fake.py LOG``; packets are logged."""

import os
import sys
from pathlib import Path

from rsp_fake import FakeTarget

from xdbg.rsp.connection import Connection, State

with Path(sys.argv[1]).open("wb") as log:
    connection = Connection(FakeTarget())
    while connection.state is not State.DISCONNECTED:
        data = os.read(0, 65536)
        if not data:
            connection.lose()
        log.write(b"<- %s\n" % data)
        connection.receive(data)
        while connection.state is State.RUNNING or connection.throttled:
            if connection.state is State.RUNNING:
                connection.stop(connection.target.run())
            else:
                connection.receive(b"")
        reply = connection.data_to_send()
        log.write(b"-> %s\n" % reply)
        while reply:
            reply = reply[os.write(1, reply) :]
    log.write(b"departure %s\n" % str(connection.departure).encode())
