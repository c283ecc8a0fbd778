"""The composition root: settings in; journal, blobs and markers out, wired together."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from durable_nb._dataclass import dataclass
from durable_nb.abc import BlobStore, Claimed, Executor, Journal, Markers, Share
from durable_nb.events import ExecutionRecord
from durable_nb.exceptions import (
    DurableExecutionsError,
    LeaseHeldError,
    LeaseLostError,
    StoreMissingError,
    StoreUnreadableError,
    ValidationError,
)
from durable_nb.settings import STORE_DIRECTORY, Settings, StoreUrl, size_of

if TYPE_CHECKING:
    from durable_nb.sdk._driver import Driver
    from durable_nb.snapshot import FileBlobStore

__all__ = [
    "Store",
    "Worker",
    "cache_of",
    "default_store",
    "driver_for",
    "executor_for",
    "find_store",
    "is_store",
    "open_store",
    "shared_store",
    "store_text",
]


logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
"""How long a claimed execution is nobody else's; whoever drives it renews the lease."""

HANDLER_KIND = "handler"
"""The kind of executions that handlers make, as the SDK writes it."""


@dataclass(frozen=True, slots=True)
class Store:
    """An open store: where executions, bytes and at-most-once markers are kept."""

    place: Path
    """The store's own directory, usually `.durable/`; of a store on a server the folder of this machine's copies."""
    journal: Journal
    blobs: BlobStore
    markers: Markers
    share: Share
    """This process's share in the store; what others use is not collected."""
    url: StoreUrl | None = None
    """Of a store on a server."""

    @property
    def label(self) -> str:
        """What people call it."""
        return str(self.url or self.place)

    def hold(self, addresses: Iterable[str]) -> None:
        """Keep blobs that this process has still to read from being collected, until the store is closed."""
        self.share.hold(addresses)

    def close(self) -> None:
        """Close the journal and let the share in the store go."""
        try:
            self.journal.close()
        finally:
            self.share.close()


def find_store(settings: Settings, folder: Path) -> Path | StoreUrl:
    """The store for a notebook or a program in `folder`: a directory, or a place on a server.

    Raises:
        ValidationError: the setting is a URL of a kind that there is no backend for.
    """
    text = settings.store_for(folder)
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme == "file":
            return Path(rest).absolute()
        if scheme not in _SERVERS:
            raise ValidationError(
                f"the store {StoreUrl(text)} is of a kind that is not known: "
                "give a directory, file:///path or postgresql://host/database"
            )
        return StoreUrl(text)
    return Path(text).expanduser().absolute()


_SERVERS = ("postgresql", "postgres")


def store_text(place: Path | StoreUrl) -> str:
    """What `DURABLE_NB_STORE` says for this store, with all that it takes to open it."""
    return place.text if isinstance(place, StoreUrl) else str(place)


def is_store(place: Path | StoreUrl) -> bool:
    """Whether there is a store in a directory; of one on a server the answer comes when it is opened."""
    return isinstance(place, StoreUrl) or (place / "journal.db").exists()


def cache_of(url: StoreUrl, settings: Settings) -> Path:
    """The folder of this machine's copies of a store on a server."""
    if settings.cache is not None:
        base = Path(settings.cache).expanduser().absolute()
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")).absolute() / "durable_nb"
    # One folder for each store; nothing in it says how to open it.
    return base / hashlib.blake2b(str(url).encode(), digest_size=8).hexdigest()


def open_store(
    place: str | os.PathLike[str] | StoreUrl, *, settings: Settings | None = None, create: bool = True
) -> Store:
    """Open the store in a directory or on a server.

    Args:
        place: the store's directory or URL.
        settings: gives the key that rows are signed with.
        create: make it when there is none.

    Raises:
        StoreMissingError: there is none and `create` is False.
        StoreUnreadableError: it cannot be read.
        StoreVersionError: a newer durable_nb wrote it.
    """
    chosen = settings or Settings.from_environment()
    if isinstance(place, str) and "://" in place:
        place = find_store(Settings(store=place), Path.cwd())
    if isinstance(place, StoreUrl):
        return _open_on_server(place, chosen, create=create)
    return _open_in_directory(place, chosen, create=create)


def _open_on_server(url: StoreUrl, chosen: Settings, *, create: bool) -> Store:
    from durable_nb.journal import PostgresBlobs, PostgresJournal, PostgresMarkers, PostgresServer, PostgresShare
    from durable_nb.snapshot import CachedBlobStore, open_objects

    if chosen.encryption_key is not None:
        raise StoreUnreadableError(
            str(url), "durable_nb does not encrypt a store on a server: unset DURABLE_NB_ENCRYPTION_KEY for it"
        )
    cache, limit = cache_of(url, chosen), size_of(chosen.cache_size)
    server = PostgresServer(url, create=create)
    try:
        files = _copies(cache)
        signer, *trusts = _signers(chosen)
        objects = None if chosen.blobs is None else open_objects(chosen.blobs)
        blobs = CachedBlobStore(PostgresBlobs(server, objects), files, limit=limit)
        journal = PostgresJournal(server, signer=signer, trusts=trusts)
        return Store(cache, journal, blobs, PostgresMarkers(server), PostgresShare(server), url)
    except BaseException:
        server.close()
        raise


