"""How the two ends of a device tell each other how far they are. Xen public/io/xenbus.h."""

from xdbg.abi.cenum import CEnum


class XenbusState(CEnum, prefix="XenbusState"):
    """enum xenbus_state: the key "state" of either end. Xen public/io/xenbus.h."""

    UNKNOWN = 0
    INITIALISING = 1
    INITWAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6
    RECONFIGURING = 7
    RECONFIGURED = 8
