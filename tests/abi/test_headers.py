"""Every structure, enumeration and constant of xdbg.abi is what a C compiler makes of Xen's public headers."""

import ctypes
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

import pytest

import xdbg.abi
from xdbg.abi.cenum import CEnum
from xdbg.abi.cstruct import CStruct, CUnion
from xdbg.abi.errno import Errno
from xdbg.abi.trap import TI_DPL_MASK, TI_IF
from xdbg.abi.version import XEN_COMMANDLINE_LEN, XEN_LATEST_INTERFACE_VERSION
from xdbg.abi.x86 import DEBUG_LENGTHS, DR6_DEFAULT, DR7_CONTROL_SHIFT, DR7_CONTROL_SIZE, DebugAccess, Dr6, Dr7
from xdbg.abi.xenstore import XSD_ERRORS

Evaluate = Callable[[Iterable[str]], dict[str, int]]
Layout = type[CStruct] | type[CUnion]

MODULES = [importlib.import_module(f"xdbg.abi.{info.name}") for info in pkgutil.iter_modules(xdbg.abi.__path__)]

NOT_OF_THE_HEADERS = {"dump_core", "frames", "x86", "x86_descriptors"}
"""Modules whose constants are the processor's, the tools' or our own; what else they hold is compared if the headers
have it."""

OWN_CONSTANTS = {
    "HYPERCALL_PAGE_ENTRY_SIZE",
    "MEMOP_CMD_MASK",
    "MEMOP_EXTENT_SHIFT",
    "MMU_CMD_MASK",
    "MMU_UPDATE_PREEMPTED",
    "TI_DPL_MASK",
    "TI_IF",
    "XEN_COMMANDLINE_LEN",
    "XEN_LATEST_INTERFACE_VERSION",
}
"""Constants of the other modules that have no macro."""

NOT_MEMBERS = {
    "Cr0": ("*_BIT",),
    "Cr4": ("*_BIT", "LA57", "CET", "LAM_SUP", "FRED"),
    "ElfNote": ("MAX",),
    "Errno": None,
    "GnttabOp": ("ERROR_MSGS",),
    "Gtf": ("INVALID", "PERMIT_ACCESS", "ACCEPT_TRANSFER", "TRANSITIVE", "TYPE_MASK", "TRANSFER_*"),
    "HvmOp": ("ALTP2M_*", "SET_PCI_INTX_LEVEL", "SET_ISA_IRQ_LEVEL", "SET_PCI_LINK_ROUTE", "*ET_MEM_ACCESS"),
    "Hypercall": ("VIRT_*", "DOM0_OP"),
    "PhysdevOp": ("IRQ_UNMASK_NOTIFY", "DBGP_RESET_*", "DBGP_BUS_*", "PIRQ_EOI_GMFN"),
    "Rflags": ("*_BIT",),
    "Shutdown": ("MAX",),
    "XenFeat": ("NR_SUBMAPS",),
    "XenMem": ("RESOURCE_*", "ACCESS_*", "PAGING_OP_*", "SHARING_OP_*", "FORK_*", "RDM_ALL"),
    "XsMsgType": ("TYPE_COUNT", "WRITE_*", "WATCH_PATH", "WATCH_TOKEN"),
    "XsWatchType": ("EVENT",),
}
"""Names of the headers that share a prefix with an enumeration and are none of its members; None: too many to name."""


def declared(kind: type) -> Iterator[type]:
    """The classes of a kind that the modules of xdbg.abi declare."""
    for module in MODULES:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, kind) and value.__module__ == module.__name__:
                yield value


LAYOUTS: list[Layout] = [
    layout for kind in (CStruct, CUnion) for layout in declared(kind) if layout not in {CStruct, CUnion}
]
ENUMERATIONS: list[type[CEnum]] = [enumeration for enumeration in declared(CEnum) if len(enumeration)]


def checks(layout: Layout) -> dict[str, int]:
    """C expressions and the values that they must have: size of the structure, offset, size and sign of the fields."""
    return {f"sizeof({layout.c_type})": layout.SIZE, **dict(_field_checks(layout, layout.c_type, "", 0))}


