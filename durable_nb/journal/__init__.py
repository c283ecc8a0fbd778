"""Where executions are recorded: a port (`durable_nb.abc.Journal`) and its backends."""

from durable_nb.journal._encrypted import EncryptedJournal
from durable_nb.journal._markers import FileMarkers
from durable_nb.journal._memory import MemoryJournal
from durable_nb.journal._pin import Pin, held_blobs
from durable_nb.journal._postgres import PostgresJournal
from durable_nb.journal._postgres_server import PostgresServer
from durable_nb.journal._postgres_store import PostgresBlobs, PostgresMarkers, PostgresShare
from durable_nb.journal._repair import Salvage, complaints, counts, salvage
from durable_nb.journal._sqlite import SqliteJournal
from durable_nb.journal._wrapper import JournalWrapper

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
