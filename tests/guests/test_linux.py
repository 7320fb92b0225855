"""Linux as it is installed: a bzImage boots to its first process.

No kernel is part of this: XDBG_VMLINUZ names some, divided by `:`, built with CONFIG_XEN_PV, such as those of Debian's
packages linux-image-*. Without it there is nothing to run.
"""

import gzip
import os
import re
import subprocess
from pathlib import Path

import pytest
from disk_images import newc
from typed_console import TypedConsole

from xdbg.abi.sched import Shutdown
from xdbg.session.launch import Launch
from xdbg.xen.audit import audit

KERNELS = [Path(path) for path in os.environ.get("XDBG_VMLINUZ", "").split(":") if path]
INIT = r"""
#include <stdio.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
int main(void)
{
    struct utsname name;
    uname(&name);
    printf("the first process of %s on %s\n", name.release, name.machine);
    fflush(stdout);
    reboot(RB_POWER_OFF);
}
"""

pytestmark = pytest.mark.skipif(not KERNELS, reason="XDBG_VMLINUZ names no vmlinuz")


@pytest.fixture(scope="module")
def initrd(tmp_path_factory):
    """A packed RAM disk with the program."""
    made = tmp_path_factory.mktemp("linux")
    (made / "init.c").write_text(INIT)
    subprocess.run(["gcc", "-O1", "-static", "-o", made / "init", made / "init.c"], check=True)
    nodes = (("dev", 0o40755, b"", 0), ("dev/console", 0o20600, b"", 0x501))
    (made / "initrd").write_bytes(gzip.compress(newc((*nodes, ("init", 0o100755, (made / "init").read_bytes(), 0)))))
    return made / "initrd"


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda path: path.name)
def test_it_boots_to_its_first_process_and_powers_off(kernel, initrd):
    line = "console=hvc0 rdinit=/init panic=-1"
    console = TypedConsole(Launch(str(kernel), modules=(initrd,), append=line, memory=256 << 20), limit=10**10)
    console.wait_for("the first process of ")
    assert re.match(r"\d+\.\d+\S* on x86_64\n", console.run_to_end())
    assert console.domain.shutdown_code == Shutdown.POWEROFF
    audit(console.launched.hv)
