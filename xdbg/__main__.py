"""python -m xdbg: the same as the command `xdbg`."""

from xdbg.cli import main

main(prog_name="xdbg")
