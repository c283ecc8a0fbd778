"""The composition root: settings in; journal, blobs and markers out, wired together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from durable_nb.abc import BlobStore, Journal, Markers
from durable_nb.exceptions import StoreUnreadableError, ValidationError
from durable_nb.settings import STORE_DIRECTORY, Settings

__all__ = ["Store", "find_store", "open_store"]


@dataclass(frozen=True, slots=True)
class Store:
    """An open store: where executions, bytes and at-most-once markers are kept."""

    place: Path
    """The store's own directory, usually `.durable/`."""
    journal: Journal
    blobs: BlobStore
    markers: Markers

    @property
    def project(self) -> Path:
        """The folder that paths are relative to: the one that holds the store."""
        return self.place.parent

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()


def find_store(settings: Settings, folder: Path) -> Path:
    """The directory of the store for a notebook or a program in `folder`.

    Raises:
        ValidationError: the setting is a URL of a kind that this installation has no backend for.
    """
    text = settings.store_for(folder)
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme == "file":
            return Path(rest).absolute()
        raise ValidationError(f"the store {text!r} is of a kind that is not known: give a directory or file:///path")
    return Path(text).expanduser().absolute()


def open_store(place: str | os.PathLike[str], *, settings: Settings | None = None, create: bool = True) -> Store:
    """Open the store in a directory.

    Args:
        place: the store's directory.
        settings: gives the key that rows are signed with.
        create: make it when there is none.

    Raises:
        StoreUnreadableError: there is none and `create` is False, or it cannot be read.
        StoreVersionError: a newer durable_nb wrote it.
    """
    from durable_nb.journal import FileMarkers, SqliteJournal
    from durable_nb.snapshot import FileBlobStore, Keyring

    directory = Path(place).expanduser().absolute()
    database = directory / "journal.db"
    if not create and not database.exists():
        raise StoreUnreadableError(str(directory), f"there is no store here (no {database.name})")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if create:
            _ignore_in_git(directory)
    except OSError as exc:
        raise StoreUnreadableError(str(directory), str(exc)) from exc
    signer = Keyring((settings or Settings.from_environment()).key).sign
    journal = SqliteJournal(database, signer=signer)
    return Store(directory, journal, FileBlobStore(directory / "blobs"), FileMarkers(directory / "started"))


def _ignore_in_git(directory: Path) -> None:
    """A store inside a repository is nobody's source: it ignores itself."""
    note = directory / ".gitignore"
    if directory.name == STORE_DIRECTORY and not note.exists():
        note.write_text("*\n", encoding="utf-8")
