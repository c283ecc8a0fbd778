"""Large blobs of a shared store in a folder or a bucket, also where that answers 500, slowly or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durable_nb.exceptions import DamagedBlobError, MissingBlobError, StoreError, ValidationError
from durable_nb.maintenance import Budget, check, collect
from durable_nb.runtime import Store, open_store
from durable_nb.settings import Settings
from durable_nb.snapshot import _objects
from tests.servers import s3
from tests.servers.postgres import Cluster

SMALL = b"a few bytes"
LARGE = os.urandom(9 << 20) + b"the end"


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Bucket]:
    with s3.started() as bucket:
        yield bucket


@pytest.fixture
def bucket(server: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Bucket]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.failing, server.seconds, server.requests = 0, 0.0, 0
    yield server
    server.failing, server.seconds = 0, 0.0


@contextmanager
def opened(url: str, cache: Path, blobs: str | None) -> Iterator[Store]:
    store = open_store(url, settings=Settings(key="team", cache=str(cache), blobs=blobs))
    try:
        yield store
    finally:
        store.close()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_large_blobs_are_in_the_folder_and_go_with_their_rows(postgres: Cluster, tmp_path: Path) -> None:
    url, folder = postgres.new_store(), tmp_path / "blobs"
    with opened(url, tmp_path / "one", str(folder)) as store:
        small, large = store.blobs.put(SMALL), store.blobs.put(LARGE)
        assert [path.stat().st_size for path in _files(folder)] == [len(LARGE)]
        assert store.blobs.put(LARGE) == large
        assert len(_files(folder)) == 1
    with opened(url, tmp_path / "two", f"file://{folder}") as store:
        assert bytes(store.blobs.map(large)) == LARGE
        assert store.blobs.get(small) == SMALL
        assert check(store).good
    with opened(url, tmp_path / "three", None) as store:
        assert store.blobs.get(small) == SMALL
        with pytest.raises(StoreError, match="set DURABLE_NB_BLOBS"):
            store.blobs.get(large)
    schema = url.rpartition("schema=")[2]
    with opened(url, tmp_path / "one", str(folder)) as store:
        for _ in range(2):
            postgres.sql(f"UPDATE {schema}.blobs SET touched = touched - interval '2h'")
            postgres.sql(f"UPDATE {schema}.blobs SET condemned = condemned - interval '2h'")
            collect(store, Budget())
        assert _files(folder) == []
        with pytest.raises(MissingBlobError):
            store.blobs.get(large)


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_an_object_that_is_lost_or_damaged_is_told_and_written_again(
    postgres: Cluster, tmp_path: Path, harm: str
) -> None:
    url, folder = postgres.new_store(), tmp_path / "blobs"
    with opened(url, tmp_path / "one", str(folder)) as store:
        address = store.blobs.put(LARGE)
    (path,) = _files(folder)
    if harm == "lost":
        path.unlink()
    else:
        path.write_bytes(LARGE[:-1] + b"X")
    with opened(url, tmp_path / "two", str(folder)) as store:
        with pytest.raises((DamagedBlobError, MissingBlobError)):
            store.blobs.map(address)
        assert store.blobs.put(LARGE) == address
    with opened(url, tmp_path / "three", str(folder)) as store:
        assert store.blobs.get(address) == LARGE
    assert len(_files(folder)) == 1, "the damaged one has gone"


def test_a_bucket_keeps_large_blobs(postgres: Cluster, bucket: s3.Bucket, tmp_path: Path) -> None:
    url = postgres.new_store()
    with opened(url, tmp_path / "one", bucket.url) as store:
        small, large = store.blobs.put(SMALL), store.blobs.put(LARGE)
    with opened(url, tmp_path / "two", bucket.url) as store:
        assert bytes(store.blobs.map(large)) == LARGE
        assert store.blobs.get(small) == SMALL
        store.blobs.delete(large)
        with pytest.raises(MissingBlobError):
            store.blobs.get(large)


def test_a_bucket_that_answers_500_for_a_while_or_slowly_is_asked_again(
    postgres: Cluster, bucket: s3.Bucket, tmp_path: Path
) -> None:
    url = postgres.new_store()
    bucket.failing = 2
    with opened(url, tmp_path / "one", bucket.url) as store:
        large = store.blobs.put(LARGE)
    assert bucket.failing == 0
    bucket.failing, bucket.seconds = 1, 0.3
    with opened(url, tmp_path / "two", bucket.url) as store:
        assert store.blobs.get(large) == LARGE


def test_what_could_not_be_written_to_a_bucket_is_in_no_row(
    postgres: Cluster, bucket: s3.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_store()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(_objects, "PATIENCE", 1.0)
    with opened(url, tmp_path / "one", bucket.url) as store:
        with pytest.raises(StoreError, match="a blob cannot be written to s3://blobs/team"):
            store.blobs.put(LARGE)
        assert list(store.blobs.addresses()) == []


def test_a_place_of_an_unknown_kind_is_refused(postgres: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="DURABLE_NB_BLOBS"), opened(postgres.new_store(), tmp_path, "ftp://x/y"):
        pass
