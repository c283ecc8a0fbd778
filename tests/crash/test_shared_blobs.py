"""Blobs of a store on a server: read through a folder that may be lost, damaged or full, and collected by all hosts."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from durable_nb.exceptions import DamagedBlobError, MissingBlobError, StoreError, ValidationError
from durable_nb.maintenance import Budget, check, collect, repair
from durable_nb.runtime import Store, open_store
from durable_nb.settings import Settings, StoreUrl
from durable_nb.snapshot._copies import trim
from durable_nb.testing.conformance import event
from tests.servers.postgres import Cluster

SMALL = b"a few bytes"
LARGE = os.urandom(5 << 20) + b"the end"  # named by the hashes of its chunks, and several rows


@pytest.fixture
def url(postgres: Cluster) -> str:
    return postgres.new_store()


@contextmanager
def opened(url: str, cache: Path) -> Iterator[Store]:
    store = open_store(url, settings=Settings(key="team", cache=str(cache)))
    try:
        yield store
    finally:
        store.close()


def test_what_one_machine_wrote_another_maps_and_its_copy_is_verified(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path / "one") as one:
        addresses = [one.blobs.put(SMALL), one.blobs.put([LARGE[:1000], LARGE[1000:]]), one.blobs.put(b"")]
        written = one.blobs.written
        assert [one.blobs.put(data) for data in (SMALL, LARGE, b"")] == addresses
        assert one.blobs.written == written, "what is there costs no write"
    with opened(url, tmp_path / "two") as two:
        assert [bytes(two.blobs.map(address)) for address in addresses] == [SMALL, LARGE, b""]
        assert [two.blobs.get(address) for address in addresses] == [SMALL, LARGE, b""]
        assert two.blobs.vouches(addresses[1], len(LARGE))
        view = two.blobs.map(addresses[1])
        view[:3] = b"xyz"  # a private copy
        assert two.blobs.get(addresses[1]) == LARGE
        assert sorted(two.blobs.addresses()) == sorted(addresses)
        assert two.blobs.size(addresses[1]) == len(LARGE)
        with pytest.raises(MissingBlobError):
            two.blobs.get("ab" * 32)


def _copies(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if len(path.name) == 64]


@pytest.mark.parametrize("harm", ["lost", "changed", "cut short"])
def test_a_copy_that_is_lost_or_damaged_is_fetched_again(url: str, tmp_path: Path, harm: str) -> None:
    with opened(url, tmp_path) as store:
        address = store.blobs.put(LARGE)
    (copy,) = _copies(tmp_path)
    copy.chmod(0o600)
    if harm == "lost":
        copy.unlink()
    elif harm == "changed":
        copy.write_bytes(b"X" + LARGE[1:])
    else:
        copy.write_bytes(LARGE[:-1])
    with opened(url, tmp_path) as store:
        assert bytes(store.blobs.map(address)) == LARGE
        assert store.blobs.settle() == ()
    assert copy.read_bytes() == LARGE


@contextmanager
def _full_disk() -> Iterator[None]:
    """No file can grow beyond a kilobyte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_folder_that_is_full_stops_nobody(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path) as store, _full_disk():
        address = store.blobs.put(LARGE)
        view = store.blobs.map(address)
        got = store.blobs.get(address)
        leftovers = list((store.place / "blobs").glob("tmp-*"))
    assert bytes(view) == got == LARGE
    assert leftovers == []
    assert _copies(tmp_path) == []


def test_the_least_recently_used_copies_go_when_their_folder_is_too_large_and_what_is_mapped_stays(
    url: str, tmp_path: Path
) -> None:
    settings = Settings(key="team", cache=str(tmp_path), cache_size="1MB")
    data = [os.urandom(300_000) for _ in range(4)]
    # Of somebody who put the copies beside an embedded store.
    own = tmp_path / ".durable" / "blobs" / "ab" / ("ab" * 32)
    own.parent.mkdir(parents=True)
    own.write_bytes(bytes(2_000_000))
    with closing(open_store(url, settings=settings)) as store, closing(open_store(url, settings=settings)) as beside:
        addresses = [store.blobs.put(each) for each in data[:3]]
        views = [beside.blobs.map(address) for address in addresses]
        copies = {path.name: path for path in _copies(tmp_path) if path != own}
        assert len(copies) == 3
        for address, hours in zip(addresses, (2, 1, 3), strict=True):
            os.utime(copies[address], (time.time() - 3600 * hours,) * 2)
        addresses.append(store.blobs.put(data[3]))
        store.blobs.trim()
        assert [path.exists() for path in (copies[each] for each in addresses[:3])] == [False, True, False]
        trash = copies[addresses[0]].parents[1] / "trash"
        assert {path.name for path in trash.iterdir()} == {addresses[0], addresses[2]}
        assert beside.blobs.settle() == (), "what was about to be checked was found"
        for path in trash.iterdir():
            path.unlink()  # a minute later
        assert views == data[:3]
        for one in (store, beside):
            assert [one.blobs.get(address) for address in addresses] == data
            assert [bytes(one.blobs.map(address)) for address in addresses] == data
    assert own.exists()
    with closing(open_store(url, settings=replace(settings, cache_size="0"))) as store:
        assert collect(store, Budget()).copies > 0
    assert {path.parent.name for path in _copies(tmp_path) if path != own} == {"trash"}


