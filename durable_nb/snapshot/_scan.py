"""What one pass over a group found: its state, what it reaches, and what of it cannot be stored."""

from __future__ import annotations

import contextlib
import pickle
import re
import secrets
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

import xxhash

from durable_nb._dataclass import dataclass
from durable_nb._ident import ident
from durable_nb.settings import is_listed_secret
from durable_nb.snapshot import _digest, _plain
from durable_nb.snapshot._buffers import address_of_memory
from durable_nb.snapshot._counters import COUNTERS
from durable_nb.snapshot._deep import deeply
from durable_nb.snapshot._definitions import Definitions
from durable_nb.snapshot._digest import digest_text
from durable_nb.snapshot._kinds import ATOMS, Kind
from durable_nb.snapshot._paths import find_path
from durable_nb.snapshot._pickle import PROTOCOL, GroupPickler

_SHORT = 1024
"""Characters or bytes of what is an atom to a pass."""

TRACK_CHUNKS_FROM = 4 << 20
"""Bytes from which on the chunk digests of a buffer are kept, to store only chunks that changed."""


_SECRET_NAME = re.compile(
    r"(.*_)?(api_?key|secret(_?key)?|pass(word|wd|phrase)|pwd|credentials?|(access|private|signing|encryption)_?key"
    r"|(access|api|auth|bearer|bot|refresh|session|github|gh|gitlab|hf|slack|openai|aws)_?token)(_.*)?"
    r"|([A-Z0-9]+_)+(TOKEN|KEY)",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """True for variables that are called like a secret. `token` or `key` alone is what loops call their words."""
    found = _SECRET_NAME.fullmatch(name)
    if found is None:
        return False
    return name.isupper() or not re.fullmatch(r"([a-z0-9]+_)+(token|key)", name) or found[2] is not None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be stored, in words for the user."""

    name: str
    """The variable."""
    type_name: str
    """Full name of the type of the object that is in the way."""
    path: str
    """Where it is: `x['conn'].session[3]`."""
    why: str
    changes_when_touched: bool = True
    """False for handles: a cell that only reads one does not change it."""

    def __str__(self) -> str:
        return f"{self.path} ({self.type_name}): {self.why}"


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of one pass over the values of a group."""

    names: tuple[str, ...]
    state: str | None
    """Equal for an unchanged group within one process; None when only identities were collected."""
    mutables: dict[str, frozenset[int]]
    """Per name, ids of the mutable objects it reaches."""
    shadowed: dict[str, frozenset[int]]
    """Per name, ids of memory and indexes that pandas shares copy-on-write."""
    shared: frozenset[int]
    """Ids of memory owners that several arrays of the group use."""
    functions: tuple[Any, ...] = ()
    classes: tuple[type, ...] = ()
    modules: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    nbytes: int = 0
    custom: tuple[type, ...] = ()
    """Types that were reduced by their own rule: what a round trip must check."""
    known: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """Digests of memory by address and size, valid only right after the scan."""
    module_states: dict[str, str] = field(default_factory=dict)
    """States of the objects of local modules that the group refers to, by place."""
    chunks: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)
    """Of large memory, the digests of each 1 MiB; valid only right after the scan."""
    plain: str | None = None
    """The digest of the content of a large tree of plain data (empty when only identities were collected)."""
    is_atom: bool = False
    """One number or short text, which needs no rules to be stored."""

    @property
    def storable(self) -> bool:
        return not self.problems

    @property
    def changes_when_touched(self) -> bool:
        """True when part of the group is used up by use, or cannot be looked into."""
        return any(problem.changes_when_touched for problem in self.problems)


class _HashWriter:
    def __init__(self, on: bool) -> None:
        self.hash = xxhash.xxh3_128()
        self.nbytes = 0
        self.on = on

    def write(self, data: Any) -> int:
        size = len(data)
        self.nbytes += size
        if self.on:
            self.hash.update(data)
        return size


