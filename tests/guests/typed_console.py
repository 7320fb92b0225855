"""A domain at whose console somebody sits: types lines, and reads what comes, with the escape sequences taken out."""

import re

from xdbg.session.launch import launch
from xdbg.xen.console import send_input
from xdbg.xen.setup import RunEnd

SLICE = 1_000_000
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x08\0]")


class TypedConsole:
    """The domain runs only while something is waited for, so each run of a test is the same."""

    def __init__(self, what, limit=3_000_000_000):
        self.launched = launch(what)
        self.domain = self.launched.domain
        self.limit = limit
        self.shown = ""
        self._seen = 0

    @property
    def instructions(self):
        return self.launched.hv.cpu.count

    def wait_for(self, text):
        """What was shown up to `text`, and since the last wait."""
        while (found := self.shown.find(text, self._seen)) < 0:
            assert self._run(), f"no {text!r} in {self.shown[self._seen :]!r}"
        start, self._seen = self._seen, found + len(text)
        return self.shown[start:found]

    def type(self, text):
        send_input(self.domain, text.encode())

    def run_to_end(self):
        """What was shown to the end; then `domain.shutdown_code` tells how it ended."""
        while self.domain.shutdown_code is None:
            assert self._run(), self.shown[self._seen :]
        return self.shown[self._seen :]

    def _run(self):
        """Whether the domain could go on."""
        if self.domain.shutdown_code is not None or self.instructions >= self.limit:
            return False
        ended = self.launched.hv.run(self.instructions + SLICE)
        self.shown += ESCAPE.sub("", self.domain.console.take_output().decode("utf-8", "replace"))
        return ended is not RunEnd.IDLE
