"""Files as inputs, and files the notebook writes as values with versions.

Theory. The version of a file is a digest of its content. A file that cells of this notebook write goes through states:
what was there before the first writer (the *origin*), then what each writer left. On a fresh kernel the disk holds the
last of them, while the cell at the top still has to see the first. So the ledger keeps, for every such file, the
*place*: the state it has at this point of the notebook. As long as the disk holds a state that the notebook itself
recorded, a reader is judged by the place; when the disk holds anything else, somebody changed the file, and the disk
decides.

- `remember` is told, at the start, all states that records know; their order is the order in which they were made.
- `wrote` is told what a cell that ran has changed: the disk is the place now.
- `replayed` is told that a writer was replayed: the place moves, the disk need not.
- `stale` says that a reader that really runs here would not find what belongs here.

Invariant: after `wrote`, and after any change from outside, `current` is what the disk holds.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import field

from blake3 import blake3

from durable_nb._dataclass import dataclass
from durable_nb.cells._digest import digest
from durable_nb.cells._fingerprint import Input
from durable_nb.cells._mentions import candidates
from durable_nb.cells._observe import Observed
from durable_nb.cells._places import Places

__all__ = ["MISSING", "FileLedger", "FileState", "Foreseen"]

MISSING = "missing"
"""The version of a path where nothing is."""

_CHUNK = 1 << 20
_SETTLED_NS = 50_000_000
"""A file younger than this may change again within one tick of the file system's clock: its times prove nothing."""
_SETTLED_COARSE_NS = 2_500_000_000
"""The same where times seem to have no fraction: some file systems count whole or even seconds."""
_LARGE = 2 << 30
_WIDE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """What a cell did to one file."""

    key: str
    version: str
    """After the cell; `missing` when it was removed."""
    origin: str
    """The version from before the first cell of this notebook that wrote the file."""

    def to_json(self) -> list[str]:
        """JSON values."""
        return [self.key, self.version, self.origin]

    @classmethod
    def from_json(cls, row: Iterable[str]) -> FileState:
        """The inverse of `to_json`."""
        key, version, origin = row
        return cls(key=key, version=version, origin=origin)


@dataclass(slots=True)
class Foreseen:
    """The files that a cell names, as they were before it ran."""

    since: int
    """Time in ns at which the cell started."""
    engines: bool
    looked_at: set[str] = field(default_factory=set)
    versions: dict[str, str] = field(default_factory=dict)
    """Path to version, for what was there; a folder ends in a slash, a pattern has wildcards."""


@dataclass(slots=True)
class _Known:
    """What the ledger knows of one file that the notebook writes."""

    origin: str
    states: dict[str, str] = field(default_factory=dict)
    """Version to the owner that left it; the last one is the newest."""
    place: str | None = None
    """The version at this point of the notebook; None before the first writer of this kernel."""
    owner: str | None = None
    disk: str | None = None
    """What the disk held when the place was last set: if it differs now, somebody changed it since."""