def _copies(cache: Path) -> FileBlobStore:
    """This machine's copies; a disk that is full stops nobody."""
    from durable_nb.snapshot import FileBlobStore, NoCopies

    try:
        _make_directory(cache)
        return FileBlobStore(cache / "blobs")
    except OSError as exc:
        logger.warning("blobs are read into memory, since no copies can be kept in %s: %s", cache, exc.strerror or exc)
        return NoCopies(cache / "blobs")


def _open_in_directory(place: str | os.PathLike[str], chosen: Settings, *, create: bool) -> Store:
    from durable_nb.encryption import cipher_of
    from durable_nb.journal import EncryptedJournal, FileMarkers, Pin, SqliteJournal
    from durable_nb.journal._filesystem import is_network
    from durable_nb.snapshot import EncryptedBlobStore, FileBlobStore

    directory = Path(place).expanduser().absolute()
    database = directory / "journal.db"
    if not create and not database.exists():
        raise StoreMissingError(str(directory), f"there is no store here (no {database.name})")
    try:
        _make_directory(directory)
        if create:
            _ignore_in_git(directory)
    except OSError as exc:
        raise StoreUnreadableError(str(directory), str(exc)) from exc
    signer, *trusts = _signers(chosen)
    cipher = cipher_of(directory, chosen.encryption_key, new=not database.exists())
    try:
        pin = Pin(directory)
    except OSError as exc:
        raise StoreUnreadableError(str(directory), str(exc)) from exc
    try:
        journal: Journal
        blobs: BlobStore
        journal = rows = SqliteJournal(database, signer=signer, trusts=trusts, encrypted=cipher is not None)
        blobs = files = FileBlobStore(directory / "blobs", use_maps=not is_network(directory))
        if cipher is not None:
            journal, blobs = EncryptedJournal(rows, cipher), EncryptedBlobStore(files, cipher)
    except BaseException:
        pin.close()
        raise
    return Store(directory, journal, blobs, FileMarkers(directory / "started"), pin)


def _signers(settings: Settings) -> list[Callable[[bytes], bytes]]:
    """What signs the rows of a journal, and after it what else is trusted."""
    from durable_nb.snapshot import Keyring, signature

    return [partial(_sign_row, signature, key) for key in Keyring(settings.key).trusted]


def _sign_row(sign: Callable[[bytes, bytes, str], bytes], key: bytes, row: bytes) -> bytes:
    return sign(key, row, "journal")


def _make_directory(directory: Path) -> None:
    """Make a folder, mode 0700, and what is missing above it; synced, so that a loss of power keeps the names."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    handle = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _ignore_in_git(directory: Path) -> None:
    """A store inside a repository is nobody's source: it ignores itself."""
    note = directory / ".gitignore"
    if directory.name == STORE_DIRECTORY and not note.exists():
        note.write_text("*\n", encoding="utf-8")


# --- Handlers ---------------------------------------------------------------------------------------------------------

_shared: dict[tuple[int, Path | StoreUrl], Store] = {}
_shared_lock = threading.Lock()


def default_store(settings: Settings | None = None) -> Store:
    """The store that handlers use: `DURABLE_NB_STORE`, else `.durable/` in the working directory."""
    chosen = settings or Settings.from_environment()
    return shared_store(find_store(chosen, Path.cwd()))


def shared_store(place: str | os.PathLike[str] | StoreUrl) -> Store:
    """The open store of a place, one per process: its users share commits. It is closed when the process ends."""
    chosen = place if isinstance(place, StoreUrl) else Path(place).expanduser().absolute()
    # A forked child must not use its parent's connection.
    key = (os.getpid(), chosen)
    with _shared_lock:
        store = _shared.get(key)
        if store is None:
            store = _shared[key] = open_store(chosen)
            atexit.register(store.close)
        return store


def driver_for(store: Any = None, **options: Any) -> Driver:
    """What drives handlers on a store: a directory or URL, an open `Store`, a `Journal`, a `Driver`, or None."""
    from durable_nb.sdk._driver import Driver

    if isinstance(store, Driver):
        return store
    if isinstance(store, Journal):
        return Driver(store, **options)
    if store is None:
        store = default_store()
    elif not isinstance(store, Store):
        named = store if isinstance(store, StoreUrl) else find_store(Settings(store=os.fspath(store)), Path.cwd())
        store = shared_store(named)
    return Driver(store.journal, markers=store.markers, **options)


