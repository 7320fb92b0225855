"""What each way into Xen costs: hypercalls, traps, upcalls, context switches, in microseconds a turn.

The guest `calls` does nothing else, as often as its command line says; a short and a long run of it are timed and
subtracted. Each run is a process of its own: `run(tree, name, turns)` can be told which tree of sources to use.
"""

import importlib.machinery
import importlib.util
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "benchmark"
SOURCE = Path(__file__).resolve().parent / "calls"

WORK = {
    # name in the guest: (what it is, microseconds aimed at; None: no aim)
    "xen_version": ("xen_version", 6),
    "mmu_update": ("mmu_update, one entry", 6),
    "mmu_update_64": ("mmu_update by 64, an entry", 2),
    "update_va_mapping": ("update_va_mapping, invlpg", 6),
    "tlb_flush": ("mmuext_op, TLB flush", 6),
    "multicall_8": ("multicall of 8, a call", 6),
    "multicall_32": ("multicall of 32, a call", 6),
    "send_self": ("evtchn_send to itself", 6),
    "yield": ("sched_op yield", 6),
    "set_timer": ("set_timer_op", 6),
    "iret": ("iret", 6),
    "int3": ("int3 bounced, and back", None),
    "page_fault": ("page fault bounced, and back", None),
    "upcall": ("send, upcall, and back", None),
    "switch": ("syscall, switch of process, and back", None),
}
SHORT, LONG = 2_000, 32_000

_CODE = """
import sys, time
from xdbg.session import console, launch, run
def timed(text):
    domain = launch.launch(launch.Launch(sys.argv[1], append=text, memory=16 << 20))
    begin = time.process_time()
    outcome = run.run_to_end(domain, console.Terminal(open("/dev/null", "wb")))
    assert outcome.name == "POWERED_OFF", outcome
    return time.process_time() - begin
for name in sys.argv[4:]:
    short, long = (min(timed(f"{name} {turns}") for _ in range(2)) for turns in map(int, sys.argv[2:4]))
    print(name, (long - short) / (int(sys.argv[3]) - int(sys.argv[2])) * 1e6)
"""


def build() -> Path:
    """The guest, linked with the runtime of the bundled guests."""
    subprocess.run([sys.executable, ROOT / "scripts" / "build-guests"], check=True, stdout=subprocess.DEVNULL)
    loader = importlib.machinery.SourceFileLoader("build_guests", str(ROOT / "scripts" / "build-guests"))
    spec = importlib.util.spec_from_loader("build_guests", loader)
    guests = importlib.util.module_from_spec(spec)
    loader.exec_module(guests)
    flags = [*guests.COMMON, *guests.KERNEL, "-O2"]
    objects = guests.compile_all(guests.sources(SOURCE), BUILD / "calls", flags)
    runtime = sorted((guests.BUILD / "lib").glob("*.o"))
    guests.link(
        [*runtime, *objects],
        BUILD / "calls.elf",
        [*guests.KERNEL_LINK, f"-T{guests.GUESTS}/lib/{guests.LINKER_SCRIPT}"],
    )
    return BUILD / "calls.elf"


def run(tree: Path, guest: Path, names: list[str]) -> dict[str, float]:
    """Microseconds a turn, by name, with the sources in `tree`."""
    command = [sys.executable, "-W", "ignore", "-c", _CODE, guest, str(SHORT), str(LONG), *names]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tree)
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}


def measure(rounds: int, trees: list[Path], names: list[str] | None = None) -> list[dict[str, float]]:
    """The medians of `rounds` for each tree of sources, the trees taking turns."""
    guest = build()
    samples: list[dict[str, list[float]]] = [{} for _ in trees]
    for _ in range(rounds):
        for name in names or WORK:
            for tree, mine in zip(trees, samples, strict=True):
                mine.setdefault(name, []).append(run(tree, guest, [name])[name])
    return [{name: statistics.median(values) for name, values in mine.items()} for mine in samples]
