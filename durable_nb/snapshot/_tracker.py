"""The live session's picture of its namespace: which names belong together, what changed, which version each has.

Theory. Names that reach a common mutable object are one *group*: what a cell does through one of them shows in the
others. Groups are found by the identities that a pass over the values collects. Around a cell:

* `before` makes sure that every name the cell may touch has been passed over, so that there is a state to compare with;
* `after` finds names that were rebound (by identity, over all bindings: a `global` statement in a function leaves no
  other trace), passes over what was touched or rebound, regroups, and gives changed names their new versions.

Invariants.
* A group whose members the cell could not reach is not looked at, so cost follows what a cell touches.
* A group is changed when its state differs, when its members differ, or when it holds something that cannot be looked
  into. In doubt it is changed.
* A version is the content of the whole group where that has a canonical form, else the lineage of the cell that made
  it. Display results (`Out[3]`) are members like others, but the versions of other names do not speak of them: their
  numbers depend on how often cells were run.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from types import CodeType, FunctionType
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb._ident import ident
from durable_nb.snapshot import _plain
from durable_nb.snapshot._bindings import Bindings, result_number
from durable_nb.snapshot._buffers import StoredBuffers
from durable_nb.snapshot._definitions import Definitions, default_filename
from durable_nb.snapshot._digest import content_digest, digest_text
from durable_nb.snapshot._groups import MISSING, Group, Version, parted
from durable_nb.snapshot._links import ObjectIndex, connected
from durable_nb.snapshot._marks import Mark, Marks, Picture, moved
from durable_nb.snapshot._process import ProcessState, note_starts
from durable_nb.snapshot._promises import Promise, Promises
from durable_nb.snapshot._scan import Problem, Scan, scan


@dataclass(frozen=True, slots=True)
class Before:
    """What `after` compares with."""

    marks: Marks
    states: Mapping[str, tuple[tuple[str, ...], str | None]]
    """Per name of the touched groups, its group's names and state."""
    process: ProcessState


@dataclass(frozen=True, slots=True)
class Delta:
    """What a cell did to the names and to the process."""

    changed: dict[str, Version]
    deleted: tuple[str, ...]
    groups: list[Group]
    problems: tuple[Problem, ...]
    process: dict[str, Any]
    """Changed process state, to be stored and re-applied: see `ProcessState`."""
    tracker: Tracker = field(repr=False)
    inherited: Mapping[str, str] = field(default_factory=dict)
    """Names in it that the cell neither bound nor is known to have looked at, and their versions before: inputs."""

    @property
    def storable(self) -> bool:
        """True when every changed value can be given back."""
        return not self.problems


