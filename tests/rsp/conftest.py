"""Fixtures: a fake target, and a client with gdb's features that talks to it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules of this folder, which a server process imports too

from rsp_client import Client
from rsp_fake import FakeTarget


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
def client(target: FakeTarget) -> Client:
    return Client(target)
