"""Configuration files of xl: what is read from a good one, and that any other is refused with FILE:LINE: and one line.

Invariant of the fuzz tests: whatever a file holds, there is an XlConfig or a ConfigError.
"""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xdbg.session.xl_config import MAX_CONFIG_SIZE, ShutdownAction, parse_config, read_config
from xdbg.session.xl_syntax import ConfigError, parse_settings

EXAMPLE = """\
# Example of a PV domain
name = "demo"          # its name
type = "pv"
kernel = "/boot/vmlinuz"
ramdisk = '/boot/initrd.img'
extra = "console=hvc0 ro"; root = "/dev/xvda1"

memory = 0x100
maxmem = 512
vcpus = 2
maxvcpus = 4
vif = [ 'mac=00:16:3e:00:00:01, bridge=xenbr0' ]
disk = [
    '/images/root.img,raw,xvda,rw',   # the root

    "format=raw, vdev=xvdb, access=ro, target=/images/data.img",
]
on_reboot = "preserve"
on_crash = 'coredump-destroy'
"""
LEAST = 'name="d"\nkernel="k"\n'


def test_a_usual_file_is_read_whole():
    config = parse_config(EXAMPLE, "demo.cfg")
    assert (config.name, config.kernel, config.ramdisk) == ("demo", "/boot/vmlinuz", Path("/boot/initrd.img"))
    assert config.command_line == "root=/dev/xvda1 console=hvc0 ro"
    assert (config.memory, config.max_memory) == (256 << 20, 512 << 20)
    assert (config.vcpus, config.max_vcpus) == (2, 4)
    assert config.disks == (
        "/images/root.img,raw,xvda,rw",
        "format=raw, vdev=xvdb, access=ro, target=/images/data.img",
    )
    actions = (config.on_poweroff, config.on_reboot, config.on_crash)
    assert actions == (ShutdownAction.DESTROY, ShutdownAction.PRESERVE, ShutdownAction.COREDUMP_DESTROY)
    assert config.ignored == ("demo.cfg:12: vif is ignored: it means nothing here",)


def test_what_a_file_does_not_say_is_as_in_xl():
    config = parse_config(LEAST, "d.cfg")
    assert (config.ramdisk, config.command_line, config.disks, config.ignored) == (None, "", (), ())
    assert (config.memory, config.max_memory, config.vcpus, config.max_vcpus) == (32 << 20, 32 << 20, 1, 1)
    actions = (config.on_poweroff, config.on_reboot, config.on_crash)
    assert actions == (ShutdownAction.DESTROY, ShutdownAction.RESTART, ShutdownAction.DESTROY)


COMMAND_LINES = {
    'root="/dev/xvda"': "root=/dev/xvda",
    'extra="quiet"': "quiet",
    'cmdline="all of it"': "all of it",
    'cmdline=""': "",
    "extra='a'\nextra+=' b'": "a b",
    "extra+='alone'": "alone",
    "extra=1": "1",
}


@pytest.mark.parametrize(("text", "line"), COMMAND_LINES.items())
def test_the_command_line_is_put_together_as_xl_does(text, line):
    assert parse_config(LEAST + text, "d.cfg").command_line == line


def test_cmdline_replaces_root_and_extra_and_says_so():
    config = parse_config(LEAST + "root='r'\nextra='e'\ncmdline='c'\n", "d.cfg")
    assert config.command_line == "c"
    assert config.ignored == (
        "d.cfg:3: root is ignored: cmdline says all",
        "d.cfg:4: extra is ignored: cmdline says all",
    )


def test_a_misspelt_key_is_told_with_what_it_may_be():
    assert parse_config(LEAST + "memmory=64\n", "d.cfg").ignored == (
        "d.cfg:3: memmory is ignored: it means nothing here (is it memory?)",
    )


def test_the_older_builder_and_an_empty_type_are_pv():
    for text in ("builder='generic'", "type='pv'", "type=''", "type='pv'\nbuilder='generic'"):
        assert parse_config(LEAST + text, "d.cfg").name == "d"


def test_maxmem_alone_is_the_memory_and_maxvcpus_alone_leaves_one():
    config = parse_config(LEAST + "maxmem=64\nmaxvcpus=3", "d.cfg")
    assert (config.memory, config.max_memory, config.vcpus, config.max_vcpus) == (64 << 20, 64 << 20, 1, 3)


VALUES = {
    "a = 1": {"a": "1"},
    "a=0x1f;b=017": {"a": "0x1f", "b": "017"},
    "a = 'x' ; ; \n;\n b = 'y'": {"a": "x", "b": "y"},
    "a = []": {"a": ()},
    "a = [1,]": {"a": ("1",)},
    "a = [ 'x' , [ 'y', 2, [] ] ,\n\n# c\n 'z'\n]": {"a": ("x", ("y", "2", ()), "z")},
    "a = 'x' # c": {"a": "x"},
    "a='1'\na='2'": {"a": "2"},
    "a=['1']\na+=['2',3]": {"a": ("1", "2", "3")},
    r"""a = "q\"q\'\\ \t\x41\101" """: {"a": "q\"q'\\ \tAA"},
    r"""a = '\a\b\f\n\r\v"' """: {"a": '\a\b\f\n\r\v"'},
    "a = 'grüße'": {"a": "grüße"},
    "": {},
    "# nothing": {},
}


@pytest.mark.parametrize(("text", "values"), VALUES.items())
def test_the_syntax(text, values):
    assert {name: setting.value for name, setting in parse_settings(text, "x").items()} == values