class FileLedger:
    """Versions of files, on disk and at this place of the notebook."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}
        self._known: dict[str, _Known] = {}

    # --- paths and versions on disk ----------------------------------------------------------------------------------

    def key(self, path: str) -> str:
        """The name of an absolute path in records."""
        return self._places.key(path)

    def path(self, key: str) -> str:
        """The absolute path of a key."""
        return self._places.path(key)

    def digest(self, path: str) -> str:
        """The version of what is on disk now."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return MISSING
        if stat.S_ISDIR(found.st_mode):
            return "dir"
        if not stat.S_ISREG(found.st_mode):
            return "special"  # a pipe or device has no content to speak of
        signature = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        known = self._digests.get(path)
        if known is not None and known[0] == signature:
            return known[1]
        version = _digest_file(path, found.st_size)
        if version is None:
            return MISSING
        newest = max(found.st_mtime_ns, found.st_ctime_ns)
        if time.time_ns() - newest > (_SETTLED_NS if newest % 1_000_000 else _SETTLED_COARSE_NS):
            self._digests[path] = (signature, version)
        return version

    def listing(self, path: str, *, without: Container[str] = ()) -> str:
        """The version of a directory's entries: their names and whether each is a directory.

        What cells further down have made is not there yet at this place of the notebook.

        Args:
            path: of the directory.
            without: paths that were made since it was listed.
        """
        try:
            with os.scandir(path) as entries:
                here = [e for e in entries if e.path not in without and self._is_here(e.path)]
                rows = sorted((os.fsencode(e.name), e.is_dir()) for e in here)
        except (OSError, ValueError):
            return MISSING
        return digest(*(part for name, is_folder in rows for part in (name, b"d" if is_folder else b"f")))

    def present(self, path: str) -> str:
        """`file`, `dir` or `missing`, at this place."""
        found = _stat(path)
        if self.key(path) in self._known:
            version = self.current(self.key(path))
            return version if version in (MISSING, "dir") else "file"
        if found is None:
            return MISSING
        return "dir" if stat.S_ISDIR(found.st_mode) else "file"

    def _is_here(self, path: str) -> bool:
        """Whether something that is on disk counts, and belongs there already."""
        if not self._places.counts(path):
            return False
        key = self.key(path)
        return key not in self._known or self.current(key) != MISSING

    # --- the notebook's own files ------------------------------------------------------------------------------------

    def remember(self, states: Iterable[FileState], owner: str) -> None:
        """A record knows these states; tell records in the order in which they were made."""
        for state in states:
            known = self._known.setdefault(state.key, _Known(state.origin))
            known.origin = state.origin
            known.states.pop(state.version, None)
            known.states[state.version] = owner

    def wrote(self, observed: Observed, owner: str) -> list[FileState]:
        """A cell has run and changed files: their states, for its record."""
        result = []
        for path in (*observed.written, *self._moved_with(observed)):
            key, version = self.key(path), self.digest(path)
            before = observed.before.get(path)
            if version == before == MISSING and key not in self._known:
                continue  # made and taken away again; a file written as it was is an output like others
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = _Known(before if before is not None else MISSING)
            elif before is not None and before not in known.states and before != known.origin:
                known.origin = before  # somebody else had put the file there
            known.states.pop(version, None)
            known.states[version] = owner
            known.place, known.owner, known.disk = version, owner, version
            result.append(FileState(key=key, version=version, origin=known.origin))
        return result

    def _moved_with(self, observed: Observed) -> list[str]:
        """Files of the notebook in a folder that was renamed or removed."""
        folders = tuple(f"{self.key(path)}/" for path in observed.written if not os.path.isfile(path))
        keys = [key for key in self._known if key.startswith(folders)] if folders else []
        return [path for path in map(self.path, keys) if path not in observed.written]

    def replayed(self, states: Iterable[FileState], owner: str) -> None:
        """A cell that had written these states was replayed: they are the place now, whatever the disk holds."""
        for state in states:
            known = self._known.setdefault(state.key, _Known(state.origin))
            known.states.setdefault(state.version, owner)
            known.place, known.owner = state.version, owner
            known.disk = self.digest(self.path(state.key))

    def current(self, key: str) -> str:
        """The version that a reader at this place has to see."""
        disk = self.digest(self.path(key))
        known = self._known.get(key)
        if known is None:
            return disk
        if known.place is None:
            return known.origin if disk in known.states else disk
        return known.place if disk == known.disk and self._is_ours(known, disk) else disk

    def stale(self, key: str) -> bool:
        """True when a reader that runs now would find something else than belongs here."""
        return self.current(key) != self.digest(self.path(key))

    def stale_paths(self) -> frozenset[str]:
        """The files of which `stale` is true."""
        return frozenset(self.path(key) for key in self._known if self.stale(key))

    def owner(self, key: str) -> str | None:
        """The cell that wrote the version at this place, or None."""
        known = self._known.get(key)
        return known.owner if known is not None else None

    def is_newest(self, state: FileState) -> bool:
        """True when no record knows a later state of the file: the disk should hold this one."""
        known = self._known.get(state.key)
        return known is None or not known.states or next(reversed(known.states)) == state.version

    def problem(self, states: Iterable[FileState]) -> str | None:
        """Why a writer cannot simply be replayed: somebody changed or removed what it wrote. None when it can."""
        for state in states:
            disk = self.digest(self.path(state.key))
            known = self._known.get(state.key)
            # The origin is no proof: an output that was deleted looks like one that was never made.
            if disk == state.version or (known is not None and disk in known.states):
                continue
            return (
                f"{state.key}, which it wrote, is gone"
                if disk == MISSING
                else f"{state.key}, which it wrote, was changed"
            )
        return None

    def is_foreign(self, key: str) -> bool:
        """True when the disk holds something that neither a cell of this notebook left nor was there before them."""
        known = self._known.get(key)
        return known is not None and not self._is_ours(known, self.digest(self.path(key)))

    def adopt(self, key: str) -> None:
        """A cell before the first writer runs, and reads what the disk holds: that is the origin from now on."""
        known = self._known.get(key)
        if known is not None and known.place is None:
            known.origin = self.digest(self.path(key))

    def restored(self, key: str) -> None:
        """The bytes of the place were written back to the disk."""
        known = self._known.get(key)
        if known is not None:
            known.disk = self.digest(self.path(key))

    def _is_ours(self, known: _Known, disk: str) -> bool:
        return disk in known.states or disk == known.origin

    # --- inputs ------------------------------------------------------------------------------------------------------

    def version(self, kind: str, key: str) -> str:
        """The present version of an input of kind `file`, `missing` or `listing`."""
        if kind == "listing":
            pattern = key.removeprefix("glob:")
            return self.glob_version(pattern) if pattern != key else self.listing(self.path(key))
        if kind == "missing":
            return self.present(self.path(key))
        if key.endswith("/"):
            return self.tree(self.path(key))
        if any(sign in key for sign in "*?[") and not os.path.lexists(self.path(key)):
            return self.glob_version(key, contents=True)
        return self.current(key)

    def inputs(self, observed: Observed, *, depends_on: Iterable[str] = ()) -> list[Input]:
        """The inputs that a cell which has just run had; call it before `wrote`.

        Args:
            observed: what the observer saw.
            depends_on: glob patterns, relative to the project.
        """
        found = [self._file_input(observed, path) for path in observed.read]
        # They were not there at this place, whatever the cell has made of them since.
        found += [Input("missing", self.key(p), MISSING, p) for p in observed.missing if p not in observed.read]
        found += [Input("missing", self.key(path), kind, path) for path, kind in observed.present.items()]
        made = {path for path in observed.written if observed.before.get(path) == MISSING}
        found += [Input("listing", self.key(p), self.listing(p, without=made), p) for p in observed.listings]
        found += [self._mention_input(path, version) for path, version in observed.mentioned.items()]
        found += [Input("file", self.key(path), self.current(self.key(path)), path) for path in self.expand(depends_on)]
        found += [Input("listing", f"glob:{pattern}", self.glob_version(pattern)) for pattern in depends_on]
        return found

    def _file_input(self, observed: Observed, path: str) -> Input:
        key = self.key(path)
        version = observed.versions.get(path)
        if version is None:
            # Without a version from the moment it was read, a file that changed since can never be proved equal.
            version = observed.before.get(path) if path in observed.written else self.current(key)
        return Input("file", key, version if version is not None else "unstable", path)

    def _mention_input(self, path: str, version: str) -> Input:
        key = self.key(path.rstrip("/")) + ("/" if path.endswith("/") else "")
        return Input("file", key, version, path)

    def expand(self, patterns: Iterable[str]) -> list[str]:
        """The files that glob patterns match now, sorted."""
        found: dict[str, None] = {}
        for pattern in patterns:
            matches = glob.glob(os.path.join(glob.escape(self._places.project), pattern), recursive=True)
            paths = (os.path.normpath(match) for match in sorted(matches) if os.path.isfile(match))
            found.update(dict.fromkeys(path for path in paths if self._is_here(path)))
        return list(found)

    def glob_version(self, pattern: str, *, contents: bool = False) -> str:
        """The version of the set of files that a pattern matches, with or without what is in them."""
        paths = self.expand([pattern])
        if not contents:
            return digest(*(self.key(path) for path in paths))
        return digest(*(part for path in paths for part in (self.key(path), self.current(self.key(path)))))

    def _named(self, text: str) -> str | None:
        """The absolute path that a text names, when it is one that counts."""
        path = os.path.normpath(os.path.join(os.getcwd(), os.path.expanduser(text)))
        return path if self._places.counts(path) else None

    # --- files that are named, not seen opened ------------------------------------------------------------------------

    def foresee(self, literals: Iterable[str], values: Mapping[str, object], *, engines: bool = False) -> Foreseen:
        """The files that a cell names, just before it runs; `settle` tells afterwards what became of them.

        Args:
            literals: `Reads.literals`.
            values: values of the names that the cell may read.
            engines: also folders and patterns, for cells that reach a library which opens files by itself.
        """
        foreseen = Foreseen(since=time.time_ns(), engines=engines)
        self._look(foreseen, candidates(literals, values))
        return foreseen

    def _look(self, foreseen: Foreseen, texts: Iterable[str]) -> None:
        for text in texts:
            path = self._named(text)
            if path is None or path in foreseen.looked_at:
                continue
            foreseen.looked_at.add(path)
            if os.path.isfile(path):
                foreseen.versions[path] = self.current(self.key(path))
            elif any(sign in text for sign in "*?["):
                pattern = self.key(path)
                is_path = any(sign in text for sign in "./") and not any(sign in text for sign in " \n")
                if foreseen.engines and is_path and self.expand([pattern]):
                    foreseen.versions[path] = self.glob_version(pattern, contents=True)
            elif foreseen.engines and self._is_data_folder(path):
                foreseen.versions[path + "/"] = self.tree(path)

    def _is_data_folder(self, path: str) -> bool:
        """A folder that may be one data set: not the project or the home folder, nor one around them."""
        if not os.path.isdir(path):
            return False
        inner = (self._places.project, os.path.expanduser("~"))
        return not any(f"{folder}/".startswith(path.rstrip("/") + "/") for folder in inner)

    def settle(
        self, observed: Observed, foreseen: Foreseen, literals: Iterable[str], values: Mapping[str, object]
    ) -> None:
        """Add to what was observed the files that the cell may have read or written without being seen.

        Call it when the cell has ended, before `inputs` and `wrote`.

        Args:
            observed: gets the additions.
            foreseen: what `foresee` gave before the cell ran.
            literals: as for `foresee`.
            values: values of the names that the cell read or bound.
        """
        late = Foreseen(since=foreseen.since, engines=foreseen.engines, looked_at=set(foreseen.looked_at))
        self._look(late, candidates(literals, values))
        seen = {*observed.read, *observed.written}
        for path, before in foreseen.versions.items():
            if path in seen or _covered(path, observed):
                continue
            observed.mentioned[path] = before
            if not path.endswith("/") and self.digest(path) != before and not self.stale(self.key(path)):
                observed.before.setdefault(path, before)
                observed.written[path] = None
        made = [p for p in foreseen.looked_at - foreseen.versions.keys() - seen if os.path.isfile(p)]
        for path in made:  # it was not there before the cell
            observed.before.setdefault(path, MISSING)
            observed.written[path] = None
        for path, version in late.versions.items():
            if path in seen or _covered(path, observed):
                continue
            if not path.endswith("/") and _changed_since(path, foreseen.since):
                observed.written[path] = None
            else:
                observed.mentioned[path] = version

    def tree(self, path: str) -> str:
        """The version of a folder with all files below it; in a very large one, sizes and times stand for contents."""
        files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
        files = [file for file in files if self._is_here(file)]
        if not files:
            return self.present(path)
        stats = [_stat(file) for file in files]
        if len(files) > _WIDE or sum(s.st_size for s in stats if s is not None) > _LARGE:
            rows = [f"{s.st_size} {s.st_mtime_ns}" if s is not None else MISSING for s in stats]
        else:
            rows = [self.digest(file) for file in files]
        return digest(
            *(part for file, row in zip(files, rows, strict=True) for part in (os.path.relpath(file, path), row))
        )


def _covered(path: str, observed: Observed) -> bool:
    """Whether a folder or pattern was seen to be used by Python itself, so that its parts are inputs already."""
    if path.endswith("/"):
        return any(other.startswith(path) or other + "/" == path for other in (*observed.read, *observed.listings))
    if any(sign in path for sign in "*?["):
        return any(fnmatch.fnmatchcase(other, path) for other in observed.read)
    return False


def _changed_since(path: str, since: int) -> bool:
    found = _stat(path)
    # A file system may stamp with a clock that moves by ticks and so lags behind ours, never the other way round: what
    # is stamped later was changed later, and what was changed in the first tick counts as read, which is the safe side.
    return found is not None and found.st_ctime_ns > since


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _digest_file(path: str, size: int) -> str | None:
    hasher = blake3(max_threads=blake3.AUTO) if size > 64 * _CHUNK else blake3()
    try:
        if size > 64 * _CHUNK:
            hasher.update_mmap(path)
        else:
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    hasher.update(chunk)
    except (OSError, ValueError):
        return None
    return hasher.hexdigest(length=16)
