"""What holds for all tests: random examples are the same in every run, unless XDBG_FUZZ asks for new ones."""

import os

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize="XDBG_FUZZ" not in os.environ)
settings.load_profile("repeatable")