class _Scanner:
    def __init__(self, definitions: Definitions, hashing: bool, deep: bool) -> None:
        self.deep = deep
        self.writer = _HashWriter(hashing)
        self.chunks: dict[tuple[int, int], list[bytes]] = {}
        self.known: dict[tuple[int, int], bytes] = {}
        self.hashing = hashing
        self.pickler = GroupPickler(self.writer, definitions, buffer_callback=self._buffer)
        self.failures: list[tuple[str, Any, str]] = []

    def _buffer(self, buffer: pickle.PickleBuffer) -> None:
        view = buffer.raw()
        self.writer.nbytes += view.nbytes
        if not self.hashing:
            return
        chunks = _digest.chunk_digests(view)
        digest = _digest.join_digests(chunks, view.nbytes)
        self.writer.hash.update(digest)
        address = address_of_memory(view)
        if address:
            self.known[address, view.nbytes] = digest
            if view.nbytes >= TRACK_CHUNKS_FROM:
                self.chunks[address, view.nbytes] = chunks

    def dump(self, name: str, value: Any) -> None:
        pickler = self.pickler
        pickler.current = value
        self.writer.write(name.encode("utf-8", "surrogatepass") + b"\0")
        try:
            pickler.dump(value)
        except RecursionError:
            if not self.deep:
                raise
            self.failures.append((name, value, "it is nested too deeply"))
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever user code in a reducer raises is the answer to "can it be stored"
            self.failures.append((name, value, f"{str(exc).splitlines()[0] if str(exc) else type(exc).__name__}"))


@contextlib.contextmanager
def unnoticed() -> Iterator[None]:
    """What reducers and loaders warn of and count is not the user's.

    The warning filters stay untouched, since changing them shows.
    """
    shown = warnings.showwarning
    warnings.showwarning = lambda *args, **kwargs: None
    try:
        with COUNTERS.kept():
            yield
    finally:
        warnings.showwarning = shown


def scan(pairs: Sequence[tuple[str, Any]], definitions: Definitions, *, hashing: bool = True) -> Scan:
    """One pass over named values.

    Args:
        pairs: names and values, in a stable order.
        definitions: of the notebook.
        hashing: False collects identities only, and costs nothing per byte of arrays.
    """
    if len(pairs) == 1:
        name, value = pairs[0]
        found = _scan_atom(name, value) if type(value) in ATOMS else _scan_plain(name, value, definitions, hashing)
        if found is not None:
            return found
    try:
        return _scan(pairs, definitions, hashing, deep=False)
    except RecursionError:
        # From the start, with a new memo: where an ordinary stack ends depends on who calls.
        return deeply(lambda: _scan(pairs, definitions, hashing, deep=True))


def _scan_atom(name: str, value: Any) -> Scan | None:
    """The same of what most cells bind: a number or a short text; None when it is looked at in the general way."""
    if type(value) in (str, bytes) and (len(value) > _SHORT or is_secret_name(name)):
        return None
    if is_listed_secret(name):
        return None
    written = pickle.dumps(value, PROTOCOL)
    return Scan(
        names=(name,),
        state=f"atom {name} {written.hex()}",
        mutables={name: frozenset()},
        shadowed={name: frozenset()},
        shared=frozenset(),
        nbytes=len(written),
        is_atom=True,
    )


def _scan_plain(name: str, value: Any, definitions: Definitions, hashing: bool) -> Scan | None:
    """The same of plain data, without a question about each object; None when the value is something else."""
    if is_listed_secret(name):
        return None
    tree = _plain.tree(value)
    if tree is None or definitions.module_objects.holds_one_of(tree.mutables):
        return None
    content = _plain.digest(value) if hashing else ("", 0)
    if content is None:
        return None
    return Scan(
        names=(name,),
        state=digest_text("plain", name, content[0]) if hashing else None,
        mutables={name: tree.mutables},
        shadowed={name: frozenset()},
        shared=frozenset(),
        nbytes=content[1],
        plain=content[0],
    )