WRONG = {
    "name = \n": "d.cfg:1: the end of the line where a string, a number or a list is expected",
    "name\n": "d.cfg:1: the end of the line where `=` is expected",
    "\n\nname = 'x' 'y'": "d.cfg:3: \"'y'\" where the end of the line is expected",
    "= 3": "d.cfg:1: '=' where a name is expected",
    "Name = 'x'": "d.cfg:1: 'N' is unexpected",
    "a = 1.5": "d.cfg:1: '.' is unexpected",
    "a = -1": "d.cfg:1: '-' is unexpected",
    "a = 'x'\r\n": "d.cfg:1: '\\r' is unexpected",
    "import os": "d.cfg:1: 'os' where `=` is expected",
    "a = 'x\n": "d.cfg:1: a string without an end",
    "a = [ 1\n,2\n": "d.cfg:3: the end of the file where `,` or `]` is expected",
    "a = [ 1 2 ]": "d.cfg:1: '2' where `,` or `]` is expected",
    "a = [ , ]": "d.cfg:1: ',' where a string, a number or a list is expected",
    "a = 'x'\n\na += ['y']": "d.cfg:3: a += adds a list to a string, or a string to a list",
    r"a = '\q'": "d.cfg:1: the escape \\'q' is none",
    r"a = '\x4'": "d.cfg:1: the escape \\'x' is none",
    r"a = '\0'": "d.cfg:1: the escape \\0 is no character",
    r"a = '\777'": "d.cfg:1: the escape \\777 is no character",
    "a = " + "[" * 17: "d.cfg:1: lists are nested more than 16 deep",
    "a = " + "[" * 100_000: "d.cfg:1: lists are nested more than 16 deep",
    "kernel='k'": "d.cfg: there is no name",
    "name='n'": "d.cfg: there is no kernel",
    LEAST + "type='hvm'": "d.cfg:3: 'hvm' is no PV domain: only type='pv' can be run",
    LEAST + "type='pvh'": "d.cfg:3: 'pvh' is no PV domain: only type='pv' can be run",
    LEAST + "builder='hvm'": "d.cfg:3: 'hvm' is no PV domain: only builder='generic' can be run",
    LEAST + "bootloader='pygrub'": "d.cfg:3: there are no boot loaders here: name the kernel and its ramdisk instead",
    LEAST + "memory='lots'": "d.cfg:3: memory is not a number",
    LEAST + "memory=0": "d.cfg:3: memory is 0",
    LEAST + "memory=09": "d.cfg:3: memory is not a number",
    LEAST + "memory=" + "9" * 5000: "d.cfg:3: memory is too large",
    LEAST + "memory=1\nmemory+=1": "d.cfg:4: memory is a number: += is for strings and lists",
    LEAST + "memory=64\nmaxmem=32": "d.cfg:4: maxmem is 32, less than memory, 64",
    LEAST + "vcpus=2\nmaxvcpus=1": "d.cfg:4: maxvcpus is 1, less than vcpus, 2",
    LEAST + "memory=[1]": "d.cfg:3: memory is a list, not a string",
    LEAST + "disk='x'": "d.cfg:3: disk is a string, not a list of strings",
    LEAST + "disk=[['x']]": "d.cfg:3: disk has something in it that is no string",
    LEAST + "on_crash='explode'": "d.cfg:3: on_crash is none of destroy, restart, rename-restart, preserve, "
    "coredump-destroy, coredump-restart, soft-reset",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_a_mistake_is_told_with_its_line(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "d.cfg")
    assert str(caught.value) == message


def test_a_file_is_read_and_what_can_not_be_read_is_told(tmp_path):
    (tmp_path / "demo.cfg").write_text(EXAMPLE)
    assert read_config(tmp_path / "demo.cfg").name == "demo"
    (tmp_path / "latin.cfg").write_bytes(b"name='d'\nkernel='\xe9'\n")
    (tmp_path / "large.cfg").write_bytes(b"#" * (MAX_CONFIG_SIZE + 1))
    refused = {
        "none.cfg": "No such file or directory",
        "": "Is a directory",
        "latin.cfg": "not UTF-8 text",
        "large.cfg": "larger than 1024 KiB",
        "a\0b": "null byte",
    }
    for name, message in refused.items():
        with pytest.raises(ConfigError, match=message):
            read_config(tmp_path / name)


WORDS = ["name", "kernel", "memory", "disk", "type", "=", "+=", "[", "]", ",", ";", "\n", "#", "'", '"', "\\", "x", "0"]


def read_or_refused(text):
    try:
        parse_config(text, "d.cfg")
    except ConfigError as error:
        return str(error)
    return "d.cfg:"


@settings(max_examples=400, deadline=None)
@given(st.text() | st.lists(st.sampled_from(WORDS) | st.text(max_size=3)).map("".join))
@example("a='" + "\\" * 999)
def test_any_text_is_read_or_refused(text):
    line = read_or_refused(text)
    assert line.startswith("d.cfg:")
    assert "\n" not in line


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1), cut=st.integers(0, 5), put=st.sampled_from(WORDS) | st.text(max_size=3))
def test_a_changed_file_is_read_or_refused(place, cut, put):
    at = int(place * len(EXAMPLE))
    line = read_or_refused(EXAMPLE[:at] + put + EXAMPLE[at + cut :])
    assert line.startswith("d.cfg:")
    assert "\n" not in line
    assert len(line) < 300


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.cfg"
    path.write_bytes(data)
    with pytest.raises(ConfigError):  # no random bytes name a kernel
        read_config(path)
