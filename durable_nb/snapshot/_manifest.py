"""What one checkpoint holds of names and process state: written by `save`, read by `load`.

A manifest is a dict of JSON values and `bytes`. Blobs are written first; the manifest names them.

* `groups`: per group its names, one pickle *segment* per name (all with one memo, so that a second name for a stored
  object costs a few bytes), its out-of-band buffers, and the versions. A group that cannot be stored has no segments.
  `data` is there when its bytes mean the same at any later moment of a session: nothing in them refers to code of the
  notebook or to a live object. It lists the modules of their classes. Such a group may wait (`Promise`).
* `definitions`: by id, a copy by value of each notebook class and function that the segments refer to.
* `sources`: the text of the cells that their code comes from.
* `deleted`: names that the cell unbound. `process`: see `ProcessState`. `problems`: why a group is not stored.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from durable_nb.abc import BlobStore
from durable_nb.exceptions import NotStorableError, StoreError
from durable_nb.snapshot import _buffers
from durable_nb.snapshot._blobs import TREE_FROM, address_of
from durable_nb.snapshot._check import check_round_trip
from durable_nb.snapshot._deep import deeply
from durable_nb.snapshot._definitions import Definitions
from durable_nb.snapshot._groups import Group, Version
from durable_nb.snapshot._pickle import PROTOCOL, GroupPickler
from durable_nb.snapshot._process import ProcessState
from durable_nb.snapshot._promises import Promise
from durable_nb.snapshot._scan import Problem, unnoticed
from durable_nb.snapshot._tracker import Delta, Tracker
from durable_nb.snapshot._unpickle import GroupUnpickler

FORMAT = 1

IN_BAND_BELOW = 4096
"""Bytes. A smaller buffer stays inside the pickle."""


class _Parts:
    """A file that keeps what is written, without joining or copying large writes."""

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.nbytes = 0

    def write(self, data: Any) -> int:
        size = len(data)
        self.parts.append(data if size > 1 << 16 else bytes(data))
        self.nbytes += size
        return size

    def take(self) -> tuple[list[Any], int]:
        parts, size = self.parts, self.nbytes
        self.parts, self.nbytes = [], 0
        return parts, size


class _Writer:
    def __init__(self, blobs: BlobStore, inline_limit: int) -> None:
        self.blobs = blobs
        self.inline_limit = inline_limit
        self.used: dict[str, None] = {}
        self.nbytes = 0

    def keep(self, parts: list[Any], size: int) -> dict[str, Any]:
        """A reference to bytes: inline when small, else a blob."""
        if size <= self.inline_limit:
            self.nbytes += size
            return {"inline": b"".join(parts)}
        known = size < TREE_FROM and self.blobs.has(address_of(parts))
        address = self.blobs.put(parts)
        self.nbytes += 0 if known else size
        self.used[address] = None
        return {"blob": address, "size": size}

    def keep_text(self, text: str) -> dict[str, Any]:
        data = text.encode("utf-8", "surrogatepass")
        return self.keep([data], len(data))


def save(delta: Delta, blobs: BlobStore, *, inline_limit: int = 32 * 1024) -> dict[str, Any]:
    """Write what a cell changed; returns the manifest.

    Must be called right after `Tracker.after`, before anything can change the values again. A value that cannot be
    stored is no error: its group has no segments and `problems` says why.
    """
    writer = _Writer(blobs, inline_limit)
    definitions: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    groups, problems = [], []
    for group in delta.groups:
        entry: dict[str, Any] = {
            "names": list(group.names),
            "versions": {name: _version_out(delta.changed[name]) for name in group.names},
        }
        found = _save_group(group, delta.tracker, writer, definitions, sources, entry)
        problems += found
        groups.append(entry)
    return {
        "format": FORMAT,
        "groups": groups,
        "definitions": definitions,
        "sources": {name: writer.keep_text(text) for name, text in sources.items()},
        "deleted": list(delta.deleted),
        "process": delta.process,
        "problems": [_problem_out(problem) for problem in problems],
        "blobs": list(writer.used),
        "nbytes": writer.nbytes,
    }


def _save_group(
    group: Group,
    tracker: Tracker,
    writer: _Writer,
    definitions: dict[str, Any],
    sources: dict[str, str],
    entry: dict[str, Any],
) -> list[Problem]:
    problems = list(group.problems)
    if group.scan is not None and group.scan.is_atom:
        _write_plain(tracker.value(group.names[0]), writer, entry)
        return []
    if not problems:
        problems = check_round_trip(group, tracker)
    if not problems:
        try:
            with unnoticed():
                _write_group(group, tracker, writer, definitions, sources, entry)
        except (StoreError, MemoryError, OSError):
            raise
        except Exception as exc:  # noqa: BLE001 - a reducer that works only sometimes is a property of the value
            why = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
            name = group.names[0]
            kind = type(tracker.value(name))
            problems = [Problem(name, f"{kind.__module__}.{kind.__qualname__}", name, why)]
    if problems:
        entry.pop("segments", None)
        entry.pop("buffers", None)
    return problems


def _write_group(
    group: Group,
    tracker: Tracker,
    writer: _Writer,
    definitions: dict[str, Any],
    sources: dict[str, str],
    entry: dict[str, Any],
) -> None:
    scan = group.scan
    assert scan is not None
    if scan.plain is not None:
        return _write_plain(tracker.value(group.names[0]), writer, entry)
    file, buffers = _Parts(), _buffers.Collector(IN_BAND_BELOW)
    pickler = GroupPickler(file, tracker.definitions, buffer_callback=buffers.take, shared=scan.shared, strict=True)
    segments = []
    for name in group.names:
        value = tracker.value(name)
        pickler.current = value
        try:
            pickler.dump(value)
        except RecursionError:
            # The memo of a broken pass is of no use: start again, on a larger stack.
            return deeply(lambda: _write_deep(group, tracker, writer, definitions, sources, entry))
        segments.append(writer.keep(*file.take()))
    _finish_group(pickler, buffers, segments, group, tracker, writer, definitions, sources, entry)
    return None


def _write_plain(value: Any, writer: _Writer, entry: dict[str, Any]) -> None:
    file = _Parts()
    try:
        pickle.Pickler(file, PROTOCOL).dump(value)
    except RecursionError:
        file = _Parts()
        deeply(lambda: pickle.Pickler(file, PROTOCOL).dump(value))
    entry["segments"] = [writer.keep(*file.take())]
    entry["data"] = []
    entry["buffers"] = []


def _write_deep(
    group: Group,
    tracker: Tracker,
    writer: _Writer,
    definitions: dict[str, Any],
    sources: dict[str, str],
    entry: dict[str, Any],
) -> None:
    scan = group.scan
    assert scan is not None
    file, buffers = _Parts(), _buffers.Collector(IN_BAND_BELOW)
    pickler = GroupPickler(file, tracker.definitions, buffer_callback=buffers.take, shared=scan.shared, strict=True)
    segments = []
    for name in group.names:
        pickler.current = tracker.value(name)
        pickler.dump(pickler.current)
        segments.append(writer.keep(*file.take()))
    _finish_group(pickler, buffers, segments, group, tracker, writer, definitions, sources, entry)


def _finish_group(
    pickler: GroupPickler,
    buffers: _buffers.Collector,
    segments: list[dict[str, Any]],
    group: Group,
    tracker: Tracker,
    writer: _Writer,
    definitions: dict[str, Any],
    sources: dict[str, str],
    entry: dict[str, Any],
) -> None:
    copies = copies_of(pickler.definition_ids, tracker.definitions)
    for name, copy in copies.items():
        if name not in definitions:
            definitions[name] = {"name": copy.label, "segment": writer.keep([copy.data], len(copy.data))}
            sources.update(copy.sources)
    sources.update(pickler.sources)
    entry["segments"] = segments
    if pickler.is_data:
        entry["data"] = sorted(pickler.origins)
    chunks = None if group.scan is None else group.scan.chunks
    entry["buffers"] = [tracker.buffers.store(buffer, writer, chunks) for buffer in buffers.found]


class Copy:
    """A definition by value."""

    __slots__ = ("data", "ids", "label", "sources")

    def __init__(self, label: str, data: bytes, sources: dict[str, str], ids: dict[str, Any]) -> None:
        self.label, self.data, self.sources, self.ids = label, data, sources, ids


def copies_of(wanted: Mapping[str, Any], definitions: Definitions) -> dict[str, Copy]:
    """Copies of definitions and of those they need. A definition never changes, so each is made once."""
    found: dict[str, Copy] = {}
    queue = dict(wanted)
    while queue:
        name, value = queue.popitem()
        copy = definitions.copies.get(name)
        if copy is None:
            file = _Parts()
            pickler = GroupPickler(file, definitions, buffer_callback=None, shared=frozenset(), root=value, strict=True)
            pickler.dump(value)
            label = f"{value.__module__}.{value.__qualname__}"
            copy = Copy(label, b"".join(file.take()[0]), pickler.sources, dict(pickler.definition_ids))
            definitions.copies[name] = copy
        found[name] = copy
        queue.update((other, item) for other, item in copy.ids.items() if other not in found)
    return found


def load(
    manifest: Mapping[str, Any],
    tracker: Tracker,
    blobs: BlobStore,
    names: Iterable[str] | None = None,
    *,
    may_wait: Callable[[Mapping[str, Any]], bool] | None = None,
    on_failure: Callable[[str, Exception], Exception] | None = None,
) -> tuple[str, ...]:
    """Bind what a manifest holds; whole groups, all or (with `names`) those that contain one of the names.

    The caller has verified the manifest's signature: unpickling runs code. Returns what could not be restored of the
    process state, in words.

    Args:
        manifest: as `save` made it.
        tracker: of the namespace.
        blobs: where the large bytes are.
        names: see above.
        may_wait: tells which groups are only promised: their names get their versions now, and their values when
            `Tracker.materialise` is asked for one of them. None loads all.
        on_failure: makes of a name and what its bytes raised the error that `Tracker.materialise` raises.

    Raises:
        NotStorableError: a wanted name is not in the manifest's bytes.
        StoreError: a blob is missing or damaged. No name was bound then.
    """
    if manifest["format"] != FORMAT:
        raise StoreError(f"manifest format {manifest['format']}, this durable_nb reads {FORMAT}")
    wanted = None if names is None else set(names)
    ready: list[tuple[Mapping[str, Any], dict[str, Any] | None]] = []
    reader = _Reader(manifest, blobs)
    for group in manifest["groups"]:
        if wanted is not None and wanted.isdisjoint(group["names"]):
            continue
        if group.get("segments") is None:
            problem = next((one for one in manifest["problems"] if one["name"] in group["names"]), None)
            first = group["names"][0]
            facts = problem or {"name": first, "type": "", "path": first, "why": "it was not stored"}
            raise NotStorableError(facts["name"], facts["type"], facts["path"], facts["why"])
        waits = may_wait is not None and "data" in group and may_wait(group)
        ready.append((group, None if waits else reader.group(group, tracker)))
    deleted = [name for name in manifest["deleted"] if wanted is None]
    for name in deleted:
        tracker.unbind(name)
    for group, values in ready:
        versions = {name: version_in(version) for name, version in group["versions"].items()}
        if values is None:
            tracker.promise(Promise(tuple(group["names"]), _fetcher(reader, group, tracker, on_failure)), versions)
            continue
        for name, value in values.items():
            tracker.bind(name, value)
        tracker.replaced(group["names"], versions, ())
    tracker.replaced((), {}, deleted)
    return ProcessState.restore(manifest["process"]) if wanted is None else ()


def group_values(
    manifest: Mapping[str, Any], group: Mapping[str, Any], tracker: Tracker, blobs: BlobStore
) -> dict[str, Any]:
    """Name to value of one group of a manifest; nothing is bound."""
    reader = _Reader(manifest, blobs)
    return _quietly(lambda: reader.group(group, tracker))


def _quietly(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Load without warnings: a later cell may have chosen to have them as errors."""
    try:
        with unnoticed():
            return make()
    except Warning:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()


