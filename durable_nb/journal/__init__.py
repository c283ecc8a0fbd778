"""Where executions are recorded: a port (`durable_nb.abc.Journal`) and its backends.

The first cell of a kernel waits for this package: what only a server, a repair or a test needs is loaded when it is
asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durable_nb.journal._encrypted import EncryptedJournal
from durable_nb.journal._markers import FileMarkers
from durable_nb.journal._pin import Pin, held_blobs
from durable_nb.journal._sqlite import SqliteJournal
from durable_nb.journal._wrapper import JournalWrapper

if TYPE_CHECKING:
    from durable_nb.journal._memory import MemoryJournal
    from durable_nb.journal._postgres import PostgresJournal
    from durable_nb.journal._postgres_server import PostgresServer
    from durable_nb.journal._postgres_store import PostgresBlobs, PostgresMarkers, PostgresShare
    from durable_nb.journal._repair import Salvage, complaints, counts, salvage

_HOMES = {
    "MemoryJournal": "_memory",
    "PostgresBlobs": "_postgres_store",
    "PostgresJournal": "_postgres",
    "PostgresMarkers": "_postgres_store",
    "PostgresServer": "_postgres_server",
    "PostgresShare": "_postgres_store",
    "Salvage": "_repair",
    "complaints": "_repair",
    "counts": "_repair",
    "salvage": "_repair",
}

__all__ = [
    "EncryptedJournal",
    "FileMarkers",
    "JournalWrapper",
    "MemoryJournal",
    "Pin",
    "PostgresBlobs",
    "PostgresJournal",
    "PostgresMarkers",
    "PostgresServer",
    "PostgresShare",
    "Salvage",
    "SqliteJournal",
    "complaints",
    "counts",
    "held_blobs",
    "salvage",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
