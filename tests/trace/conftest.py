"""The fixture of these tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules of this folder

from trace_machine import Machine


@pytest.fixture
def machine() -> Machine:
    """A vcpu that stands still."""
    return Machine()
