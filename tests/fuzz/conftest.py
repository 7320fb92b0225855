"""The whole server under random input: how much of it is a matter of `XDBG_FUZZ`.

Without it each run makes the same examples, few enough for every change. `XDBG_FUZZ=50` makes fifty times as many, new
ones each time; pytest's `--hypothesis-seed N` repeats them, and what failed is kept in .hypothesis and tried first.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_machine import Session, Undebugged

ROOT = Path(__file__).resolve().parent.parent.parent
TIMES = int(os.environ.get("XDBG_FUZZ", "0"))

settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=not TIMES,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A run of many examples may take its time."""
    if TIMES:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session")
def guests_are_built() -> None:
    if not (ROOT / "build" / "guests" / "tasks.elf").exists():
        subprocess.run([sys.executable, ROOT / "scripts" / "build-guests"], check=True)


@pytest.fixture(scope="session")
def undebugged(guests_are_built: None) -> Undebugged:
    """What the guest computes when nobody looks."""
    return Session().run_to_the_end()


@pytest.fixture
def session(guests_are_built: None) -> Callable[..., Session]:
    return Session