def test_a_copy_that_was_put_aside_goes_a_minute_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ("0" * 16) / "blobs" / "ab" / ("ab" * 32)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(5000))
    assert trim(tmp_path, 1_000_000) == 0
    assert trim(tmp_path, 1000) >= 5000
    put_aside = path.parents[1] / "trash" / path.name
    assert put_aside.exists()
    assert trim(tmp_path, 1000) == 0
    assert put_aside.exists()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert trim(tmp_path, 1000) == 0
    assert not put_aside.exists()


def test_a_size_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="is no size"):
        open_store(url, settings=Settings(key="team", cache=str(tmp_path), cache_size="much"))


def test_a_blob_that_is_damaged_on_the_server_is_never_given_back_and_can_be_written_again(
    postgres: Cluster, url: str, tmp_path: Path
) -> None:
    with opened(url, tmp_path / "one") as store:
        address = store.blobs.put(LARGE)
        store.journal.append(_execution(store), [event("a")], payload_refs=[address])
    schema = url.rpartition("schema=")[2]
    postgres.sql(f"UPDATE {schema}.blob_chunks SET data = 'evil' WHERE number = 2")
    with opened(url, tmp_path / "two") as store:
        for read in (store.blobs.map, store.blobs.get):
            with pytest.raises(DamagedBlobError):
                read(address)
        assert _copies(tmp_path / "two") == []
        assert check(store).of("damaged blob") == [address]
        assert store.blobs.put(LARGE) == address
        assert check(store).good
    with opened(url, tmp_path / "three") as store:
        assert store.blobs.get(address) == LARGE
    with pytest.raises(StoreError, match="server's tools"):
        list(repair(StoreUrl(url)))


def _execution(store: Store) -> str:
    return store.journal.create("a", kind="notebook", at=1.0, details={}).execution_id


def _grow_old(postgres: Cluster, url: str) -> None:
    """Two hours pass."""
    schema = url.rpartition("schema=")[2]
    postgres.sql(f"UPDATE {schema}.blobs SET touched = touched - interval '2h', condemned = condemned - interval '2h'")


def test_what_nothing_names_goes_in_two_steps_and_what_is_found_or_named_or_held_meanwhile_stays(
    postgres: Cluster, url: str, tmp_path: Path
) -> None:
    with opened(url, tmp_path / "one") as one, opened(url, tmp_path / "two") as two:
        named, found, late, held, gone, young = (one.blobs.put(os.urandom(50)) for _ in range(6))
        one.journal.append(_execution(one), [event("a")], payload_refs=[named])
        two.hold([held])
        assert collect(one, Budget()).blobs == 0
        assert set(one.blobs.addresses()) == {named, found, late, held, gone, young}, "all are young"
        _grow_old(postgres, url)
        two.blobs.has(young)
        assert collect(one, Budget()).waiting == 3
        assert set(two.blobs.addresses()) == {named, held, young}
        assert two.blobs.has(found), "a writer that finds it will name it"
        two.journal.append(_execution(two), [event("b")], payload_refs=[late])
        _grow_old(postgres, url)
        assert collect(one, Budget()).blobs == 1
        assert set(two.blobs.addresses()) == {named, held, late}, "found and young are condemned now, and readable"
        for address in (named, late, held, young, found):
            assert one.blobs.check(address) == 50
        with pytest.raises(MissingBlobError):
            one.blobs.get(gone)
        assert check(one).of("missing blob") == []


def test_a_store_says_what_it_takes(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path) as store:
        before = store.share.nbytes()
        store.blobs.put(LARGE)
        assert store.share.nbytes() - before > len(LARGE) // 2


def test_reading_commands_make_no_store(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        open_store(url, settings=Settings(key="team", cache=str(tmp_path)), create=False)