class Tracker:
    """Follows the names of one namespace.

    Args:
        namespace: the notebook's globals.
        hidden: names that belong to the shell; one that the user binds anew is the user's. A mapping to the values that
            the shell gave them tells this also of `_`, `__` and `___`.
        filename_for: gives the file name under which this process knows a cell's source.
        process: how process state is read; the default knows what ships with Python, NumPy, pandas and matplotlib.
    """

    def __init__(
        self,
        namespace: dict[str, Any],
        *,
        hidden: Iterable[str] = (),
        filename_for: Callable[[str], str] = default_filename,
        capture: Callable[[], ProcessState] = ProcessState.capture,
    ) -> None:
        self.namespace = namespace
        self.definitions = Definitions(namespace)
        self.filename_for = filename_for
        self.bound = Bindings(namespace, hidden)
        self._capture = capture
        self._groups: dict[str, Group] = {}
        self._blank = True
        """Whether there may be names without a group, or with one that was never passed over."""
        self._index = ObjectIndex()
        self._module_states: dict[str, str] = {}
        self._versions: dict[str, Version] = {}
        self._dirty: set[str] = set()
        self.buffers = StoredBuffers()
        self._marks = Marks()
        self._marks_are_held = False
        """Whether a `Before` holds them."""
        self._promises = Promises(namespace)
        self._arrived: dict[str, Mark] = {}
        """Names that were materialised since the last `before`: no cell has bound them."""
        self._loading = threading.RLock()
        self.on_code: Callable[[CodeType], None] | None = None
        """Told of each piece of the notebook's code that is restored: it may read names by itself."""
        note_starts()
        bindings = self.bindings()
        self.definitions.note(bindings.values())
        self._marks = self._marks.renewed(bindings, bindings)

    # --- names -------------------------------------------------------------------------------------------------

    def bindings(self) -> dict[str, Any]:
        """The user's names and values, with display results as `Out[n]`."""
        return self.bound.all()

    def value(self, name: str) -> Any:
        """The value of a name, display result or open figure; `KeyError` when there is none."""
        return self.bound[name]

    def bind(self, name: str, value: Any) -> None:
        """Bind a name or a display result, or open a figure, without any tracking."""
        self.bound[name] = value
        self._promises.drop(name)

    def unbind(self, name: str) -> None:
        """Undo `bind`; nothing happens when the name is not bound."""
        self.bound.discard(name)
        self._promises.drop(name)
        self._promises.forget_place(name)

    # --- around a cell -----------------------------------------------------------------------------------------

    def before(self, touched: Iterable[str]) -> Before:
        """Make sure that there is something to compare with. Call right before the cell runs."""
        if not self._is_as_marked():
            self._catch_up()
        self._arrived.clear()
        wanted = [name for name in touched if name in self._marks]
        for name in self._not_looked_at() if self._blank else ():
            group = self._group(name)
            if group.scan is None:  # still: the pass over a name before may have looked at it too
                # A restored value whose version is lineage has nothing but a state to tell a change by.
                known = self._versions.get(name)
                self._pass_over(group, hashing=known is not None and known.kind == "lineage")
        for name in wanted:
            self._scanned(name)
        states = {}
        for name in wanted:
            group = self._groups[name]
            state = None if group.scan is None else group.scan.state
            states.update(dict.fromkeys(group.names, (group.names, state)))
        if self._marks_are_held:  # the picture of a cell around this one stays
            self._marks = self._marks.copy()
        self._marks_are_held = True
        return Before(self._marks, states, self._capture())

    def _is_as_marked(self) -> bool:
        """Whether nothing was bound or deleted since: so it is before nearly every cell."""
        return not self._promises and self._marks.show(*self.bound.pairs())

    def _not_looked_at(self) -> list[str]:
        known = self._groups
        found = [name for name in self.bindings() if (group := known.get(name)) is None or group.scan is None]
        self._blank = bool(found)
        return found

    def after(
        self,
        before: Before,
        touched: Iterable[str],
        *,
        fingerprint: str,
        nonce: str | None = None,
        binds: Collection[str] = (),
        read: Collection[str] | None = None,
        process: ProcessState | None = None,
    ) -> Delta:
        """What the cell did. Call right after it ran.

        Args:
            before: what `before` returned.
            touched: names that the cell may have read or written.
            fingerprint: the cell's, from which lineage versions follow.
            nonce: makes lineage versions of storable values unique: the cell was run again on purpose.
            binds: names that the cell has certainly assigned; they are part of the delta even if bound to the same
                object as before.
            read: names that the cell may have looked at, whose versions are its inputs; None for all.
            process: the process's state after the cell, when it is known already.
        """
        bindings = self._settled()
        picture = Picture.of(bindings)
        marks_then = self._marks_then(before)
        rebound = marks_then.moved(bindings, picture)
        self.definitions.note(bindings[name] for name in rebound)
        # Bound and deleted again: wherever the name is bound before a replay, it is not afterwards.
        again = [name for name in binds if name in bindings]
        deleted: tuple[str, ...] = ()
        new = sum(name not in marks_then for name in rebound)
        if len(again) < len(binds) or len(bindings) - len(marks_then) != new:
            deleted = tuple(name for name in dict.fromkeys([*before.marks, *binds]) if name not in bindings)
        look = self._ordered({*touched, *rebound}, bindings)
        was: dict[str, Group] = {}
        groups_then: Mapping[str, Group] = ChainMap(was, self._groups)
        versions_then: Mapping[str, Version] = self._versions
        if read is not None and any(len(self._beside(name)) > 1 for name in (*rebound, *deleted)):
            groups_then, versions_then = dict(self._groups), dict(self._versions)
            self._part([*rebound, *deleted], read)
        changed = self._regroup(bindings, look, {*rebound}, deleted, before.states, was)
        for name in again:
            if self._groups[name] not in changed:
                changed.append(self._groups[name])
        for name in deleted:
            self._promises.forget_place(name)
        self._dirty.difference_update(rebound, again, deleted)
        fresh = {*rebound, *again}
        inherited = {}
        if read is not None:
            old = {name for group in changed for name in group.names if name in before.marks and name not in fresh}
            inherited = _inherited(changed, old, read, groups_then, versions_then)
        versions: dict[str, Version] = {}
        for group in changed:
            versions |= self._new_versions(group, fingerprint, nonce)
        moved_since = rebound if self._marks is before.marks else self._marks.moved(bindings, picture)
        self._marks, self._marks_are_held = self._marks.renewed(bindings, moved_since, picture), False
        problems = tuple(problem for group in changed for problem in group.problems)
        differs = ProcessState.diff(before.process, self._capture() if process is None else process)
        return Delta(versions, deleted, changed, problems, differs, self, inherited)

    def _beside(self, name: str) -> tuple[str, ...]:
        """The names of a name's group; none when it has no group."""
        group = self._groups.get(name)
        return () if group is None else group.names

    def _part(self, gone: Iterable[str], read: Collection[str]) -> None:
        """Names that the cell bound anew leave those groups that it did not look into.

        What is left of such a group is what it was: no part of what the cell did, and of no interest to its replay.
        """
        for name in gone:
            group = self._groups.get(name)
            if group is not None and not any(other in read for other in group.names):
                self._leave(name)

    def left_alone(self, before: Before, names: Iterable[str]) -> list[str]:
        """Those of the names that are still bound to the object that they had before the cell."""
        now = {name: self.value(name) for name in names if name in self.bound}
        rebound = set(moved(self._marks_then(before), now))
        return [name for name in now if name not in rebound]

    def _marks_then(self, before: Before) -> Marks:
        return Marks({**before.marks, **self._arrived}) if self._arrived else before.marks

    # --- versions ----------------------------------------------------------------------------------------------

    def version(self, name: str) -> Version:
        """The version of a name now; computed when nothing is known of it yet."""
        if name in self._promises and name not in self.namespace:
            return self._versions[name]
        if not self._is_current(name):
            self._catch_up()
        if name not in self.bound:
            return MISSING
        if name in self._dirty:
            return Version(secrets.token_hex(16), False, "dirty")
        group = self._group(name)
        if group.doubtful:
            self._recheck(group)
            group = self._group(name)
        known = self._versions.get(name)
        if known is None:
            self._new_versions(self._scanned(name), None, None)
            known = self._versions[name]
        return known

    def _is_current(self, name: str) -> bool:
        """True when the name is bound to what it was bound to when last looked at."""
        if name not in self.bound:
            return name not in self._marks
        return not moved(self._marks, {name: self.value(name)})

    def mark_dirty(self, names: Iterable[str]) -> None:
        """A failed cell left these: nothing that reads them is checkpointed until a completed cell binds them."""
        for name in names:
            self._dirty.update(self._groups[name].names if name in self._groups else (name,))

    def made_again(self, names: Iterable[str]) -> None:
        """No checkpoint can hold these after all: each run of their cell makes them anew.

        As for values that a pass already refuses, their version is then that of their cell, and cells that only read
        them keep replaying.
        """
        for name in names:
            old = self._versions.get(name)
            if old is not None and old.kind == "lineage":
                text = digest_text("lineage", old.producer, name, "")
                self._versions[name] = dataclasses.replace(old, text=text, exact=False)

    def invalidate(self, names: Iterable[str] | None = None) -> None:
        """Something ran outside of cells: look again before trusting what is known of these names (None: of all)."""
        for name in self._groups if names is None else names:
            if name in self._groups:
                self._groups[name].doubtful = True

    def functions_of(self, name: str) -> tuple[Any, ...]:
        """Notebook functions and classes that the value reaches."""
        found = self._reached(name)
        return () if found is None else (*found.functions, *found.classes)

    def modules_of(self, name: str) -> frozenset[str]:
        """Top-level packages whose classes or functions the value uses."""
        found = self._reached(name)
        return frozenset() if found is None else found.modules

    def group_of(self, name: str) -> Group | None:
        """The group of a bound name."""
        return self._group(name) if name in self.bound else None

    def _reached(self, name: str) -> Scan | None:
        if name not in self.bound:
            return None
        if not self._is_current(name):
            self._catch_up()
        group = self._group(name)
        if group.scan is None:
            self._pass_over(group, hashing=False)
        return self._group(name).scan

    # --- promised values -------------------------------------------------------------------------------------------

    @property
    def promised(self) -> Promises:
        """The names that have a version and no value yet."""
        return self._promises

    def names(self) -> list[str]:
        """All of the user's names, promised ones too."""
        return [*self.bindings(), *(name for name in self._promises if name not in self.namespace)]

    def promise(self, promise: Promise, versions: Mapping[str, Version]) -> None:
        """Names were bound by a restore that is made good later; they have their versions now."""
        with self._loading:
            self._promises.add(promise)
            self._take(promise.names, versions)
            for name in promise.names:
                self._marks.discard(name)
                self._arrived.pop(name, None)

    def materialise(self, names: Iterable[str]) -> tuple[str, ...]:
        """Load the groups of those names that are promised, each whole; returns what was bound.

        Raises:
            Exception: whatever the bytes of a group raise. Its names stay promised, and the next call raises again.
        """
        if not self._promises:
            return ()
        bound: list[str] = []
        with self._loading:
            for promise in self._promises.of(names):
                values = promise.fetch()
                for name in self._promises.owed(promise):
                    if name not in self.namespace:  # what was bound behind our back is newer
                        self.namespace[name] = values[name]
                        self._marks[name] = self._arrived[name] = self._met(values[name])
                        self._groups[name].doubtful = False
                        bound.append(name)
                    self._promises.drop(name)
        return tuple(bound)

    def give_up(self, names: Iterable[str]) -> None:
        """Let go of promises that are not wanted any more; the names are then unbound."""
        for name in names:
            if name in self._promises:
                self._promises.drop(name)
                self._promises.forget_place(name)
                self._leave(name)

    def put_in_order(self) -> None:
        """Make the namespace's order what it would be had nothing been promised. No other thread may read it."""
        wanted = self._promises.in_order()
        start = next(
            (at for at, pair in enumerate(zip(self.namespace, wanted, strict=True)) if pair[0] != pair[1]), None
        )
        for name in wanted[start:] if start is not None else ():
            self.namespace[name] = self.namespace.pop(name)

    def _settled(self) -> dict[str, Any]:
        """The bindings; a promised name that was bound behind our back is no promise any more."""
        overtaken = [name for name in self._promises if name in self.namespace]
        if overtaken:
            try:
                self.materialise(overtaken)  # the rest of its group is looked at as if it had always been there
            except Exception:  # noqa: BLE001 - the rest stays promised, and says so itself when it is wanted
                for name in overtaken:
                    self._promises.drop(name)
        return self.bindings()

    # --- values that travel -----------------------------------------------------------------------------------------

    @contextmanager
    def with_buffers(self, buffers: StoredBuffers) -> Iterator[None]:
        """Meanwhile, what is known of large buffers is about another place than the session's store."""
        mine, self.buffers = self.buffers, buffers
        try:
            yield
        finally:
            self.buffers = mine

    def still(self, name: str, text: str) -> bool:
        """Whether nothing says that a name has another version than this; nothing is looked at anew."""
        known = self._versions.get(name)
        return known is not None and known.text == text and self._is_current(name)

    # --- restored values -----------------------------------------------------------------------------------------

    def replaced(self, names: Collection[str], versions: Mapping[str, Version], deleted: Iterable[str]) -> None:
        """Names were bound by a restore: take their versions as given; what they were grouped with is looked at again.

        Args:
            names: one group.
            versions: per name.
            deleted: names that were unbound.
        """
        deleted = tuple(deleted)
        for name in deleted:
            self._leave(name)
            self._marks.discard(name)
            self._dirty.discard(name)
        self._take(names, versions)
        for name in names:
            self._marks[name] = self._met(self.value(name))

    def _met(self, value: Any) -> Mark:
        """The mark of a value that no cell has bound; if it is a definition, this is its first sight."""
        if type(value) is FunctionType or issubclass(type(value), type):
            self.definitions.note((value,))
        return Mark(value)

    def _take(self, names: Collection[str], versions: Mapping[str, Version]) -> None:
        """The names are one group with these versions, whatever they were before."""
        for name in names:
            self._leave(name)
        self._blank = True
        group = Group(tuple(names))
        for name in names:
            self._groups[name] = group
            self._versions[name] = versions[name]
            self._dirty.discard(name)

    def _leave(self, name: str) -> None:
        """Take a name out of its group; the others' versions no longer say what they are grouped with."""
        group = self._groups.pop(name, None)
        self._versions.pop(name, None)
        if group is None:
            return
        self._blank = True
        self._index.remove(group)
        rest = tuple(other for other in group.names if other != name and self._groups.get(other) is group)
        if rest:
            smaller = Group(rest)
            for other in rest:
                old = self._versions.get(other)
                self._groups[other] = smaller
                if old is not None and len(rest) + 1 == len(group.names) and result_number(name) is None:
                    self._versions[other] = parted(old, rest)

    # --- passes ------------------------------------------------------------------------------------------------

    def _group(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            self._blank = True
            group = self._groups[name] = Group((name,))
        return group

    def _scanned(self, name: str) -> Group:
        """The group of a name, with a state."""
        group = self._group(name)
        if group.doubtful:
            self._recheck(group)
            group = self._group(name)
        if group.scan is None or group.scan.state is None:
            self._pass_over(group, hashing=True)
            group = self._groups[name]
        return group

    def _pass_over(self, group: Group, *, hashing: bool) -> None:
        """Scan a group; when it turns out to share objects with others, they become one.

        One that another name has left may fall into parts. These keep their versions, which speak of what was left.
        """
        found = self._scan(group.names, hashing=hashing)
        if len(group.names) > 1:
            parts = list(self._components(self.bindings(), [group.names], [found]))
            if len(parts) > 1:
                for members, _ in parts:
                    part = Group(members)
                    self._groups.update(dict.fromkeys(members, part))
                    self._pass_over(part, hashing=hashing)
                return
        group.scan = found
        others = {ident(other): other for other in self._index.linked(found) if other is not group}
        if not others:
            self._remember(group)
            return
        names = {*group.names, *(name for other in others.values() for name in other.names)}
        merged = Group(self._ordered(names))
        for other in others.values():
            self._index.remove(other)
        merged.scan = self._scan(merged.names, hashing=hashing)
        for name in merged.names:
            self._groups[name] = merged
            # The version spoke of a smaller group; nobody changed a value, so it can still be told by content.
            old = self._versions.pop(name, None)
            if old is not None and old.kind != "content":
                self._versions[name] = parted(old, merged.names)
        self._remember(merged)

    def _scan(self, names: Iterable[str], *, hashing: bool = True) -> Scan:
        return scan([(name, self.value(name)) for name in names], self.definitions, hashing=hashing)

    def _ordered(self, names: Iterable[str], bindings: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        known = self.bindings() if bindings is None else bindings
        wanted = {name for name in names if name in known}
        if len(wanted) < 2:
            return tuple(wanted)
        return tuple(name for name in known if name in wanted)

    def _remember(self, group: Group) -> None:
        assert group.scan is not None
        self._module_states.update(group.scan.module_states)
        self._index.add(group)

    # --- regrouping --------------------------------------------------------------------------------------------

    def _regroup(
        self,
        bindings: Mapping[str, Any],
        look: Iterable[str],
        rebound: set[str],
        deleted: Iterable[str],
        states: Mapping[str, tuple[tuple[str, ...], str | None]],
        was: dict[str, Group],
    ) -> list[Group]:
        """Pass over what may have changed, form the groups anew, and return those that changed.

        `was` is told the groups that names had until now, where they get another.
        """
        broken = {ident(self._groups[name]): self._groups[name] for name in [*look, *deleted] if name in self._groups}
        units: list[tuple[str, ...]] = []
        streams = {
            name
            for group in broken.values()
            if group.scan is not None and group.scan.changes_when_touched
            for name in group.names
            if name not in rebound
        }
        for group in broken.values():
            self._index.remove(group)
            rest = tuple(name for name in group.names if name in bindings and name not in rebound)
            if rest:
                units.append(rest)
        inside = {name for unit in units for name in unit}
        units += [(name,) for name in look if name not in inside]
        for name in deleted:
            self._groups.pop(name, None)
            self._versions.pop(name, None)
        scans = [self._scan(unit) for unit in units]
        absorbed_groups = self._absorbed(scans)
        was.update((name, group) for group in (*broken.values(), *absorbed_groups) for name in group.names)
        for absorbed in absorbed_groups:
            self._index.remove(absorbed)
            units.append(absorbed.names)
            scans.append(absorbed.scan if absorbed.scan is not None else self._scan(absorbed.names))
        changed = []
        for names, found in self._components(bindings, units, scans):
            found = _with_spent(names, self._with_module_changes(names, found), streams)
            group = Group(names, found)
            old_names, old_state = states.get(names[0], ((), None))
            same = old_names == names and not rebound.intersection(names) and old_state == found.state
            for name in names:
                self._groups[name] = group
            self._remember(group)
            if not same or old_state is None or found.changes_when_touched:
                changed.append(group)
        return changed + self._class_users(changed)

    def _with_module_changes(self, names: tuple[str, ...], found: Scan) -> Scan:
        """The scan, with a problem for each object of a local module that is not what it was."""
        problems = []
        for place, state in found.module_states.items():
            if self._module_states.setdefault(place, state) != state:
                why = f"{place} belongs to a module: only running the cell again changes it in a new process"
                problems.append(Problem(names[0], "module object", names[0], why, changes_when_touched=False))
            self._module_states[place] = state
        return dataclasses.replace(found, problems=(*found.problems, *problems)) if problems else found

    def _absorbed(self, scans: list[Scan]) -> list[Group]:
        """Untouched groups that what the cell made is linked to."""
        found: dict[int, Group] = {}
        for item in scans:
            for group in self._index.linked(item):
                found[ident(group)] = group
        return list(found.values())

    def _components(
        self, bindings: Mapping[str, Any], units: list[tuple[str, ...]], scans: list[Scan]
    ) -> Iterator[tuple[tuple[str, ...], Scan]]:
        whole = {frozenset(unit): item for unit, item in zip(units, scans, strict=True)}
        for component in connected(scans):
            names = tuple(component) if len(component) == 1 else self._ordered(component, bindings)
            found = whole.get(frozenset(names))
            if found is None or found.names != names or found.state is None:
                found = self._scan(names)
            yield names, found

    def _class_users(self, changed: list[Group]) -> list[Group]:
        """Groups with instances of a class whose own state a cell changed: their versions speak of it."""
        classes = {
            ident(value)
            for group in changed
            for name in group.names
            if isinstance(value := self.value(name), type) and self.definitions.owns(value) and name in self._versions
        }
        if not classes:
            return []
        found = {ident(group): group for group in changed}
        users = []
        for group in {ident(group): group for group in self._groups.values()}.values():
            if ident(group) in found or group.scan is None:
                continue
            if any(ident(cls) in classes for cls in group.scan.classes):
                if group.scan.state is None:
                    group.scan = self._scan(group.names)
                users.append(group)
        return users

    # --- versions ----------------------------------------------------------------------------------------------

    def _new_versions(self, group: Group, fingerprint: str | None, nonce: str | None) -> dict[str, Version]:
        found = group.scan
        assert found is not None
        content: str | None = None
        if found.storable:
            named = sorted(name for name in group.names if result_number(name) is None) or sorted(group.names)
            pairs = [(name if result_number(name) is None else "Out", self.value(name)) for name in named]
            content = self._content(pairs, found)
        found.known.clear()
        versions = {name: self._version_of(name, found, content, fingerprint, nonce) for name in group.names}
        if fingerprint is None:
            # Looked at again and found as it was: it still has its producer.
            for name, version in versions.items():
                old = self._versions.get(name)
                if old is not None and old.text == version.text:
                    versions[name] = old
        self._versions |= versions
        return versions

    def _content(self, pairs: list[tuple[str, Any]], found: Scan) -> str | None:
        """The digest of a group's content; None when that is not canonical."""
        if found.plain is None:
            refer = self.definitions.refer_with_state
            return content_digest(pairs, refer=refer, shared=found.shared, known=dict(found.known))
        ((name, value),) = pairs
        content = found.plain or (_plain.digest(value) or ("",))[0]
        return digest_text("plain", name, content) if content else None

    def _version_of(
        self, name: str, found: Scan, content: str | None, fingerprint: str | None, nonce: str | None
    ) -> Version:
        if content is not None:
            return Version(content, True, "content", fingerprint or "")
        if fingerprint is None:
            return Version(secrets.token_hex(16), False, "dirty")
        again = nonce if nonce is not None and found.storable else ""
        return Version(digest_text("lineage", fingerprint, name, again), found.storable, "lineage", fingerprint)

    def _catch_up(self) -> dict[str, Any]:
        """Notice names that were bound or deleted outside of cells; returns the bindings."""
        bindings = self._settled()
        strange = self._marks.moved(bindings)
        if not strange and len(self._marks) == len(bindings):
            return bindings  # all that is bound is marked, and nothing else is
        self.definitions.note(bindings[name] for name in strange)
        gone = self._marks.keys() - bindings.keys()
        if strange or gone:
            for group in self._regroup(bindings, strange, set(strange), sorted(gone), {}, {}):
                self._new_versions(group, None, None)
            self._marks, self._marks_are_held = self._marks.renewed(bindings, self._marks.moved(bindings)), False
        return bindings

    def _recheck(self, group: Group) -> None:
        """Look at a doubtful group again; what changed has no producer."""
        group.doubtful = False
        old = group.scan.state if group.scan is not None else None
        states = dict.fromkeys(group.names, (group.names, old))
        for changed in self._regroup(self.bindings(), group.names, set(), (), states, {}):
            self._new_versions(changed, None, None)


def _inherited(
    changed: Iterable[Group],
    old: Collection[str],
    read: Collection[str],
    groups: Mapping[str, Group],
    versions: Mapping[str, Version],
) -> dict[str, str]:
    """What a cell passes on without having bound it or looked at it, and the versions that this had before.

    Args:
        changed: the groups that changed.
        old: names that the cell found, and has not bound anew.
        read: names that it may have looked at; a group that holds one of them is known by it.
        groups, versions: as they were before.
    """
    found = {}
    for name in (name for group in changed for name in group.names if name in old):
        known = groups[name].names if name in groups else (name,)
        if not any(other in read for other in known):
            version = versions.get(name)
            found[name] = secrets.token_hex(16) if version is None else version.text
    return found


def _with_spent(names: tuple[str, ...], found: Scan, streams: set[str]) -> Scan:
    """The scan, with a problem where the cell used up or closed a stream that an earlier cell had opened.

    What is left could be stored; but on a fresh kernel the stream is made again, and only the cell itself uses it up.
    """
    spent = [name for name in names if name in streams]
    if not spent or found.problems:
        return found
    why = "the cell used up, or closed, what an earlier one had opened"
    problem = Problem(spent[0], "stream", spent[0], why, changes_when_touched=False)
    return dataclasses.replace(found, problems=(problem,))
