"""Encrypted stores: nothing of the user's is readable in them, and nothing is opened without the key."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_nb import codecs
from durable_nb.cli import main
from durable_nb.codecs import CHUNK, Cipher, sealed_size
from durable_nb.exceptions import (
    DamagedBlobError,
    MissingBlobError,
    StepInterruptedError,
    StoreError,
    StoreUnreadableError,
    ValidationError,
)
from durable_nb.journal import EncryptedJournal, SqliteJournal
from durable_nb.maintenance import Budget, check, collect
from durable_nb.runtime import open_store
from durable_nb.sdk import DurableContext, durable_execution
from durable_nb.sdk.pickle_serdes import PickleSerDes
from durable_nb.settings import Settings
from durable_nb.snapshot import EncryptedBlobStore, FileBlobStore
from durable_nb.testing.conformance import JournalTests
from tests.crash.handler_story import ONCE
from tests.crash.story import PROBES, Case, cells
from tests.fidelity.nursery import Job, Nursery

KEY = Settings(encryption_key="correct horse battery staple")
CIPHER = Cipher(bytes(range(32)))


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("DURABLE_NB_ENCRYPTION_KEY", raising=False)
    keep_secrets_in(monkeypatch, {})
    monkeypatch.setattr(codecs, "_COST", 1 << 4)  # what is slow on purpose need not be slow here


def keep_secrets_in(monkeypatch: pytest.MonkeyPatch, place: dict[Any, str]) -> None:
    """A keyring for this test; the machine's own is nobody's business here."""
    module = ModuleType("keyring")
    module.get_password = lambda *who: place.get(who)  # type: ignore[attr-defined]
    module.set_password = lambda *who: place.__setitem__(who[:2], who[2])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", module)


# --- the ports, as every journal and blob store keeps them -----------------------------------------------------------------


class TestEncryptedJournal(JournalTests):
    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[EncryptedJournal]:
        made = EncryptedJournal(SqliteJournal(tmp_path / "j.db", encrypted=True), CIPHER)
        yield made
        made.close()


@pytest.mark.parametrize("size", [0, 1, 5000, CHUNK, 5 * CHUNK + 3])
def test_blobs_are_put_got_and_mapped_as_in_any_store(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    blobs = EncryptedBlobStore(FileBlobStore(tmp_path / "blobs"), CIPHER)
    address = blobs.put([data[: size // 2], memoryview(data)[size // 2 :]])
    assert blobs.get(address) == data == bytes(blobs.map(address))
    assert (blobs.has(address), blobs.size(address), list(blobs.addresses())) == (True, size, [address])
    view = blobs.map(address)
    if size:
        view[0] ^= 255
    assert blobs.get(address) == data, "writing to a map reaches nobody"
    assert blobs.settle() == ()
    blobs.delete(address)
    for ask in (blobs.get, blobs.map, blobs.size):
        with pytest.raises(MissingBlobError):
            ask(address)


# --- messages -------------------------------------------------------------------------------------------------------------


def opened(sealed: bytes, context: bytes = b"c", cipher: Cipher = CIPHER) -> bytes:
    return b"".join(cipher.open(sealed, context))


@given(st.binary(max_size=300), st.binary(max_size=8), st.booleans())
def test_what_is_sealed_comes_back_and_its_size_is_known(data: bytes, context: bytes, same: bool) -> None:
    sealed = b"".join(CIPHER.seal([data], context, same=same))
    assert opened(sealed, context) == data
    assert sealed_size(len(sealed)) == len(data)
    assert len(data) < 4 or data not in sealed[4:], "behind the mark of a sealed message, which any data may equal"


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
def test_messages_of_several_chunks_come_back_however_their_parts_are_cut(size: int) -> None:
    data = os.urandom(size)
    whole = b"".join(CIPHER.seal([data], b"c", same=True))
    cut = b"".join(CIPHER.seal([data[: size // 3], memoryview(data)[size // 3 :]], b"c", same=True))
    assert whole == cut
    assert opened(whole) == data
    assert sealed_size(len(whole)) == size


def test_a_message_that_was_changed_cut_or_put_together_from_others_does_not_open() -> None:
    data = os.urandom(2 * CHUNK + 100)
    sealed = b"".join(CIPHER.seal([data], b"c"))
    other = b"".join(CIPHER.seal([data], b"c"))
    head, step = 36, CHUNK + 16
    wrong = {
        "flipped": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "flipped id": sealed[:10] + bytes([sealed[10] ^ 1]) + sealed[11:],
        "last chunk gone": sealed[: head + 2 * step],
        "two chunks gone": sealed[: head + step],
        "chunks swapped": sealed[:head]
        + sealed[head + step : head + 2 * step]
        + sealed[head : head + step]
        + sealed[head + 2 * step :],
        "another's chunk": sealed[:head] + other[head : head + step] + sealed[head + step :],
        "more": sealed + b"\0" * 20,
        "nothing": b"",
        "plain": data,
    }
    for what, message in wrong.items():
        with pytest.raises(StoreError):
            opened(message)
            pytest.fail(what)
    for context, cipher in ((b"d", CIPHER), (b"c", Cipher(bytes(32)))):
        with pytest.raises(StoreError):
            opened(sealed, context, cipher)


def test_equal_rows_are_sealed_differently_and_equal_blobs_equally(tmp_path: Path) -> None:
    assert CIPHER.seal([b"a"], b"c") != CIPHER.seal([b"a"], b"c")
    blobs = EncryptedBlobStore(FileBlobStore(tmp_path), CIPHER)
    assert blobs.put(b"a" * 1000) == blobs.put(b"a" * 1000)
    assert len(list(blobs.addresses())) == 1


def test_a_blob_that_is_whole_and_was_not_sealed_here_is_damaged(tmp_path: Path) -> None:
    files = FileBlobStore(tmp_path)
    blobs = EncryptedBlobStore(files, CIPHER)
    for address in (files.put(b"plain" * 100), files.put(b""), files.put(b"DNBE" + bytes(100))):
        for read in (blobs.get, blobs.map):
            with pytest.raises(DamagedBlobError):
                read(address)


# --- stores ---------------------------------------------------------------------------------------------------------------

SECRETS = ("tell-nobody-input", "tell-nobody-result", "tell-nobody-name", "tell-nobody-error", "tell-nobody-large")


@durable_execution(name="confidential")
def confidential(event: Any, context: DurableContext) -> Any:
    context.step(lambda _: SECRETS[1], name=SECRETS[2])
    context.step(lambda _: bytearray(SECRETS[4].encode() * 10_000), name="large")
    try:
        context.step(fail, name="fails")
    except Exception:
        return SECRETS[1]


def fail(step: Any) -> None:
    raise ValueError(SECRETS[3])


def run(place: Path, settings: Settings = KEY) -> Any:
    store = open_store(place, settings=settings)
    try:
        confidential.serdes = PickleSerDes(store.blobs)
        return confidential.run({"input": SECRETS[0]}, name="case-7", store=store)
    finally:
        store.close()


def everything_in(place: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file())


def test_nothing_of_a_handlers_values_is_readable_in_its_store(tmp_path: Path) -> None:
    run(tmp_path / "plain", Settings())
    plain = everything_in(tmp_path / "plain")
    assert all(secret.encode() in plain for secret in SECRETS), "the test looks in the right place"
    run(tmp_path / "store")
    written = everything_in(tmp_path / "store")
    for secret in SECRETS:
        assert secret.encode() not in written, secret
    assert b"case-7" in written, "documented: the names of executions are readable"
    assert run(tmp_path / "store") == SECRETS[1]


def test_without_the_key_a_store_is_refused_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "store"
    run(place)
    before = everything_in(place)
    with pytest.raises(StoreUnreadableError, match="set DURABLE_NB_ENCRYPTION_KEY"):
        open_store(place)
    with pytest.raises(StoreUnreadableError, match="another key"):
        open_store(place, settings=Settings(encryption_key="wrong"))
    assert main(["ls", "--store", str(place)]) == 2
    assert "it is encrypted" in capsys.readouterr().err
    assert everything_in(place) == before
    monkeypatch.setenv("DURABLE_NB_ENCRYPTION_KEY", str(KEY.encryption_key))
    assert main(["ls", "--store", str(place)]) == 0
    assert "case-7" in capsys.readouterr().out


def test_a_store_is_encrypted_from_the_beginning_or_not_at_all(tmp_path: Path) -> None:
    run(tmp_path / "plain", Settings())
    with pytest.raises(StoreUnreadableError, match="is not encrypted .* DURABLE_NB_ENCRYPTION_KEY is set"):
        open_store(tmp_path / "plain", settings=KEY)
    run(tmp_path / "plain", Settings())


def test_who_takes_the_salt_away_does_not_make_it_an_open_store(tmp_path: Path) -> None:
    place = tmp_path / "store"
    run(place)
    salt = (place / "encrypted").read_bytes()
    (place / "encrypted").unlink()
    with pytest.raises(StoreUnreadableError, match="the file 'encrypted' beside it"):
        open_store(place)
    with pytest.raises(StoreUnreadableError):
        open_store(place, settings=KEY)
    for damaged in (b"", b"{}", salt[:40], salt.replace(b'"format": 1', b'"format": 2'), b"[" * 5000):
        (place / "encrypted").unlink(missing_ok=True)
        (place / "encrypted").write_bytes(damaged)
        with pytest.raises(StoreUnreadableError):
            open_store(place, settings=KEY)
    (place / "encrypted").write_bytes(salt)
    assert run(place) == SECRETS[1]


def test_an_open_database_is_not_taken_for_an_encrypted_one(tmp_path: Path) -> None:
    """Somebody puts a store of their own in the place of an encrypted one: nothing may be written into it."""
    run(tmp_path / "store")
    run(tmp_path / "plain", Settings())
    for path in (tmp_path / "store").glob("journal.db*"):
        path.unlink()
    shutil.copy(tmp_path / "plain" / "journal.db", tmp_path / "store" / "journal.db")
    with pytest.raises(StoreUnreadableError, match="it is not encrypted, and the file"):
        open_store(tmp_path / "store", settings=KEY)


def test_the_key_can_be_the_systems_keyrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets: dict[Any, str] = {}
    keep_secrets_in(monkeypatch, secrets)
    place = tmp_path / "store"
    run(place, Settings(encryption_key="keyring"))
    assert len(secrets) == 1, "it was made"
    assert run(place, Settings()) == SECRETS[1], "an encrypted store finds it by itself"
    secrets.clear()
    with pytest.raises(StoreUnreadableError, match="keyring"):
        run(place, Settings())
    run(tmp_path / "open", Settings())
    assert not (tmp_path / "open" / "encrypted").exists(), "nobody asked for it"


def test_a_keyring_that_cannot_be_read_is_never_given_a_new_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new secret over the old one would make every store that is encrypted with it unreadable."""
    secrets: dict[Any, str] = {}
    keep_secrets_in(monkeypatch, secrets)
    run(tmp_path / "first", Settings(encryption_key="keyring"))
    kept = dict(secrets)

    def locked(*_: str) -> str:
        raise RuntimeError("the keyring is locked")

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["keyring"], "get_password", locked)
        with pytest.raises(ValidationError, match="locked"):
            run(tmp_path / "second", Settings(encryption_key="keyring"))
        with pytest.raises(StoreUnreadableError, match="locked"):
            run(tmp_path / "first", Settings())
    assert secrets == kept
    assert run(tmp_path / "first", Settings()) == SECRETS[1]


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(Exception, match=r"durable_nb\[encryption\]"):
        open_store(tmp_path / "store", settings=KEY)


