"""The whole server under random input: how much of it is a matter of `XDBG_FUZZ`.

Without it each run makes the same examples, few enough for every change. `XDBG_FUZZ=50` makes fifty times as many, new
ones each time; pytest's `--hypothesis-seed N` repeats them, and what failed is kept in .hypothesis and tried first.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from xdbg.guestos.structures import Structures
from xdbg.guestos.symbols import SymbolTable
from xdbg.session import gallery, server

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_machine import TIMES, Session, Undebugged

ROOT = Path(__file__).resolve().parent.parent.parent

if not (ROOT / "build" / "guests" / "tasks.elf").exists():  # its symbols are in the requests
    subprocess.run([sys.executable, ROOT / "scripts" / "build-guests"], check=True)

settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=not TIMES,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink],
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A run of many examples may take its time."""
    if TIMES:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> Iterator[None]:
    """What each domain reads from the same kernel is read once; what sessions set is set back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SymbolTable, "from_elf", cache(SymbolTable.from_elf))
        patch.setattr(Structures, "from_elf", cache(Structures.from_elf))
        patch.setattr(gallery, "LASTING_S", gallery.LASTING_S)
        patch.setattr(server, "SLICE", server.SLICE)
        yield


@pytest.fixture(scope="session")
def undebugged() -> Undebugged:
    """What the guest computes when nobody looks."""
    return Session().run_to_the_end()


@pytest.fixture
def session() -> Callable[..., Session]:
    return Session