def _field_checks(layout: Layout, root: str, path: str, base: int) -> Iterator[tuple[str, int]]:
    for name, ctype in layout._fields_:
        inner = f"{path}{name.removesuffix('_')}"
        offset = base + layout.offset_of(name)
        yield f"offsetof({root}, {inner})", offset
        field = f"((({root} *)0)->{inner})"
        if ctypes.sizeof(ctype):
            yield f"sizeof{field}", ctypes.sizeof(ctype)
        if issubclass(ctype, ctypes._SimpleCData):
            yield f"IS_SIGNED{field}", int(ctype(-1).value < 0)
        elif issubclass(ctype, CStruct | CUnion):
            yield from _field_checks(ctype, root, f"{inner}.", offset)


@pytest.fixture(scope="module")
def in_c(c_values: Evaluate) -> dict[str, int]:
    """What C says to each check of each structure, from one program."""
    return c_values(expression for layout in LAYOUTS if layout.c_type for expression in checks(layout))


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.c_type], ids=lambda layout: layout.__name__)
def test_structure_has_the_layout_of_its_c_type(layout: Layout, in_c: dict[str, int]) -> None:
    expected = checks(layout)
    assert expected == {expression: in_c[expression] for expression in expected}


def test_every_structure_without_a_tag_is_part_of_one_that_has_a_tag() -> None:
    reached = set()

    def reach(layout: Layout) -> None:
        reached.add(layout)
        for _, ctype in layout._fields_:
            if issubclass(ctype, CStruct | CUnion):
                reach(ctype)

    for layout in LAYOUTS:
        if layout.c_type or layout.__module__ == "xdbg.abi.dump_core":  # declared in the tools
            reach(layout)
    assert [layout for layout in LAYOUTS if layout not in reached] == []


def c_capitals(member: str) -> str:
    """What follows the prefix in the C name of a member, in capitals."""
    return f"4{member.removeprefix('FOUR_')}" if member.startswith("FOUR_") else member


def c_spellings(enumeration: type[CEnum], member: str, c_names: dict[str, list[str]]) -> list[str]:
    """The names in C of a member: often one, sometimes the same in two spellings."""
    return c_names.get(f"{enumeration.c_prefix}{c_capitals(member)}".upper(), [])


@pytest.mark.parametrize(
    "enumeration", [each for each in ENUMERATIONS if each.c_prefix], ids=lambda enumeration: enumeration.__name__
)
def test_enumeration_has_the_values_of_its_c_names(
    enumeration: type[CEnum], c_names: dict[str, list[str]], c_values: Evaluate
) -> None:
    spellings = {name: c_spellings(enumeration, name, c_names) for name in enumeration.__members__}
    assert [name for name, found in spellings.items() if not found] == []
    values = c_values(spelling for found in spellings.values() for spelling in found)
    for name, found in spellings.items():
        expected = enumeration[name].value % 2**64
        assert [(spelling, values[spelling]) for spelling in found] == [(spelling, expected) for spelling in found]


@pytest.fixture(scope="module")
def _headers_are_ours(c_values: Evaluate) -> None:
    """Newer headers may have names that no declaration can know; what is declared is compared all the same."""
    (version,) = c_values(["__XEN_LATEST_INTERFACE_VERSION__"]).values()
    if version > XEN_LATEST_INTERFACE_VERSION:
        pytest.skip(f"the headers have interface {version:#x}, newer than the declarations")


@pytest.mark.usefixtures("_headers_are_ours")
@pytest.mark.parametrize(
    "enumeration",
    [each for each in ENUMERATIONS if each.c_prefix and NOT_MEMBERS.get(each.__name__, ()) is not None],
    ids=lambda enumeration: enumeration.__name__,
)
def test_enumeration_lacks_no_name_of_the_headers(enumeration: type[CEnum], c_names: dict[str, list[str]]) -> None:
    patterns = NOT_MEMBERS.get(enumeration.__name__, ())
    members = {c_capitals(name) for name in enumeration.__members__}
    prefix = enumeration.c_prefix.upper()
    rest = {name.removeprefix(prefix) for name in c_names if name.startswith(prefix)}
    lacking = {name for name in rest - members if not any(_matches(name, pattern) for pattern in patterns)}
    assert lacking == set()


def _matches(name: str, pattern: str) -> bool:
    """A pattern is a name, or the beginning or the end of one with a star for the rest."""
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