def test_care_of_an_encrypted_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check, damage, collection, repair and trust, as of any other."""
    place = tmp_path / "store"
    run(place)
    store = open_store(place, settings=KEY)
    assert check(store).good
    collect(store, Budget(max_bytes=0))
    assert check(store).good
    assert run(place) == SECRETS[1]
    address = store.blobs.put(os.urandom(50_000))
    (path,) = store.blobs.places(address)  # type: ignore[attr-defined]
    path.chmod(0o600)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert check(store).of("damaged blob") == [address]
    store.close()
    with (place / "journal.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xaa" * 4096)
    monkeypatch.setenv("DURABLE_NB_ENCRYPTION_KEY", str(KEY.encryption_key))
    assert main(["verify", "--repair", "--store", str(place)]) in (0, 1)
    open_store(place).close()
    assert all(secret.encode() not in everything_in(place) for secret in SECRETS)


def test_a_row_that_was_changed_is_damage_of_that_row(tmp_path: Path) -> None:
    place = tmp_path / "store"
    run(place)
    db = sqlite3.connect(place / "journal.db")
    db.execute("UPDATE events SET payload = x'00' || substr(payload, 2) WHERE sequence = 2")
    db.execute("UPDATE executions SET details = ? WHERE name = 'case-7'", (json.dumps({"sealed": "AAAA"}),))
    db.commit()
    db.close()
    store = open_store(place, settings=KEY)
    (record,) = [each for each in store.journal.executions() if each.name == "case-7"]
    assert "damaged" in record.details
    stored = list(store.journal.read(record.execution_id))
    assert [each.sequence for each in stored if not each.trusted] == [2]
    assert check(store).of("damaged record")
    store.close()


def test_an_at_most_once_step_of_an_encrypted_store_is_kept_from_beginning_twice(tmp_path: Path) -> None:
    begun: list[int] = []

    @durable_execution(name="pays")
    def pays(event: Any, context: DurableContext) -> Any:
        return context.step(lambda _: begun.append(1), name="pay", config=ONCE)

    for _ in range(2):
        store = open_store(tmp_path / "store", settings=KEY)
        try:
            pays.run(1, name="a", store=store)
        except StepInterruptedError:
            assert begun == [1]
        finally:
            store.close()
        for path in (tmp_path / "store").glob("journal.db*"):
            path.unlink()
    assert begun == [1]


@pytest.mark.kernel
def test_a_notebook_is_replayed_from_an_encrypted_store_and_is_not_readable_in_it(tmp_path: Path) -> None:
    with Nursery() as nursery:
        case = Case(nursery, tmp_path / "work")
        secret = "tell-" + "nobody-cell"
        own = (*cells(case.ledger), f"word = {secret!r} * 3000\nprint(word[:17])")

        def live(key: str | None) -> Any:
            env = () if key is None else (("DURABLE_NB_ENCRYPTION_KEY", key),)
            job = Job(
                cells=own, folder=case.folder, store=case.store, durable=True, env=env, probes=tuple(PROBES),
                stop_on_error=False, portrait=False,
            )  # fmt: skip
            seen = nursery.run(job)
            assert seen.finished, seen.log
            return seen

        first = live("k")
        assert first.statuses[-1] == "executed"
        again = live("k")
        assert again.statuses[1:] == ["replayed"] * (len(own) - 1), again.statuses
        assert again.cells[-1]["outputs"] == first.cells[-1]["outputs"]
        written = everything_in(case.store)
        for word in (secret, "# durable: name=pay", "note('a')"):
            assert word.encode() not in written, word
        refused = live(None)
        assert refused.statuses[1] != "replayed"
        assert case.begun()["pay"] == 1, "an at-most-once cell of a store that cannot be opened does not run"
