"""JSON from strangers, read member by member, so that what is wrong is met before all is parsed.

Parsed whole, a header of 25 MB can take 600 MB and seconds: two bytes of JSON make an object of
64. Read this way it costs its own bytes and what its reader keeps. The rules are `strict_json`'s.
"""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_start
from tensorsurgeon.errors import shortened

STRING_LIMIT = 5_000_000
"""Longest string read, in bytes; one character beyond the BMP makes each of them take four."""

NAME_SHOWN = 300
"""Most characters of a name in an error; honest ones have half as many."""

# Possessive, so that a string of megabytes is passed once and without memory.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SPACE = re.compile(rb"[ \t\n\r]*+")
_CUT_CHARACTER = 3
"""Most bytes of a UTF-8 character that a cut can leave."""


class Scanner:
    """A place in a JSON text that moves on as it is read. Every error says at which byte.

    Args:
        data: the text, UTF-8.
        start: which byte of its file the text begins at.
    """

    def __init__(self, data: bytes, *, start: int = 0) -> None:
        self._data, self._start, self._at = data, start, 0
        self._move_to(0)

    @property
    def place(self) -> int:
        """The byte of the file that comes next; never a space."""
        return self._start + self._at

    def members(self, limit: int) -> Iterator[str]:
        """The names of an object's members; read a member's value before asking for the next.

        Args:
            limit: most members.

        Raises:
            StrictJSONError: no object, a name twice, or more than `limit` members.
        """
        if not self._take(b"{"):
            self.fail("an object is expected")
        seen: set[str] = set()
        done = self._take(b"}")
        while not done:
            place = self.place
            name = self.string()
            if name in seen:
                self.fail(f"duplicate key '{shortened(name, NAME_SHOWN)}'", place)
            if len(seen) == limit:
                self.fail(f"more than {limit} members", place)
            seen.add(name)
            if not self._take(b":"):
                self.fail("not JSON: ':' is expected")
            yield name
            done = self._take(b"}")
            if not done and not self._take(b","):
                self.fail("not JSON: ',' or '}' is expected")

    def string(self) -> str:
        """The string that comes next."""
        place = self.place
        found = _STRING.match(self._data, self._at)
        if not found:
            self.fail("not JSON: a string is expected")
        if found.end() - found.start() > STRING_LIMIT:
            self.fail(f"a string longer than {STRING_LIMIT} bytes")
        try:
            value, _ = parse_start(found.group().decode())
        except UnicodeDecodeError as error:
            self.fail("not UTF-8", place + error.start)
        except StrictJSONError as problem:
            self.fail(str(problem))
        self._move_to(found.end())
        assert isinstance(value, str)
        return value

    def value(self, limit: int) -> Any:
        """The value that comes next, whatever it is.

        Args:
            limit: most bytes it may take.
        """
        place = self.place
        piece = self._data[self._at : self._at + limit]
        cut = self._at + limit < len(self._data)
        bad = None
        try:
            text = piece.decode()
        except UnicodeDecodeError as error:
            # What is no UTF-8 may be a character that was cut here, or come after the value.
            bad, text = error.start, piece[: error.start].decode()
        try:
            value, end = parse_start(text)
        except StrictJSONError as problem:
            if bad is not None and (not cut or bad < len(piece) - _CUT_CHARACTER):
                self.fail("not UTF-8", place + bad)
            within = f", within the {limit} bytes that a value may take here" if cut else ""
            self.fail(f"{problem}{within},")
        self._move_to(self._at + (end if text.isascii() else len(text[:end].encode())))
        return value

    def end(self) -> None:
        """Check that nothing but spaces follows."""
        if self._at < len(self._data):
            self.fail("not JSON: something follows it")

    def fail(self, rule: str, place: int | None = None) -> NoReturn:
        """Refuse the text for what stands at a byte of the file, or at the next one."""
        raise StrictJSONError(f"{rule} at byte {self.place if place is None else place}")

    def comes(self, token: bytes) -> bool:
        """Whether this is what comes next."""
        return self._data.startswith(token, self._at)

    def _take(self, token: bytes) -> bool:
        if self._data.startswith(token, self._at):
            self._move_to(self._at + len(token))
            return True
        return False

    def _move_to(self, at: int) -> None:
        if self._data[at : at + 1].isspace():
            found = _SPACE.match(self._data, at)
            assert found is not None
            at = found.end()
        self._at = at
