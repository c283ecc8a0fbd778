"""Content-addressed bytes on disk and in memory.

Theory. A blob's name is the BLAKE3 hash of its bytes, so equal bytes are kept once and a blob never changes: it is
written under a temporary name, synced, given its name and its directory synced. From `TREE_FROM` bytes on the name is
the hash of the hashes of 1 MiB chunks instead, so that a changed gigabyte can be named without reading the chunks that
did not change.

Trust. Nothing here follows a symbolic link, and an address is a hexadecimal number before it becomes a path. `get`
verifies always. `map` verifies once: what was verified is remembered with inode, size and both times, in the process
and in the store, so that `vouches` need not read it; a blob that is only believed because of a remembered line is
verified again in the background when it is mapped, and `settle` says what turned out to be damaged.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from durable_nb.abc import BlobStore, Buffer
from durable_nb.exceptions import DamagedBlobError, MissingBlobError, ValidationError

CHUNK = 1 << 20
"""Bytes per chunk of a large blob."""

TREE_FROM = 4 << 20
"""Bytes from which on a blob's address is the root of its chunk hashes."""

_PARALLEL_FROM = 32 << 20
"""Bytes from which on a blob is hashed while it is being written."""

_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
"""Bytes that this machine has: nothing larger is ever read into memory."""

_PATIENCE = 0.2
"""Seconds that a check waits before it begins, so that it does not take the processor from the cells that are given
back just now; whoever waits for it (`settle`) makes it begin at once."""

_TRASH = "trash"
"""Folder of condemned blobs."""

_HEX = frozenset("0123456789abcdef")


class Map(mmap.mmap):
    """Private copy-on-write memory of a restored buffer; the type tells our maps from a user's own."""


def views(data: Buffer | Sequence[Buffer]) -> list[memoryview]:
    """`data` as flat byte views, without a copy."""
    parts: Sequence[Buffer] = [data] if isinstance(data, (bytes, bytearray, memoryview)) else data
    return [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]


def pieces(parts: Sequence[memoryview], size: int = CHUNK) -> Iterator[memoryview]:
    """The parts cut at multiples of `size` of the joined bytes; a piece never crosses a chunk."""
    room = size
    for part in parts:
        start = 0
        while start < part.nbytes:
            piece = part[start : start + room]
            yield piece
            start += piece.nbytes
            room = room - piece.nbytes or size


def chunk_hashes(parts: Sequence[memoryview]) -> list[bytes]:
    """BLAKE3 of each 1 MiB chunk of the joined parts."""
    found: list[bytes] = []
    hasher, done = blake3(), 0
    for piece in pieces(parts):
        hasher.update(piece)
        done += piece.nbytes
        if done == CHUNK:
            found.append(hasher.digest())
            hasher, done = blake3(), 0
    if done:
        found.append(hasher.digest())
    return found


def root_of(hashes: Sequence[bytes], size: int) -> str:
    """The address of a large blob, from the hashes of its chunks."""
    hasher = blake3(b"durable_nb tree 1\0" + size.to_bytes(8, "big"))
    hasher.update(b"".join(hashes))
    return hasher.hexdigest()


def address_of(data: Buffer | Sequence[Buffer]) -> str:
    """The name under which a store keeps `data`."""
    parts = views(data)
    size = sum(part.nbytes for part in parts)
    if size >= TREE_FROM:
        return root_of(chunk_hashes(parts), size)
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def _checked(address: str) -> str:
    if len(address) != 64 or not _HEX.issuperset(address):
        raise ValidationError(f"not a blob address: {address!r}")
    return address