def _scan(pairs: Sequence[tuple[str, Any]], definitions: Definitions, hashing: bool, *, deep: bool) -> Scan:
    scanner = _Scanner(definitions, hashing, deep)
    pickler = scanner.pickler
    everything: dict[int, Any] = {}
    shadow: dict[int, Any] = {}
    reached: dict[str, set[int]] = {}
    shadowed: dict[str, set[int]] = {}
    lent: dict[str, set[int]] = {}
    keep: dict[int, Any] = {}
    weak: dict[str, list[int]] = {}
    holders: dict[str, dict[int, Any]] = {}
    weak_targets: dict[int, Any] = {}
    with unnoticed():
        for name, value in pairs:
            scanner.dump(name, value)
            reached[name], shadowed[name], lent[name] = set(pickler.seen), set(pickler.shadowed), set(pickler.lent)
            for found, kept in ((pickler.seen, everything), (pickler.shadowed, shadow)):
                for key, item in found.items():
                    kept.setdefault(key, item)
            weak[name] = [ident(target) for target in pickler.weak]
            weak_targets.update((ident(target), target) for target in pickler.weak)
            keep.update(pickler.lent)
            holders[name] = pickler.frozen
            pickler.seen, pickler.shadowed, pickler.weak, pickler.lent, pickler.frozen = {}, {}, [], {}, {}
        _add_held_again(holders, reached, shadowed, definitions)
    foreign = [(ident(entry[0]), ident(entry[1]), type(entry[1])) for entry in pickler.foreign]
    problems = _problems(pairs, scanner, weak, weak_targets, everything)
    problems += _counted_for(pairs, everything)
    functions, classes = tuple(pickler.functions.values()), tuple(pickler.classes.values())
    references = pickler.references
    tensors = frozenset(pickler.tensors)
    owners, modules, custom = pickler.owners, frozenset(pickler.modules), tuple(pickler.custom)
    held = {} if not hashing else dict(pickler.module_values)
    module_states = {place: _state_beside(place, value, definitions) for place, value in held.items()}
    scanner.writer.hash.update(repr(sorted(module_states.items())).encode())
    held.clear()
    if hashing:
        _look_beside(scanner, definitions)
    pickler.module_values.clear()
    pickler.close()
    holders.clear()
    del weak_targets, found, kept
    item = value = None
    visited = frozenset(everything)
    for key, owner in keep.items():
        everything.setdefault(key, owner)
    keep.clear()
    owner = None
    passing = _passing(everything) | _passing(shadow) | references
    del scanner.pickler, pickler
    problems += _foreign_problems(pairs, foreign, passing, reached)
    for array, owner, _ in foreign:
        for ids in reached.values():
            if array in ids and array not in passing:
                ids.add(owner)
    shared = _shared(owners, passing, visited)
    for storage in shared & tensors:
        name = next(name for name, ids in lent.items() if storage in ids)
        why = "it shares its storage with another tensor: writing to it would not reach that any more"
        problems.append(Problem(name, "torch.Tensor", name, why))
    for name, targets in weak.items():
        reached[name].update(targets, lent[name])
    return Scan(
        names=tuple(name for name, _ in pairs),
        state=_state(scanner, problems) if hashing else None,
        mutables={name: frozenset(ids - passing) for name, ids in reached.items()},
        shadowed={name: frozenset(ids - passing) for name, ids in shadowed.items()},
        shared=shared,
        functions=functions,
        classes=classes,
        modules=modules,
        problems=tuple(problems),
        nbytes=scanner.writer.nbytes,
        custom=custom,
        known=scanner.known,
        module_states=module_states,
        chunks=scanner.chunks,
    )


def _add_held_again(
    holders: dict[str, dict[int, Any]],
    reached: dict[str, set[int]],
    shadowed: dict[str, set[int]],
    definitions: Definitions,
) -> None:
    """What a name reaches through a tuple that an earlier name holds too: the pass did not go inside a second time."""
    first: dict[int, str] = {}
    known: dict[int, tuple[frozenset[int], frozenset[int]]] = {}
    everything = frozenset().union(*reached.values(), *shadowed.values())
    for name, held in holders.items():
        for key, value in held.items():
            if first.setdefault(key, name) == name:
                continue
            if key not in known:
                known[key] = _inside(value, everything, definitions)
            reached[name] |= known[key][0]
            shadowed[name] |= known[key][1] - reached[name]


def _inside(value: Any, everything: frozenset[int], definitions: Definitions) -> tuple[frozenset[int], frozenset[int]]:
    """Ids that a pass over one value meets, of those that the whole pass met."""
    pickler = GroupPickler(_HashWriter(on=False), definitions, buffer_callback=lambda buffer: None)
    pickler.current = value
    with contextlib.suppress(Exception):  # what stops the pass has been told by the whole one
        pickler.dump(value)
    found = everything.intersection(pickler.seen), everything.intersection(pickler.shadowed)
    pickler.close()
    return found


def _look_beside(scanner: _Scanner, definitions: Definitions) -> None:
    """What instances hold beside what their own pickling writes is part of the state."""
    for held in scanner.pickler.beside:
        scanner.writer.hash.update(_state_beside("", held, definitions).encode())