def _fetcher(
    reader: _Reader,
    group: Mapping[str, Any],
    tracker: Tracker,
    on_failure: Callable[[str, Exception], Exception] | None,
) -> Callable[[], dict[str, Any]]:
    def fetch() -> dict[str, Any]:
        try:
            return _quietly(lambda: reader.group(group, tracker))
        except Exception as exc:
            if on_failure is None:
                raise
            raise on_failure(group["names"][0], exc) from exc

    return fetch


class _Reader:
    def __init__(self, manifest: Mapping[str, Any], blobs: BlobStore) -> None:
        self.manifest = manifest
        self.blobs = blobs

    def bytes_of(self, reference: Mapping[str, Any]) -> bytes:
        inline = reference.get("inline")
        return inline if inline is not None else self.blobs.get(reference["blob"])

    def group(self, group: Mapping[str, Any], tracker: Tracker) -> dict[str, Any]:
        """Name to value, with one memo for all segments."""
        stream = _Segments(self.bytes_of(reference) for reference in group["segments"])
        loader = GroupUnpickler(stream, tracker, self, self._mapped(group["buffers"], tracker))
        return {name: loader.load() for name in group["names"] if stream.advance()}

    def _mapped(self, references: Iterable[Mapping[str, Any]], tracker: Tracker) -> Iterator[Any]:
        for reference in references:
            memory = _buffers.fetch(reference, self.blobs)
            tracker.buffers.learn(reference, self.bytes_of)
            yield memory

    def definition(self, name: str, tracker: Tracker) -> Any:
        """Build a definition from its copy."""
        entry = self.manifest["definitions"].get(name)
        if entry is None:
            raise pickle.UnpicklingError(f"the checkpoint has no copy of the definition {name}")
        stream = _Segments([self.bytes_of(entry["segment"])])
        stream.advance()
        return GroupUnpickler(stream, tracker, self, ()).load()

    def source(self, name: str) -> str:
        return self.bytes_of(self.manifest["sources"][name]).decode("utf-8", "surrogatepass")


