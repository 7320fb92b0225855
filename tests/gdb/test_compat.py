"""32-bit user code under a 64-bit kernel: breakpoints and single steps are where its instructions are."""

STARTS = ("at_load", "at_bound", "at_long", "at_push", "at_push", "step_1", "step_2", "step_3")
"""`at_push` faults the first time."""
CS_32, CS_64 = 0xE023, 0xE033


def test_breakpoints_in_32_bit_code(xdbg_gdb, undebugged):
    gdb, plain = xdbg_gdb("cpu"), undebugged("cpu")
    for name in dict.fromkeys(STARTS):
        gdb.run(f"break *{name}")
    seen = []
    for _ in STARTS:
        stop = gdb.cont()
        assert stop.reason == "breakpoint-hit"
        seen.append((gdb.run("info symbol $pc").split()[0], gdb.number("$cs")))
    assert seen == [(name, CS_64 if name == "at_long" else CS_32) for name in STARTS]
    gdb.run("delete")
    assert gdb.cont().reason == "exited-normally"
    assert gdb.instructions == plain.instructions
    assert gdb.guest.stop() == plain.console


def test_single_steps_in_32_bit_code_and_across_the_modes(xdbg_gdb, undebugged):
    gdb, plain = xdbg_gdb("cpu"), undebugged("cpu")
    gdb.run("break *compat_start")
    gdb.cont()
    start, before = gdb.number("$pc"), gdb.instructions
    offsets = [gdb.stepi().address - start for _ in range(6)]
    assert offsets == [5, 7, 9, 10, 11, 12], "mov, two loads of segments, inc, dec, push"
    assert (gdb.number("$rax"), gdb.number("$rbx")) == (0, 0xFFFF_FFFF)
    assert gdb.instructions == before + 6
    assert gdb.stepi().address == gdb.number("(long)entry_stubs + 16 * 0x80"), "int $0x80"
    gdb.run("delete")
    gdb.run("break *at_bound + 4")
    gdb.cont()
    modes = [gdb.number("$cs")]
    for _ in range(3):
        gdb.stepi()
        modes.append(gdb.number("$cs"))
    assert modes == [CS_32, CS_64, CS_64, CS_64], "a far jump, a mov, and ud2, which ends in the kernel"
    assert gdb.number("$xen_kernel_mode") == 1
    gdb.run("delete")
    assert gdb.cont().reason == "exited-normally"
    assert gdb.instructions == plain.instructions
    assert gdb.guest.stop() == plain.console
