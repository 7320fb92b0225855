"""The layers of the package: imports go down only, and each library has one place."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "xdbg"

LAYERS = {
    "abi": 0,
    "rsp": 1,
    "machine": 1,
    "xen": 2,
    "guestos": 3,
    "timeline": 4,
    "trace": 4,
    "debug": 5,
    "session": 6,
    "cli": 7,
    "testing": 8,
    "gdbscripts": 0,
}
OWNERS = {
    "unicorn": {"machine"},
    "capstone": {"machine", "trace", "debug"},
    "click": {"cli"},
    "socket": {"session"},
    "selectors": {"session"},
    "select": {"session"},
    "signal": {"session"},
    "pygdbmi": {"testing"},
    "gdb": {"gdbscripts"},
    "random": set(),
    "secrets": set(),
    "uuid": set(),
}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)


def imports(path: Path):
    """(layer or library, the whole dotted name) of everything that a module imports, wherever in it."""
    package = ("xdbg", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, *([node.module] if node.module else [])))
            names = [f"{name}.{alias.name}" for alias in node.names] if name == "xdbg" else [name]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield (parts[1] if parts[0] == "xdbg" and len(parts) > 1 else parts[0]), name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    layer = path.relative_to(ROOT).parts[0]
    for target, name in imports(path):
        if name.startswith("xdbg") and target in LAYERS and target != layer:
            assert LAYERS[target] < LAYERS[layer], f"{layer} imports {name}"
            assert target != "gdbscripts", f"{layer} imports {name}"
            assert layer not in ("rsp", "gdbscripts"), f"{layer} imports {name}"
            assert (layer, target) != ("guestos", "xen"), f"guestos imports {name}"
            assert layer != "machine" or target == "abi", f"machine imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_library_has_one_place(path):
    layer = path.relative_to(ROOT).parts[0]
    for target, name in imports(path):
        assert layer in OWNERS.get(target, {layer}), f"{layer} imports {name}"


def test_every_folder_of_the_package_is_a_layer():
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} <= LAYERS.keys()
