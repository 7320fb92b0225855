"""The monitor command that writes a core of the domain."""

from collections.abc import Iterator, Sequence
from errno import EIO, ENOTSUP

from xdbg.debug.cores.file import CoreFileError, write_core
from xdbg.debug.cores.segments import MAX_PLACES
from xdbg.debug.monitor import MonitorContext, arguments, monitor
from xdbg.rsp.target import TargetError


@monitor("dump-core", "FILE [xen]")
def dump_core(context: MonitorContext, words: Sequence[str]) -> Iterator[str]:
    """Write the whole domain to a new file where the server runs, for gdb and drgn; xen: for crash and Xen's tools"""
    name, *form = arguments(words, "dump-core FILE [xen]", 1, 2)
    if form not in ([], ["xen"]):
        raise TargetError(ENOTSUP, f"no form {form[0]!r} of a core; there is xen")
    files = context.target.core_files
    if files is None:
        raise TargetError(ENOTSUP, "no files can be written here")
    try:
        with files.create(name) as sink:
            summary = write_core(context.domain, context.target.kernel_symbols, sink, with_segments=not form)
    except CoreFileError as error:
        raise TargetError(EIO, str(error)) from error
    segments = "no segments" if form else f"{summary.nr_segments} segments of virtual memory"
    yield f"{name}: {summary.nr_pages} pages, {segments}, {summary.size} bytes with the holes"
    if summary.left_out:
        yield "the guest maps more virtual memory than segments can show: some is left out"
    if summary.repeats:
        yield f"frames that are mapped more than {MAX_PLACES} times are shown in the first places only"
