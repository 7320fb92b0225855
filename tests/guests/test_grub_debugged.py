"""A real gdb follows GRUB from its first instruction into the kernel that it boots from a disk."""

from grub_guest import GRUB, bootable, needs_grub
from typed_console import TypedConsole

from xdbg.session.bundled import find_guest
from xdbg.session.disks import parse_disk
from xdbg.session.launch import Launch

pytestmark = needs_grub


def test_gdb_stops_at_its_entry_and_in_its_code(xdbg_gdb):
    gdb = xdbg_gdb(GRUB)
    assert gdb.number("$pc") == 0  # its notes say so
    assert gdb.number("$rsi") % 4096 == 0
    assert '"xen-3.0-x86_64' in gdb.run("x/s $rsi")  # start_info
    calls = [line for line in gdb.run("x/40i $pc").splitlines() if "call" in line]
    called = int(calls[0].split()[-1], 16)
    gdb.run(f"break *{called:#x}")
    stop = gdb.cont()
    assert (stop.reason, stop.address) == ("breakpoint-hit", called)
    assert gdb.stepi().address != called


def test_gdb_stops_in_the_kernel_that_it_boots(xdbg_gdb, tmp_path):
    disk = bootable(tmp_path / "disk.img", "hello", "from GRUB")
    gdb = xdbg_gdb(GRUB, "--disk", str(disk))
    gdb.run(f"add-symbol-file {find_guest('hello').kernel}")
    gdb.run("break main")
    stop = gdb.cont()
    assert (stop.reason, stop.function) == ("breakpoint-hit", "main")
    assert '"from GRUB"' in gdb.run("print command_line")
    gdb.run("break poweroff")
    assert gdb.cont().function == "poweroff"
    assert gdb.backtrace()[:2] == ["poweroff", "guest_start"]
    gdb.go("stepi 20")
    assert gdb.cont().reason == "exited-normally"
    alone = TypedConsole(Launch(str(GRUB), disks=(parse_disk(str(disk)),)))
    alone.run_to_end()
    assert gdb.instructions == alone.instructions
    assert "PASS hello" in gdb.guest.stop()
