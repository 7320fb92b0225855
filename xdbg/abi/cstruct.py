"""C structures as Python classes whose layout is checked when they are declared.

A structure is a class of annotated fields, in C's order and with C's names:

    @abi(size=16)
    class TrapInfo(CStruct):
        vector: U8
        flags: U8
        cs: U16
        address: U64

`abi` makes the ctypes layout of it and refuses the class if its size is not the one that is stated. The C name
follows from the Python name (`TrapInfo` is `struct trap_info`) and stands in `c_type`; a test compares each field
with what a C compiler says of Xen's headers. A field whose C name is a Python keyword carries an underscore at its
end (`in_`).
"""

import ctypes
import inspect
import mmap
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar, get_origin

U8 = Annotated[int, ctypes.c_uint8]
U16 = Annotated[int, ctypes.c_uint16]
U32 = Annotated[int, ctypes.c_uint32]
U64 = Annotated[int, ctypes.c_uint64]
S8 = Annotated[int, ctypes.c_int8]
S16 = Annotated[int, ctypes.c_int16]
S32 = Annotated[int, ctypes.c_int32]
S64 = Annotated[int, ctypes.c_int64]
GuestHandle = Annotated[int, ctypes.c_uint64]
"""XEN_GUEST_HANDLE(type): a virtual address in the guest that made the hypercall."""

ByteArray = ctypes.Array[ctypes.c_uint8]
"""Bytes that may hold any value; `bytes(field)` copies them."""

_SHOWN_ELEMENTS = 8


class Memory(Protocol):
    """Something with writable bytes behind it, such as the machine's RAM."""

    @property
    def buffer(self) -> mmap.mmap | memoryview | bytearray:
        """The bytes; offset 0 is maddr 0."""


class _Layout:
    """What structures and unions have in common."""

    SIZE: ClassVar[int]
    """sizeof, in bytes."""
    c_type: ClassVar[str]
    """The type in C, "struct trap_info"; empty for types that have no tag in C or are no part of a C header."""
    _fields_: ClassVar[Any]

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """A copy of the first SIZE bytes of `data`. ValueError if there are fewer."""
        return cls.from_buffer_copy(data)  # type: ignore[attr-defined,no-any-return]

    @classmethod
    def at(cls, memory: Memory, offset: int) -> Self:
        """A live view: reading and writing its fields reads and writes `memory` at byte `offset`.

        ValueError if it would reach outside. The memory cannot be closed or resized while the view exists.
        """
        return cls.from_buffer(memory.buffer, offset)  # type: ignore[attr-defined,no-any-return]

    @classmethod
    def offset_of(cls, field: str) -> int:
        """offsetof, in bytes. AttributeError if there is no such field."""
        offset: int = getattr(cls, field).offset
        return offset

    def to_bytes(self) -> bytes:
        """The SIZE bytes of it, padding included."""
        return bytes(self)  # type: ignore[call-overload,no-any-return]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and bytes(self) == bytes(other)  # type: ignore[call-overload]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_show(getattr(self, name))}" for name, *_ in self._fields_)
        return f"{type(self).__name__}({fields})"


class CStruct(_Layout, ctypes.LittleEndianStructure):
    """Base of the structures of the ABI; declare one with `@abi(size=...)`."""


class CUnion(_Layout, ctypes.Union):
    """Base of the unions of the ABI; declare one with `@abi(size=...)`."""


_L = TypeVar("_L", bound=_Layout)


def abi(*, size: int, tag: str | None = None) -> Callable[[type[_L]], type[_L]]:
    """Lays out a class of annotated fields as C does on x86-64 and gives it SIZE, `c_type` and its fields.

    `tag` is the tag in C where it does not follow from the name of the class; "" says that there is none.
    TypeError if the layout does not have `size` bytes.
    """

    def lay_out(cls: type[_L]) -> type[_L]:
        cls._fields_ = [(name, _ctype(hint)) for name, hint in inspect.get_annotations(cls).items()]
        actual = ctypes.sizeof(cls)  # type: ignore[arg-type]
        if actual != size:
            raise TypeError(f"{cls.__name__} has {actual} bytes, not the {size} of the ABI")
        cls.SIZE = size
        c_tag = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower() if tag is None else tag
        kind = "union" if issubclass(cls, CUnion) else "struct"
        cls.c_type = f"{kind} {c_tag}" if c_tag else ""
        return cls

    return lay_out


def _ctype(hint: Any) -> Any:
    """The ctypes type that an annotation stands for: what Annotated carries, or an embedded structure itself."""
    return hint.__metadata__[0] if get_origin(hint) is Annotated else hint


def _show(value: Any) -> str:
    """A field's value as a reader of a trace wants it: numbers in hex, long arrays cut."""
    if isinstance(value, int):
        return hex(value)
    if isinstance(value, ctypes.Array):
        shown = [_show(element) for element in value[:_SHOWN_ELEMENTS]]
        rest = [f"... {len(value)} in all"] if len(value) > _SHOWN_ELEMENTS else []
        return f"[{', '.join(shown + rest)}]"
    return repr(value)