class _Segments:
    """A file over one segment after the other: each `load` reads its own and no more."""

    def __init__(self, segments: Iterable[bytes]) -> None:
        self._segments = iter(segments)
        self._data = b""
        self._at = 0

    def advance(self) -> bool:
        self._data, self._at = next(self._segments), 0
        return True

    def read(self, size: int) -> bytes:
        start, self._at = self._at, min(len(self._data), self._at + size)
        return self._data[start : self._at]

    def readline(self) -> bytes:
        end = self._data.find(b"\n", self._at) + 1
        start, self._at = self._at, end or len(self._data)
        return self._data[start : self._at]

    def readinto(self, target: Any) -> int:
        view = memoryview(target)
        size = min(view.nbytes, len(self._data) - self._at)
        view[:size] = self._data[self._at : self._at + size]
        self._at += size
        return size


def _version_out(version: Version) -> list[Any]:
    return [version.text, version.exact, version.kind, version.producer]


def version_in(stored: Iterable[Any]) -> Version:
    """A version as a manifest keeps it."""
    return Version(*stored)


def _problem_out(problem: Problem) -> dict[str, Any]:
    return {
        "name": problem.name,
        "type": problem.type_name,
        "path": problem.path,
        "why": problem.why,
        "changes_when_touched": problem.changes_when_touched,
    }


def blobs_needed(group: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The blobs that hold the values of a group, and their sizes; not what only speeds a later save up."""
    for reference in (*group["segments"], *group["buffers"]):
        if "blob" in reference:
            yield reference["blob"], reference["size"]
        for patch in reference.get("patches", ()):
            yield patch["blob"], -1