@pytest.mark.usefixtures("_headers_are_ours")
def test_every_error_number_of_xen_is_known(c_names: dict[str, list[str]]) -> None:
    names = {name.removeprefix("XEN_") for name in c_names if name.startswith("XEN_E")}
    no_errors = {name for name in names if name.startswith(("EFI_", "ELFNOTE", "EMULATE", "ERRNO", "EXTRAVERSION"))}
    assert names - no_errors == set(Errno.__members__)


def constants(module: ModuleType) -> dict[str, int]:
    """The integers that a module itself defines, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, int)
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_constants_have_the_values_of_their_macros(
    module: ModuleType, c_names: dict[str, list[str]], c_values: Evaluate
) -> None:
    expected = {name: value for name, value in constants(module).items() if name in c_names}
    values = c_values(c_names[name][0] for name in expected)
    assert {name: values[c_names[name][0]] for name in expected} == expected
    if module.__name__.rpartition(".")[2] not in NOT_OF_THE_HEADERS:
        assert set(constants(module)) - set(expected) <= OWN_CONSTANTS


def test_selectors_and_xens_addresses_are_compared_with_macros(c_names: dict[str, list[str]]) -> None:
    x86 = importlib.import_module("xdbg.abi.x86")
    of_xen = {name for name in constants(x86) if name.startswith(("FLAT_", "FIRST_RESERVED", "HYPERVISOR_", "MACH2"))}
    assert len(of_xen) == 32
    assert of_xen <= set(c_names)


def test_trap_flags_are_what_xens_macros_read(c_values: Evaluate) -> None:
    dpl, events = (f"({{ struct trap_info t = {{ .flags = 0xff }}; TI_GET_{what}(&t); }})" for what in ("DPL", "IF"))
    assert c_values([dpl, events]) == {dpl: TI_DPL_MASK, events: TI_IF}


def test_command_line_of_xen_has_the_length_of_its_type(c_values: Evaluate) -> None:
    assert c_values(["sizeof(xen_commandline_t)"]) == {"sizeof(xen_commandline_t)": XEN_COMMANDLINE_LEN}


def test_emulation_prefix_has_the_bytes_of_the_header(c_values: Evaluate) -> None:
    x86 = importlib.import_module("xdbg.abi.x86")
    text = ".byte " + ",".join(f"{byte:#04x}" for byte in x86.XEN_EMULATE_PREFIX) + " ; "
    compare = f'strcmp(XEN_EMULATE_PREFIX, "{text}")'
    assert c_values([compare]) == {compare: 0}


def test_xenstore_errors_are_the_headers_table_in_its_order(c_values: Evaluate) -> None:
    expected = {"sizeof(xsd_errors) / sizeof(*xsd_errors)": len(XSD_ERRORS)}
    for index, error in enumerate(XSD_ERRORS):
        expected[f'strcmp(xsd_errors[{index}].errstring, "{error.name}")'] = 0
        expected[f"xsd_errors[{index}].errnum"] = error
    assert c_values(expected) == expected


def test_debug_registers_agree_with_linux(c_values: Evaluate) -> None:
    expected = {
        "DR6_RESERVED": DR6_DEFAULT,
        "DR_TRAP0": Dr6.B0,
        "DR_TRAP1": Dr6.B1,
        "DR_TRAP2": Dr6.B2,
        "DR_TRAP3": Dr6.B3,
        "DR_STEP": Dr6.BS,
        "DR_SWITCH": Dr6.BT,
        "DR_LOCAL_ENABLE_MASK": Dr7.L0 | Dr7.L1 | Dr7.L2 | Dr7.L3,
        "DR_GLOBAL_ENABLE_MASK": Dr7.G0 | Dr7.G1 | Dr7.G2 | Dr7.G3,
        "DR_LOCAL_SLOWDOWN": Dr7.LE,
        "DR_GLOBAL_SLOWDOWN": Dr7.GE,
        "DR_CONTROL_SHIFT": DR7_CONTROL_SHIFT,
        "DR_CONTROL_SIZE": DR7_CONTROL_SIZE,
        "DR_RW_EXECUTE": DebugAccess.EXECUTE,
        "DR_RW_WRITE": DebugAccess.WRITE,
        "DR_RW_READ": DebugAccess.READ_WRITE,
    }
    expected |= {f"DR_LEN_{length} >> 2": DEBUG_LENGTHS.index(length) for length in DEBUG_LENGTHS}
    assert c_values(expected) == expected
