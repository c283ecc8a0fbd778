"""Blobs: written once, verified, never reached through a link, never written through a map."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from durable_nb.abc import BlobStore
from durable_nb.exceptions import DamagedBlobError, MissingBlobError, ValidationError
from durable_nb.snapshot import FileBlobStore, MemoryBlobStore, address_of
from durable_nb.snapshot._blobs import CHUNK, TREE_FROM, chunk_hashes, root_of

LARGE = bytes(range(256)) * (TREE_FROM // 256) + b"tail"


@pytest.fixture(params=["file", "memory", "read"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "memory":
        return MemoryBlobStore()
    return FileBlobStore(tmp_path / "blobs", use_maps=request.param == "file")


def path_of(store: FileBlobStore, address: str) -> Path:
    return store.root / address[:2] / address


@pytest.mark.parametrize("data", [b"", b"x", b"y" * CHUNK, LARGE])
def test_what_is_put_is_got_and_mapped(store: BlobStore, data: bytes) -> None:
    address = store.put(data)
    assert store.get(address) == data == bytes(store.map(address))
    assert store.has(address)
    assert store.size(address) == len(data)
    assert list(store.addresses()) == [address]


def test_parts_have_the_address_of_the_whole(store: BlobStore) -> None:
    assert (
        store.put([LARGE[:5], memoryview(LARGE)[5:1000], bytearray(LARGE[1000:])])
        == store.put(LARGE)
        == address_of(LARGE)
    )


def test_the_address_of_a_large_blob_is_the_root_of_its_chunks() -> None:
    assert address_of(LARGE) == root_of(chunk_hashes([memoryview(LARGE)]), len(LARGE))
    assert len(chunk_hashes([memoryview(LARGE)])) == 5


def test_writing_to_a_map_reaches_nobody(store: BlobStore) -> None:
    address = store.put(LARGE)
    one, two = store.map(address), store.map(address)
    one[0] = 77
    assert two[0] == 0
    assert store.get(address) == LARGE


def test_a_missing_blob_is_said_to_be_missing(store: BlobStore) -> None:
    address = address_of(b"never put")
    for ask in (store.get, store.map, store.size):
        with pytest.raises(MissingBlobError):
            ask(address)
    assert not store.has(address)
    store.delete(address)


@pytest.mark.parametrize("address", ["../../etc/passwd", "", "ab", "G" * 64, "a" * 63 + "/"])
def test_an_address_is_never_a_path(store: BlobStore, address: str) -> None:
    for ask in (store.get, store.map, store.has, store.size, store.delete):
        with pytest.raises(ValidationError):
            ask(address)


def test_blobs_are_read_only_files_without_leftovers(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "blobs")
    address = store.put(LARGE)
    assert stat.S_IMODE(path_of(store, address).stat().st_mode) == 0o400
    assert list(store.temporaries()) == []


def test_the_same_bytes_are_written_once(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "blobs")
    address = store.put(LARGE)
    inode = path_of(store, address).stat().st_ino
    assert store.put(LARGE) == address
    assert path_of(store, address).stat().st_ino == inode


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_damage_is_noticed(tmp_path: Path, data: bytes) -> None:
    address = FileBlobStore(tmp_path).put(data)
    store = FileBlobStore(tmp_path)
    path = path_of(store, address)
    path.chmod(0o600)
    path.write_bytes(b"X" + data[1:])
    with pytest.raises(DamagedBlobError):
        store.get(address)
    with pytest.raises(DamagedBlobError):
        store.map(address)


def test_damage_behind_the_times_is_found_in_the_background(tmp_path: Path) -> None:
    address = FileBlobStore(tmp_path).put(LARGE)
    store = FileBlobStore(tmp_path)
    path = path_of(store, address)
    path.chmod(0o600)
    path.write_bytes(b"X" + LARGE[1:])
    status = path.stat()
    facts = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    with (tmp_path / "verified").open("a") as lines:
        lines.write(f"{address} {' '.join(map(str, facts))}\n")
    store.map(address)
    assert store.settle(30) == (address,)
    with pytest.raises(DamagedBlobError):
        store.map(address)


def test_a_remembered_blob_is_verified_again_and_found_good(tmp_path: Path) -> None:
    address = FileBlobStore(tmp_path).put(LARGE)
    store = FileBlobStore(tmp_path)
    view = store.map(address)
    view[0] = 9
    assert store.settle(30) == ()


def test_a_link_in_the_place_of_a_blob_is_not_followed(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "blobs")
    address = store.put(b"good")
    secret = tmp_path / "secret"
    secret.write_bytes(b"good")
    path_of(store, address).unlink()
    path_of(store, address).symlink_to(secret)
    with pytest.raises(DamagedBlobError):
        store.get(address)


def test_a_linked_directory_is_not_followed(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "blobs")
    address = store.put(b"good")
    folder = path_of(store, address).parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedBlobError):
        store.get(address)


def test_a_deleted_blob_stays_readable_where_it_is_mapped(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path)
    address = store.put(LARGE)
    view = store.map(address)
    store.delete(address)
    assert bytes(view) == LARGE
    assert not store.has(address)


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_a_damaged_blob_is_written_again(tmp_path: Path, data: bytes) -> None:
    store = FileBlobStore(tmp_path)
    address = store.put(data)
    path = path_of(store, address)
    path.chmod(0o600)
    path.write_bytes(b"X" + data[1:])
    with pytest.raises(DamagedBlobError):
        store.get(address)
    assert store.put(data) == address
    assert store.get(address) == data == bytes(store.map(address))
