r"""The syntax of xl's configuration files: names and their values, no more. Xen: tools/libs/util, libxlu_cfg_l.l, _y.y.

    file        statements, each ended by a newline or `;`
    statement   NAME = value, or NAME += value, which appends to what NAME had before, or nothing
    value       "string" or 'string', a number, or a list: [ value, value, ... ], over as many lines as it takes
    NAME        lower-case letters, digits and `_`
    number      digits, `0x` in front for hexadecimal; it is kept as text until somebody wants a number
    # comment   to the end of the line

In both kinds of string a backslash escapes: \\ \" \' \a \b \f \n \r \t \v, \xHH and up to three octal digits. A string
ends on its line. Of two statements for one name the later counts.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_DEPTH: Final = 16
"""Lists within lists."""

Value = str | tuple["Value", ...]
"""A string or number as text, or a list."""

_TOKEN: Final = re.compile(
    r"""[ \t]*(?:
        (?P<name>[a-z][_0-9a-z]*)
      | (?P<number>[0-9][0-9a-fx]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<mark>\+=|[=,;\[\]])
      | (?P<newline>(?:\#[^\n]*)?\n)
      | (?P<end>(?:\#[^\n]*)?\Z)
    )""",
    re.VERBOSE | re.ASCII,
)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([0-7]{1,3})|([\\\"'abfnrtv])|(.))", re.ASCII)
_CONTROL: Final = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))
_MAX_SHOWN: Final = 20
_ENDS: Final = ("newline", "end", ";")


class ConfigError(Exception):
    """A configuration file can't be used; the text is one line, FILE:LINE: and what is wrong."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a file says of one name."""

    value: Value
    line: int
    """Where the value is."""
    added: bool = False
    """It was put together by `+=`."""


class _Token(NamedTuple):
    kind: str
    """`name`, `number`, `string`, `newline`, `end`, or the mark itself."""
    text: str
    line: int


def parse_settings(text: str, source: str) -> dict[str, Setting]:
    """The settings in the text of a file, by name in the order of their first lines; `source` is its name in messages.

    Raises `ConfigError`, and nothing else.
    """
    return _Parser(text, source).settings()


class _Parser:
    """Takes a text apart, a token at a time."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.at = 0
        self.line = 1
        self.token = self._next()

    def settings(self) -> dict[str, Setting]:
        """All statements of the file."""
        settings: dict[str, Setting] = {}
        while self.token.kind != "end":
            if self.token.kind in _ENDS:
                self._take()
                continue
            name = self._take("name").text
            added = self.token.kind == "+="
            self._take("+=" if added else "=")
            line = self.token.line
            value = self._value(0)
            if self.token.kind not in _ENDS:
                raise self._unexpected("the end of the line")
            if added and name in settings:
                value = self._sum(name, settings[name].value, value, line)
            settings[name] = Setting(value, line, added)
        return settings

    def _sum(self, name: str, old: Value, more: Value, line: int) -> Value:
        if isinstance(old, str) and isinstance(more, str):
            return old + more
        if isinstance(old, tuple) and isinstance(more, tuple):
            return old + more
        raise self._error(f"{name} += adds a list to a string, or a string to a list", line)

    def _value(self, depth: int) -> Value:
        token = self.token
        match token.kind:
            case "string":
                self._take()
                return self._unquoted(token)
            case "number":
                return self._take().text
            case "[":
                return self._list(depth)
            case _:
                raise self._unexpected("a string, a number or a list")

    def _list(self, depth: int) -> Value:
        if depth == MAX_DEPTH:
            raise self._error(f"lists are nested more than {MAX_DEPTH} deep", self.token.line)
        self._take("[")
        values = []
        self._skip_newlines()
        while self.token.kind != "]":
            values.append(self._value(depth + 1))
            self._skip_newlines()
            if self.token.kind != ",":
                break
            self._take()
            self._skip_newlines()
        if self.token.kind != "]":
            raise self._unexpected("`,` or `]`")
        self._take()
        return tuple(values)

    def _unquoted(self, token: _Token) -> str:
        def character(escape: re.Match[str]) -> str:
            hexadecimal, octal, plain, wrong = escape.groups()
            if wrong is not None:
                raise self._error(f"the escape \\{_shown(wrong)} is none", token.line)
            if plain is not None:
                return _CONTROL.get(plain, plain)
            code = int(hexadecimal, 16) if hexadecimal else int(octal, 8)
            if not 0 < code < 0x100:
                raise self._error(f"the escape {escape[0]} is no character", token.line)
            return chr(code)

        return _ESCAPE.sub(character, token.text[1:-1])

    def _skip_newlines(self) -> None:
        while self.token.kind == "newline":
            self._take()

    def _take(self, kind: str | None = None) -> _Token:
        """Return the token and go on to the next; another kind than is asked for is an error."""
        token = self.token
        if kind is not None and token.kind != kind:
            raise self._unexpected({"name": "a name", "=": "`=`"}.get(kind, kind))
        self.token = self._next()
        return token

    def _next(self) -> _Token:
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            rest = self.text[self.at :].lstrip(" \t").partition("\n")[0]
            what = "a string without an end" if rest[:1] in ("'", '"') else f"{_shown(rest[:1])} is unexpected"
            raise self._error(what, self.line)
        kind = found.lastgroup or ""
        text = found[kind]
        token = _Token(text if kind == "mark" else kind, text, self.line)
        self.at = found.end()
        self.line += kind == "newline"
        return token

    def _unexpected(self, wanted: str) -> ConfigError:
        token = self.token
        what = {"newline": "the end of the line", "end": "the end of the file"}.get(token.kind, _shown(token.text))
        return self._error(f"{what} where {wanted} is expected", token.line)

    def _error(self, what: str, line: int) -> ConfigError:
        return ConfigError(f"{self.source}:{line}: {what}")


def _shown(text: str) -> str:
    """A part of the file, fit for one line."""
    return ascii(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