def executor_for(place: Any) -> Executor:
    """Where the bodies of a batch run: an `Executor`, `dask://host:port`, or a `distributed.Client`.

    Nothing is connected before something is submitted, so a batch that is replayed needs no cluster.

    Raises:
        ValidationError: it is nothing that bodies can run on.
    """
    if isinstance(place, Executor):
        return place
    # By name: clusters stand below this module, and are loaded where one is used.
    made: Executor = importlib.import_module("durable_nb.distributed").executor_for(place)
    return made


class Worker:
    """Drives whatever is due in a store: waits that are over, retries, callbacks that came, executions whose process
    died.

    It claims no more than it can drive at once; any number of workers, on any number of hosts, share what is due.

    Args:
        driver: of the store.
        threads: how many executions are driven at once.
        limits: handlers of which all workers with this limit together drive no more executions at once than this.
    """

    def __init__(self, driver: Driver, *, threads: int = 4, limits: Mapping[str, int] | None = None) -> None:
        self.driver = driver
        self.threads = threads
        self.limits = dict(limits or {})
        self._stop = threading.Event()
        self._running: dict[str, threading.Thread] = {}
        """By the execution that its thread drives."""
        self._failed: dict[str, int] = {}
        """Executions that this worker cannot drive (an unknown handler, a decision that is missing): said once and left
        alone until something is recorded after this number."""
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Let `run_forever` return when what it drives has suspended or ended."""
        self._stop.set()

    def run_forever(self, *, poll_seconds: float = 0.5) -> None:
        """Drive until `stop` is called. What others announce is driven at once, the rest within `poll_seconds`."""
        while not self._stop.is_set():
            try:
                self.start_due()
            except StoreUnreadableError as error:
                # Away for longer than a call waits; leases run out, and what was driven is resumed when it is back.
                logger.warning("the store cannot be asked for what is due: %s", error)
            self.driver.journal.await_due(self._stop, poll_seconds)
        self._join()

    def run_until_idle(self) -> int:
        """Drive what is due now, and what becomes due by that; returns how many executions were taken up."""
        count = 0
        while started := self.start_due():
            count += started
            self._join()
        return count

    def start_due(self) -> int:
        """Start a thread for each due execution that nobody drives, as many as may run at once; returns how many."""
        with self._lock:
            free = self.threads - len(self._running)
        started = 0
        for claimed in self._claim(free):
            thread = threading.Thread(
                target=self._drive_on, args=(claimed,), name=f"durable_nb worker {claimed.record.name}"
            )
            with self._lock:
                self._running[claimed.record.execution_id] = thread
            thread.start()
            started += 1
        return started

    def _claim(self, limit: int, *, after: str | None = None) -> Sequence[Claimed]:
        """Take what is due and not being driven here; `after` is what the asking thread has just driven."""
        if limit <= 0 or self._stop.is_set():
            return ()
        with self._lock:
            running = self._running.keys() - {after}
            without = [*running, *self._failed]
        # Only those that nothing has happened to since are left alone.
        without = [execution for execution in without if execution in running or self._is_hopeless(execution)]
        return self.driver.journal.claim(
            self.driver.clock.now(),
            kind=HANDLER_KIND,
            limit=limit,
            ttl=LEASE_SECONDS,
            without=without,
            limits=self.limits or None,
        )

    def _drive_on(self, claimed: Claimed) -> None:
        """Drive one execution after the other: a thread that is free takes the next one itself."""
        following: Claimed | None = claimed
        while following is not None:
            claimed, following = following, None
            try:
                self._drive(claimed)
                following = next(iter(self._claim(1, after=claimed.record.execution_id)), None)
            except StoreUnreadableError as error:
                logger.warning("execution %s is left to others: %s", claimed.record.name, error)
            finally:
                with self._lock:
                    thread = self._running.pop(claimed.record.execution_id)
                    if following is not None:
                        self._running[following.record.execution_id] = thread

    def _drive(self, claimed: Claimed) -> None:
        record, lease = claimed.record, claimed.lease
        try:
            try:
                handler = self.driver.handler_of(record)
            except BaseException:
                self.driver.journal.release(lease)
                raise
            self.driver.drive(record, handler, wait=False, lease=lease)
        except (LeaseHeldError, LeaseLostError):
            pass  # another process is on it
        except StoreUnreadableError:
            raise
        except DurableExecutionsError as error:
            logger.error("execution %s cannot be driven: %s", record.name, error)  # noqa: TRY400 - expected: one line
            self._failed[record.execution_id] = self._last(record)

    def _is_hopeless(self, execution_id: str) -> bool:
        last = self._failed.get(execution_id)
        if last is None:
            return False
        if next(iter(self.driver.journal.read(execution_id, after=last)), None) is None:
            return True
        self._failed.pop(execution_id, None)
        return False

    def _last(self, record: ExecutionRecord) -> int:
        return max((stored.sequence for stored in self.driver.journal.read(record.execution_id)), default=0)

    def _join(self) -> None:
        with self._lock:
            threads = list(self._running.values())
        for thread in threads:
            thread.join()
