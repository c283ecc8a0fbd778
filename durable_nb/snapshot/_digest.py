"""The content version of values: equal content gives equal digests, in any process, however the value was made.

Theory. A value is written to a hash as a prefix code: every token says its type and length, so that no two different
values write the same bytes. Mutable objects are numbered as they are met and a second meeting writes the number: this
is the alias structure, and it ends cycles. Immutable objects are written out each time, because whether two equal
tuples are one object is an accident. Sets are written as the sorted digests of their members.

What is not known to be canonical raises `NotCanonical`, and the version falls back to lineage: guessing "equal" would
give a stale value, guessing "different" only an extra run.

Memory that several arrays share (the scan counts them) is written once, as bytes, and each array as its place in it;
an array that is alone is written as values, so that `big[:3]` equals the three numbers it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import xxhash

from durable_nb._ident import ident
from durable_nb.snapshot._deep import deeply
from durable_nb.snapshot._kinds import Kind, full_name, kind_of_type

_BUDGET = 50_000_000
"""Values written before giving up: tuples that share tuples can be exponentially larger than they look."""

_FLUSH = 1 << 16

_REMEMBERED = 1024
"""Combinations of keys."""

_TEXTS = frozenset({str})


class NotCanonical(Exception):  # noqa: N818 - a fact about a value, which no user sees as an exception
    """This value has no canonical content; the argument says which type."""


Refer = Callable[[Any], str]
"""Names a class or function that the value refers to; empty for a function that is to be written out."""


def hash_bytes(data: Any) -> str:
    """32 hexadecimal digits of XXH3-128."""
    return xxhash.xxh3_128_hexdigest(data)


def digest_text(*parts: str) -> str:
    """A digest of strings, unambiguous about where one ends."""
    hasher = xxhash.xxh3_128()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(b"%d:" % len(data))
        hasher.update(data)
    return hasher.hexdigest()


def by_reference(value: Any) -> str:
    """The default for classes and functions: their importable name."""
    return f"{value.__module__}.{value.__qualname__}"


def content_digest(
    values: Iterable[tuple[str, Any]],
    *,
    refer: Refer = by_reference,
    shared: frozenset[int] = frozenset(),
    known: dict[tuple[int, int], bytes] | None = None,
) -> str | None:
    """The digest of a group of named values, or None when it has no canonical content.

    Args:
        values: names and values, in an order that does not depend on the process.
        refer: how classes and functions of the notebook are named.
        shared: ids of memory owners that more than one array of the group uses.
        known: XXH3 digests of memory, by address and size, that the caller computed just now.
    """
    pairs = list(values)

    def attempt() -> str:
        encoder = Encoder(refer, shared, known)
        for name, value in pairs:
            encoder.text(name)
            encoder.encode(value)
        return encoder.hexdigest()

    try:
        try:
            return attempt()
        except RecursionError:
            return deeply(attempt)
    except (NotCanonical, RecursionError):
        return None


def token(tag: bytes, size: int, data: Any) -> bytes:
    """A tag, a length, bytes."""
    made: bytes = tag + size.to_bytes(8, "little") + data
    return made


class Encoder:
    """Writes values into one hash."""

    def __init__(
        self,
        refer: Refer = by_reference,
        shared: frozenset[int] = frozenset(),
        known: dict[tuple[int, int], bytes] | None = None,
    ) -> None:
        self._hash = xxhash.xxh3_128()
        self._pending = bytearray()
        self._seen: dict[int, int] = {}
        self._keep: list[Any] = []
        self.blocks: dict[int, int] = {}
        """Owners of memory by id, in the order in which views led to them."""
        self.refer = refer
        self.shared = shared
        self.known = {} if known is None else known
        self._left = _BUDGET
        self._keys: dict[tuple[str, ...], bytes] = {}

    # --- tokens ----------------------------------------------------------------------------------------------

    def raw(self, data: bytes | bytearray) -> None:
        self._pending += data
        if len(self._pending) > _FLUSH:
            self._hash.update(bytes(self._pending))
            self._pending.clear()

    def block(self, tag: bytes, data: Any) -> None:
        """A tag, a length, bytes; `data` may be any flat buffer."""
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        if size <= _FLUSH:
            self.raw(token(tag, size, data))
            return
        self._pending += tag + size.to_bytes(8, "little")
        self._hash.update(bytes(self._pending))
        self._pending.clear()
        self._hash.update(data)

    def text(self, text: str) -> None:
        self.block(b"s", text.encode("utf-8", "surrogatepass"))

    def count(self, tag: bytes, number: int) -> None:
        self.raw(tag + number.to_bytes(8, "little"))

    def hexdigest(self) -> str:
        self._hash.update(bytes(self._pending))
        self._pending.clear()
        return self._hash.hexdigest()

    def met(self, value: Any) -> bool:
        """Number a mutable object; True (and written as its number) when it was met before."""
        number = self._seen.get(ident(value))
        if number is not None:
            self.count(b"@", number)
            return True
        self._seen[ident(value)] = len(self._seen)
        self._keep.append(value)
        return False

    # --- values ----------------------------------------------------------------------------------------------

    def encode(self, value: Any) -> None:
        kind = type(value)
        write = EXACT.get(kind)
        if write is not None:
            write(self, value)
            return
        write = _by_base(kind)
        if write is None:
            raise NotCanonical(full_name(kind))
        write(self, value)

    def sequence(self, items: Sequence[Any]) -> None:
        """Length and members; a run of one plain type is written in bulk."""
        size = len(items)
        self._left -= size
        if self._left < 0:
            raise NotCanonical("too large")
        if size > 8:
            kinds = set(map(type, items))
            if len(kinds) == 1:
                bulk = BULK.get(kinds.pop())
                if bulk is not None:
                    bulk(self, items)
                    return
        self.count(b"n", size)
        rule = EXACT.get
        for item in items:
            write = rule(type(item))
            if write is None:
                self.encode(item)
            else:
                write(self, item)

    def keys(self, value: dict[Any, Any]) -> None:
        """The keys of a dict as a sequence. Records have the same few, and what these write is remembered."""
        found = tuple(value)
        if len(found) > 8 or not _TEXTS.issuperset(map(type, found)):
            self.sequence(found)
            return
        written = self._keys.get(found)
        if written is None:
            texts = [key.encode("utf-8", "surrogatepass") for key in found]
            written = b"n" + len(found).to_bytes(8, "little") + b"".join(token(b"s", len(text), text) for text in texts)
            if len(self._keys) < _REMEMBERED and len(written) < _FLUSH:
                self._keys[found] = written
        self._left -= len(found)
        self.raw(written)

    def memory_hash(self, data: memoryview, address: int) -> bytes:
        """The digest of live memory, once per block."""
        found = self.known.get((address, data.nbytes))
        if found is None:
            found = block_digest(data)
            if data.nbytes:
                self.known[address, data.nbytes] = found
        return found

    def sub_digest(self, value: Any) -> str:
        """The digest of an immutable value on its own."""
        inner = Encoder(self.refer, self.shared, self.known)
        inner._left = self._left
        inner.encode(value)
        self._left = inner._left
        return inner.hexdigest()

    def unordered(self, tag: bytes, values: Iterable[Any]) -> None:
        """A set: its members must be immutable, because order would decide which of two mutables is met first."""
        found = []
        for value in values:
            _require_immutable(value)
            found.append(self.sub_digest(value))
        found.sort()
        self.block(tag, "".join(found).encode())


def _require_immutable(value: Any) -> None:
    kind = kind_of_type(type(value))
    if kind not in (Kind.ATOM, Kind.FROZEN, Kind.ENUM_MEMBER, Kind.CLASS, Kind.FUNCTION):
        raise NotCanonical(f"{full_name(type(value))} in a set")
    if isinstance(value, (tuple, frozenset)):
        for item in value:
            _require_immutable(item)


HASH_CHUNK: Final = 1 << 20


def chunk_digests(data: memoryview) -> list[bytes]:
    """XXH3-128 of each 1 MiB: what tells changed chunks from unchanged ones."""
    return [xxhash.xxh3_128_digest(data[start : start + HASH_CHUNK]) for start in range(0, data.nbytes, HASH_CHUNK)]


def block_digest(data: memoryview) -> bytes:
    """The digest of a block of memory, by way of its chunks so that both uses cost one pass."""
    return join_digests(chunk_digests(data), data.nbytes)


def join_digests(digests: list[bytes], size: int) -> bytes:
    """The digest of a block whose chunks are known."""
    return xxhash.xxh3_128_digest(size.to_bytes(8, "little") + b"".join(digests))


Writer = Callable[["Encoder", Any], None]

EXACT: dict[type, Writer] = {}
"""How to write values of exactly this type."""

BULK: dict[type, Callable[[Encoder, Any], None]] = {}
"""How to write a sequence of values that all are of exactly this type."""

NAMED: dict[str, Writer] = {}
"""How to write values of a library type, by its full name."""

FALLBACKS: list[Callable[[type], Writer | None]] = []
"""Asked in turn about any other type."""


def register(name: str, writer: Writer) -> None:
    """Add the rule of a library type, by its full name."""
    NAMED[name] = writer


def _by_base(kind: type) -> Writer | None:
    found = NAMED.get(full_name(kind))
    for ask in FALLBACKS:
        found = found or ask(kind)
    return found