def _state_beside(place: str, value: Any, definitions: Definitions) -> str:
    """The content of what is not stored with the group, by a pass of its own: it makes no problem of the group's."""
    writer = _HashWriter(on=True)
    pickler = GroupPickler(writer, definitions, buffer_callback=None, modules=False)
    with unnoticed():
        try:
            pickler.dump(value)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - what cannot be looked into counts by its identity
            return f"{place}:{ident(value)}"
        finally:
            pickler.close()
    return writer.hash.hexdigest()


def _state(scanner: _Scanner, problems: list[Problem]) -> str:
    if scanner.failures:
        return secrets.token_hex(16)  # an incomplete pass proves nothing, so it equals nothing
    for problem in problems:
        scanner.writer.hash.update(str(problem).encode("utf-8", "surrogatepass"))
    return scanner.writer.hash.hexdigest()


def _passing(everything: dict[int, Any]) -> set[int]:
    """Ids of objects that only the pass refers to: made by reducers, gone when it ends.

    Parents were met before their children, so that taking them in order frees a made dict before its made values are
    looked at.
    """
    value: Any = object()
    alone = sys.getrefcount(value)
    found: set[int] = set()
    for key in list(everything):
        value = everything.pop(key)
        if sys.getrefcount(value) <= alone:
            found.add(key)
    return found


def _shared(owners: dict[int, set[int]], passing: set[int], visited: frozenset[int]) -> frozenset[int]:
    """Owners that two objects of the group use, or one beside the owner itself."""
    found = set()
    for owner, users in owners.items():
        lasting = users - passing
        if len(lasting) > 1 or (owner in visited and owner not in passing and owner not in lasting and lasting):
            found.add(owner)
    return frozenset(found)


def _problems(
    pairs: Sequence[tuple[str, Any]],
    scanner: _Scanner,
    weak: dict[str, list[int]],
    weak_targets: dict[int, Any],
    everything: dict[int, Any],
) -> list[Problem]:
    found = []
    for obstacle in scanner.pickler.obstacles.values():
        name, path = _place(pairs, obstacle.target)
        found.append(Problem(name, obstacle.type_name, path, obstacle.why, obstacle.kind is not Kind.HANDLE))
    for name, value in pairs:
        if is_listed_secret(name) or (type(value) in (str, bytes) and len(value) and is_secret_name(name)):
            why = "its name says that it is a secret, and secrets are never written"
            found.append(Problem(name, _type_name(value), name, why, changes_when_touched=False))
    for name, value, why in scanner.failures:
        found.append(Problem(name, _type_name(value), name, why))
    for name, targets in weak.items():
        for target in targets:
            if target not in everything:
                kind = _type_name(weak_targets[target])
                why = f"nothing stored with it holds its {kind}"
                found.append(Problem(name, "weakref.ReferenceType", name, why, changes_when_touched=False))
    return found


def _counted_for(pairs: Sequence[tuple[str, Any]], everything: dict[int, Any]) -> list[Problem]:
    """Objects for which a package goes on counting elsewhere: it would begin again for what is loaded."""
    found = []
    for key, (target, where) in COUNTERS.counted_for().items():
        if key in everything:
            name, path = _place(pairs, target)
            why = f"{where} counts for it, and would begin again"
            found.append(Problem(name, _type_name(target), path, why, changes_when_touched=False))
    return found


def _foreign_problems(
    pairs: Sequence[tuple[str, Any]],
    foreign: list[tuple[int, int, type]],
    passing: set[int],
    reached: dict[str, set[int]],
) -> list[Problem]:
    """Arrays in memory that something else of the group, or another array, uses as well."""
    lasting = {array: (owner, kind) for array, owner, kind in foreign if array not in passing}
    owners = [owner for owner, _ in lasting.values()]
    found = []
    for array, (owner, kind) in lasting.items():
        if owners.count(owner) > 1 or any(owner in ids for ids in reached.values()):
            name = next((name for name, ids in reached.items() if array in ids), pairs[0][0])
            why = f"it lies in the memory of a {kind.__name__} that is stored too: writing to it would not reach that"
            found.append(Problem(name, "numpy.ndarray", name, why))
    return found


def _place(pairs: Sequence[tuple[str, Any]], target: Any) -> tuple[str, str]:
    for name, value in pairs:
        path = find_path(name, value, target)
        if path != name or value is target:
            return name, path
    return pairs[0][0], pairs[0][0]


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
