"""What lies around a session: files, environment, modules and installed packages, seen from the project's folder."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from durable_nb.abc import BlobStore
from durable_nb.cells import (
    MISSING,
    Distributions,
    Environment,
    FileLedger,
    FileState,
    Input,
    LocalModules,
    ModuleState,
    Observed,
    Observer,
    Places,
    changed,
    module_state,
    watch_imports,
)
from durable_nb.exceptions import StoreError
from durable_nb.snapshot import COUNTERS

FileRecord = dict[str, Any]
"""`states`: the files a cell left, as `FileState` rows; `blobs`: key to the address of its bytes, for small ones."""


class World:
    """The outside of one session.

    Args:
        project: the folder that file keys are relative to.
        store: whose files are no inputs.
        key: secret of the digests of environment variables.
        before_read: called with a path just before a cell opens it for reading.
    """

    def __init__(self, project: Path, store: Path, key: bytes, before_read: Callable[[str], None]) -> None:
        self.store, self.key = store, key
        self.places = Places(project, ignored=[self.store])
        self.ledger = FileLedger(self.places)
        self.environment = Environment(key, self.places)
        self.modules = LocalModules(self.places)
        self.distributions = Distributions()
        self.observer = Observer(self.places, on_open_read=before_read, version_of=self.ledger.digest)
        self.observer.install()
        self._fresh: dict[str, ModuleState] = {}
        """Local modules that were imported since the last cell ended, as they were after their own code had run."""
        watch_imports(self.places.is_local_source, self._note_import, self.observer.importing)

    def is_user_file(self, filename: str) -> bool:
        """Whether the code in a file is the user's: a cell, or a module outside installed packages."""
        return self.places.frame(filename) in ("user", "local")

    # --- modules as state --------------------------------------------------------------------------------------------

    def module_states(self, reached: Iterable[str]) -> dict[str, ModuleState]:
        """The attributes of the modules that a cell can reach, and of the local ones that these import."""
        self._fresh.clear()
        local = self.modules.versions(reached)
        found = {}
        for name in {*reached, *local}:
            module = sys.modules.get(name)
            if isinstance(module, ModuleType):
                found[name] = module_state(module, local=name in local)
        return found

    def changed_modules(self, before: Mapping[str, ModuleState], reached: Iterable[str]) -> list[str]:
        """Attributes of modules that a cell has set, as `module.attribute`.

        A module that the cell itself imported is compared with what it was right after its own code had run.
        """
        states = {**self._fresh, **before}
        local = self.modules.versions(reached)
        found = []
        for name in sorted({*before, *(name for name in self._fresh if name in local)}):
            module = sys.modules.get(name)
            if isinstance(module, ModuleType):
                now = module_state(module, local=name in local)
                top = name.partition(".")[0]
                keys = changed(states[name], now, package="" if name in local else top)
                found += [f"{name}.{key}" for key in keys if not COUNTERS.is_one(name, key)]
        self._fresh.clear()
        return found

    def _note_import(self, name: str, module: ModuleType) -> None:
        self._fresh[name] = module_state(module, local=True)

    # --- inputs ----------------------------------------------------------------------------------------------------

    def code(self, reached: frozenset[str]) -> Iterable[Input]:
        """The code behind the modules that a cell reached."""
        self.modules.notice()
        for name, version in self.modules.versions(reached).items():
            yield Input("module", name, version)
            read = self.observer.imported.get(name)
            if read is not None:  # a settings file, a variable: what the module is made of besides its source
                yield from self.ledger.inputs(read)
                yield from self.environment.inputs(read)
        for name, version in self.distributions.versions(reached).items():
            yield Input("dist", name, version)

    def seen(self, observed: Observed, depends_on: Iterable[str]) -> Iterable[Input]:
        """Files, listings, variables and the working directory, as the cell saw them. Call it before `wrote`."""
        yield from self.ledger.inputs(observed, depends_on=depends_on)
        yield from self.environment.inputs(observed)

    def version(self, kind: str, key: str) -> str:
        """The present version of a recorded input."""
        match kind:
            case "module":
                return self.modules.version(key)
            case "dist":
                return self.distributions.version(key)
            case "env":
                return self.environment.version(key)
            case "cwd":
                return self.environment.cwd()
            case _:
                return self.ledger.version(kind, key)

    # --- files that cells wrote ------------------------------------------------------------------------------------

    def keep_files(self, states: Iterable[FileState], blobs: BlobStore, limit: int) -> FileRecord:
        """The files a cell left, for its record; the bytes of small ones are stored, to be put back."""
        rows, kept = [], {}
        for state in states:
            rows.append(state.to_json())
            path = self.ledger.path(state.key)
            try:
                if state.version == MISSING or Path(path).stat().st_size > limit:
                    continue
                data = Path(path).read_bytes()
            except OSError:  # gone or unreadable: it cannot be put back, which is what its absence in `blobs` says
                continue
            kept[state.key] = blobs.put(data)
        return {"states": rows, "blobs": kept}

    def restore_state(self, state: FileState, address: str | None, blobs: BlobStore) -> bool:
        """Make a path what a cell left there (a file, a folder, nothing); False when it cannot be."""
        path = Path(self.ledger.path(state.key))
        if address is not None:
            return self.restore_file(state.key, address, blobs)
        try:
            if state.version == MISSING:
                path.unlink()
            elif state.version == "dir":
                path.mkdir(parents=True, exist_ok=True)
            else:
                return False
        except OSError:  # a folder with other things in it, no permission: the cell runs and meets it itself
            return False
        self.ledger.restored(state.key)
        return True

    def restore_file(self, key: str, address: str, blobs: BlobStore) -> bool:
        """Put the bytes of a file back; False when they cannot be had."""
        try:
            data = blobs.get(address)
        except StoreError:
            return False
        path = Path(self.ledger.path(key))
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            return False
        self.ledger.restored(key)
        return True


def states_of(record: Mapping[str, Any]) -> list[FileState]:
    """The files of a record."""
    return [FileState.from_json(row) for row in record.get("states", ())]