class MemoryBlobStore(BlobStore):
    """Blobs in a dict: for tests and for rolling back inside one process."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, data: Buffer | Sequence[Buffer]) -> str:
        address = address_of(data)
        if address not in self._blobs:
            self._blobs[address] = b"".join(views(data))
        return address

    def get(self, address: str) -> bytes:
        try:
            return self._blobs[_checked(address)]
        except KeyError:
            raise MissingBlobError(address) from None

    def map(self, address: str) -> memoryview:
        data = self.get(address)
        if not data:
            return memoryview(bytearray())
        block = Map(-1, len(data))
        block[:] = data
        return memoryview(block)

    def has(self, address: str) -> bool:
        return _checked(address) in self._blobs

    def size(self, address: str) -> int:
        return len(self.get(address))

    def vouches(self, address: str, size: int) -> bool:
        found = self._blobs.get(_checked(address))
        return found is not None and size in (-1, len(found))

    def addresses(self) -> Iterator[str]:
        return iter(list(self._blobs))

    def delete(self, address: str) -> None:
        self._blobs.pop(_checked(address), None)


_Facts = tuple[int, int, int, int]


class FileBlobStore(BlobStore):
    """Blobs as files `ab/<address>` below one directory, mode 0400, never rewritten.

    Args:
        root: the directory; made with mode 0700 when it is missing.
        use_maps: False reads instead of mapping (network file systems).
    """

    def __init__(self, root: str | os.PathLike[str], *, use_maps: bool = True) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            self.root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.root, 0o700)
            _sync_directory(self.root.parent)  # else a loss of power could take every blob, and leave the rows
        self._use_maps = use_maps
        self._lock = threading.Lock()
        self._verified: dict[str, _Facts] = {}
        self._remembered: dict[str, _Facts] | None = None
        self._unsettled: dict[str, None] = {}
        self._damaged: set[str] = set()
        self._checker: threading.Thread | None = None
        self._awaited = threading.Event()
        self._synced_directories: set[str] = set()
        self._durable: set[str] = set()

    # --- writing ---------------------------------------------------------------------------------------------

    def put(self, data: Buffer | Sequence[Buffer]) -> str:
        parts = views(data)
        size = sum(part.nbytes for part in parts)
        if size >= _PARALLEL_FROM:
            return self._put_large(parts, size)[0]
        address = address_of(parts)
        if not self._holds(address):
            self._publish(self._write_temporary(parts), address)
        return address

    def _holds(self, address: str) -> bool:
        """True when the blob is there to stay: another process may have written it and died before it was synced."""
        if not self._exists(address):
            return False
        if address not in self._durable:
            with self._open(address) as (descriptor, _):
                os.fsync(descriptor)
            _sync_directory(os.path.join(self.root, address[:2]))
            _sync_directory(self.root)
            self._durable.add(address)
        return True

    def put_large(self, data: memoryview) -> tuple[str, list[bytes]]:
        """Like `put`, for `TREE_FROM` bytes and more; also returns the hashes of the chunks."""
        parts = views(data)
        if data.nbytes >= _PARALLEL_FROM:
            return self._put_large(parts, data.nbytes)
        hashes = chunk_hashes(parts)
        address = root_of(hashes, data.nbytes)
        if not self._holds(address):
            self._publish(self._write_temporary(parts), address)
        return address, hashes

    def _put_large(self, parts: list[memoryview], size: int) -> tuple[str, list[bytes]]:
        """Hash while writing: together they take little more than the write alone."""
        hashes: list[bytes] = []
        hashing = threading.Thread(target=lambda: hashes.extend(chunk_hashes(parts)), name="durable_nb hashing")
        hashing.start()
        try:
            temporary = self._write_temporary(parts)
        finally:
            hashing.join()
        address = root_of(hashes, size)
        if self._holds(address):
            os.unlink(temporary)
        else:
            self._publish(temporary, address)
        return address, hashes

    def _write_temporary(self, parts: Sequence[memoryview]) -> str:
        path = os.path.join(self.root, f"tmp-{os.getpid()}-{secrets.token_hex(8)}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o400)
        try:
            try:
                for part in parts:
                    start = 0
                    while start < part.nbytes:
                        count = os.write(descriptor, part[start : start + (64 << 20)])
                        start += count
                        self.written += count
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return path

    def _publish(self, temporary: str, address: str) -> None:
        folder = os.path.join(self.root, address[:2])
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        path = os.path.join(folder, address)
        os.rename(temporary, path)
        _sync_directory(folder)
        if address[:2] not in self._synced_directories:
            _sync_directory(self.root)
            self._synced_directories.add(address[:2])
        self._durable.add(address)
        self._damaged.discard(address)
        self._remember(address, _facts(os.lstat(path)))

    def receive(self, address: str, data: Iterator[bytes]) -> None:
        """Keep a blob that comes in pieces from elsewhere, if it is what its address says.

        Raises:
            DamagedBlobError: it is not; nothing is kept.
        """
        path = os.path.join(self.root, f"tmp-{os.getpid()}-{secrets.token_hex(8)}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o400)
        try:
            try:
                for piece in data:
                    view = memoryview(piece)
                    while view:
                        view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
                size = os.lseek(descriptor, 0, os.SEEK_END)
                os.lseek(descriptor, 0, os.SEEK_SET)
                if _address_of_file(descriptor, size) != _checked(address):
                    raise DamagedBlobError(address)
            finally:
                os.close(descriptor)
            self._publish(path, address)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, address: str) -> bytes:
        with self._open(address) as (descriptor, facts):
            if facts[1] > _MEMORY:  # a file with holes costs its writer nothing
                raise DamagedBlobError(address)
            data = bytearray(facts[1])
            _read_into(descriptor, memoryview(data))
        if address_of(data) != address:
            self._damaged.add(address)
            raise DamagedBlobError(address)
        self._remember(address, facts)
        return bytes(data)

    def map(self, address: str) -> memoryview:
        with self._open(address) as (descriptor, facts):
            if facts[1] == 0:  # nothing can be mapped; an emptied file is damage like any other
                if address != address_of(b""):
                    self._damaged.add(address)
                    raise DamagedBlobError(address)
                return memoryview(bytearray())
            if not self._use_maps:
                copy = memoryview(Map(-1, facts[1]))
                _read_into(descriptor, copy)
                if address_of(copy) != address:
                    self._damaged.add(address)
                    raise DamagedBlobError(address)
                return copy
            view = memoryview(Map(descriptor, facts[1], access=mmap.ACCESS_COPY))
            if address in self._damaged:
                raise DamagedBlobError(address)
            if self._verified.get(address) != facts:
                if self._recall().get(address) == facts:
                    self._verify_later(address)
                else:
                    if _address_of_file(descriptor, facts[1]) != address:
                        self._damaged.add(address)
                        raise DamagedBlobError(address)
                    self._remember(address, facts)
            return view

    def has(self, address: str) -> bool:
        return self._holds(address)

    def _exists(self, address: str) -> bool:
        if address in self._damaged:
            return False  # so that it is written again
        try:
            return stat.S_ISREG(os.lstat(self._path(address)).st_mode)
        except FileNotFoundError:
            return False

    def size(self, address: str) -> int:
        for path in (self._path(address), self._trashed(address)):
            with contextlib.suppress(FileNotFoundError):
                return os.lstat(path).st_size
        raise MissingBlobError(address)

    def vouches(self, address: str, size: int) -> bool:
        if address in self._damaged:
            return False
        try:
            status = os.lstat(self._path(address))
        except OSError:
            return False
        facts = _facts(status)
        if not stat.S_ISREG(status.st_mode) or size not in (-1, facts[1]):
            return False
        return facts in (self._verified.get(address), self._recall().get(address))

    def addresses(self) -> Iterator[str]:
        for folder in sorted(self.root.iterdir()):
            if len(folder.name) == 2 and folder.is_dir():
                for path in sorted(folder.iterdir()):
                    if len(path.name) == 64 and _HEX.issuperset(path.name):
                        yield path.name

    def delete(self, address: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(address))
        with self._lock:
            self._verified.pop(address, None)

    # --- collection ------------------------------------------------------------------------------------------
    #
    # A writer that finds a blob in place does not write it again, and commits the row that names it a moment later. So
    # a blob that no row names is first *condemned*: moved where writers do not look for it and readers still do. It is
    # purged when no such writer can be left, or spared when a row names it after all.

    def temporaries(self) -> Iterator[Path]:
        """Files that a killed writer left behind; collection removes the old ones."""
        return self.root.glob("tmp-*")

    def places(self, address: str) -> Iterator[Path]:
        """The files that a blob has."""
        for name in (self._path(address), self._trashed(address)):
            if os.path.lexists(name):
                yield Path(name)

    def condemn(self, *addresses: str) -> None:
        """Take blobs away from writers; readers still find them."""
        trash = os.path.join(self.root, _TRASH)
        with contextlib.suppress(FileExistsError):
            os.mkdir(trash, 0o700)
        for address in addresses:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._path(address), os.path.join(trash, address))
            with self._lock:
                self._verified.pop(address, None)
                self._durable.discard(address)

    def condemned(self) -> Iterator[tuple[str, float]]:
        """Condemned blobs, and since when (seconds since the epoch)."""
        for path in sorted(self.root.joinpath(_TRASH).glob("*")):
            if len(path.name) == 64 and _HEX.issuperset(path.name):
                yield path.name, path.lstat().st_ctime

    def spare(self, address: str) -> None:
        """Put a condemned blob back."""
        if self._exists(address):
            self.purge(address)
        else:
            os.makedirs(os.path.join(self.root, address[:2]), 0o700, exist_ok=True)
            os.rename(self._trashed(address), self._path(address))
            _sync_directory(os.path.join(self.root, address[:2]))
            _sync_directory(self.root)

    def purge(self, address: str) -> int:
        """Remove a condemned blob for good; returns its size."""
        path = self._trashed(address)
        size = os.lstat(path).st_size
        os.unlink(path)
        return size

    def _trashed(self, address: str) -> str:
        return os.path.join(self.root, _TRASH, _checked(address))

    # --- verification ----------------------------------------------------------------------------------------

    def settle(self, timeout: float | None = None) -> tuple[str, ...]:
        """Wait until everything mapped so far is verified; returns the damaged addresses.

        Raises:
            TimeoutError: when verification takes longer than `timeout` seconds.
        """
        checker = self._checker
        if checker is not None:
            self._awaited.set()
            checker.join(timeout)
            if checker.is_alive():
                raise TimeoutError("blobs are still being verified")
        return tuple(sorted(self._damaged))

    def _verify_later(self, address: str) -> None:
        with self._lock:
            self._unsettled[address] = None
            if self._checker is None:
                self._awaited.clear()
                self._checker = threading.Thread(target=self._verify_all, name="durable_nb verifier", daemon=True)
                self._checker.start()

    def _verify_all(self) -> None:
        self._awaited.wait(_PATIENCE)
        while True:
            with self._lock:
                if not self._unsettled:
                    self._checker = None
                    return
                address = next(iter(self._unsettled))
            try:
                self._verify(address)
            except (DamagedBlobError, MissingBlobError, OSError):
                self._damaged.add(address)
            with self._lock:
                self._unsettled.pop(address, None)

    def _verify(self, address: str) -> None:
        # Read, not looked at through a map: what is only checked is not to count as the kernel's memory.
        with self._open(address) as (descriptor, facts):
            good = _address_of_file(descriptor, facts[1]) == address
        if not good:
            raise DamagedBlobError(address)
        self._verified[address] = facts

    def _remember(self, address: str, facts: _Facts) -> None:
        with self._lock:
            self._verified[address] = facts
            if self._recall().get(address) == facts:
                return
            self._recall()[address] = facts
            line = f"{address} {' '.join(map(str, facts))}\n".encode()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            with contextlib.suppress(OSError):  # a full or read-only disk: the blob is verified again next time
                descriptor = os.open(os.path.join(self.root, "verified"), flags, 0o600)
                try:
                    os.write(descriptor, line)
                finally:
                    os.close(descriptor)

    def _recall(self) -> dict[str, _Facts]:
        if self._remembered is None:
            found: dict[str, _Facts] = {}
            path = os.path.join(self.root, "verified")
            with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as lines:
                for line in lines:
                    words = line.split()
                    # A line torn by a crash is no evidence: its blob is simply verified again.
                    if len(words) == 5 and all(word.isdigit() for word in words[1:]):
                        found[words[0]] = (int(words[1]), int(words[2]), int(words[3]), int(words[4]))
            self._remembered = found
        return self._remembered

    # --- files -----------------------------------------------------------------------------------------------

    def _path(self, address: str) -> str:
        return os.path.join(self.root, _checked(address)[:2], address)

    @contextlib.contextmanager
    def _open(self, address: str) -> Iterator[tuple[int, _Facts]]:
        _checked(address)
        # Not blocking: a pipe that stands where the blob was must not make anybody wait.
        flags = os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        descriptor = self._descriptor(address[:2], address, flags)
        if descriptor is None:
            descriptor = self._descriptor(_TRASH, address, flags)
        if descriptor is None:
            raise MissingBlobError(address)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DamagedBlobError(address)
            yield descriptor, _facts(status)
        finally:
            os.close(descriptor)

    def _descriptor(self, folder: str, address: str, flags: int) -> int | None:
        """The blob in one of the store's folders, or None. A symbolic link in either place is damage."""
        try:
            place = os.open(os.path.join(self.root, folder), flags | getattr(os, "O_DIRECTORY", 0))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise DamagedBlobError(address) from exc
        try:
            return os.open(address, flags, dir_fd=place)
        except FileNotFoundError:
            return None
        except OSError as exc:  # ELOOP: a symbolic link stands where the blob was
            raise DamagedBlobError(address) from exc
        finally:
            os.close(place)


def _facts(status: os.stat_result) -> _Facts:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_into(descriptor: int, target: memoryview) -> None:
    """Fill the target; a file that is too short leaves the rest, for the address to notice."""
    _filled(descriptor, target)


def _address_of_file(descriptor: int, size: int) -> str:
    """The address of a file's bytes, a chunk at a time; of other bytes than `size` it is nobody's address."""
    chunk = memoryview(bytearray(min(CHUNK, max(size, 1))))
    hasher, hashes, left = blake3(), [], size
    while left:
        part = chunk[: min(CHUNK, left)]
        if _filled(descriptor, part) != part.nbytes:
            return ""
        if size >= TREE_FROM:
            hashes.append(blake3(part).digest())
        else:
            hasher.update(part)
        left -= part.nbytes
    return root_of(hashes, size) if size >= TREE_FROM else hasher.hexdigest()


def _filled(descriptor: int, target: memoryview) -> int:
    """Bytes that could be read into the target: fewer than it holds only where the file ends."""
    filled = 0
    while filled < target.nbytes:
        count = os.readv(descriptor, [target[filled : filled + (64 << 20)]])
        if count == 0:
            break
        filled += count
    return filled


def _sync_directory(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
