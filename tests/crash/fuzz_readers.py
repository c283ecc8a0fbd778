"""Coverage-guided fuzzing of what reads a stranger's bytes: `python -m tests.crash.fuzz_readers -runs=100000`.

Needs `atheris` (the extra `fuzz`). Each input goes to one reader. A reader may give a value or refuse with its own error;
anything else (another exception, a signature that holds, a giant allocation) ends the run with a reproducer.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["durable_nb"]):
    from durable_nb.codecs import Cipher
    from durable_nb.encryption import cipher_of
    from durable_nb.events import EventKind
    from durable_nb.exceptions import DurableExecutionsError, StoreError, StoreUnreadableError
    from durable_nb.journal import FileMarkers
    from durable_nb.journal._rows import event_of, execution_of
    from durable_nb.sdk.filesystem_serdes import FileSystemSerDes
    from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES, SerDesContext
    from durable_nb.snapshot import FileBlobStore, decode, encode

FOLDER = Path(tempfile.mkdtemp(prefix="dnb-fuzz-"))
CIPHER = Cipher(bytes(32))


def sign(data: bytes) -> bytes:
    return hashlib.blake2b(data, key=b"k", digest_size=32).digest()


def manifest(data: bytes) -> None:
    try:
        assert isinstance(decode(data), dict)
    except StoreError:
        pass


def row(data: bytes) -> None:
    """Columns of any type, in any number of bytes: shown, and never believed."""
    given = atheris.FuzzedDataProvider(data)
    kinds = (
        lambda: given.ConsumeUnicode(20),
        lambda: given.ConsumeInt(8),
        lambda: given.ConsumeBytes(20),
        lambda: given.ConsumeFloat(),
        lambda: None,
        lambda: "[" * 5000,
        lambda: EventKind.SUCCEEDED.value,
    )
    columns = tuple(kinds[given.ConsumeIntInRange(0, len(kinds) - 1)]() for _ in range(14))
    stored = event_of((*columns, given.ConsumeBytes(32)), (sign,))
    assert not stored.trusted
    execution_of(columns[:7])


def sealed(data: bytes) -> None:
    try:
        opened = b"".join(CIPHER.open(data, b"c"))
    except StoreError:
        return
    raise AssertionError(f"a message that nobody sealed opened: {opened!r}")


def marker(data: bytes) -> None:
    """Whatever stands in a marker's file, the body does not begin."""
    markers = FileMarkers(FOLDER / "started")
    markers.claim("e", "pay", {})
    (path,) = (FOLDER / "started").glob("*.json")
    path.chmod(0o600)
    path.write_bytes(data)
    assert markers.read("e", "pay") is not None
    assert not markers.claim("e", "pay", {})
    list(markers.called("pay"))
    list(markers.of("n"))


def blob(data: bytes) -> None:
    blobs = FileBlobStore(FOLDER / "blobs")
    address = blobs.put(b"right")
    (path,) = blobs.places(address)
    path.chmod(0o600)
    path.write_bytes(data)
    for read in (blobs.get, blobs.map):
        try:
            assert bytes(read(address)) == b"right"
        except StoreError:
            pass
    blobs.delete(address)


def salt(data: bytes) -> None:
    place = FOLDER / "encrypted-store"
    place.mkdir(exist_ok=True)
    (place / "encrypted").write_bytes(data)
    try:
        cipher_of(place, "secret", new=False)
    except StoreUnreadableError:
        return
    raise AssertionError("a salt that nobody wrote was taken")


def payload(data: bytes) -> None:
    """Payloads of steps: data, whatever they say; and a file is only opened below its folder."""
    text = data.decode("utf-8", "replace")
    for serdes in (EXTENDED_TYPES_SERDES, FileSystemSerDes(str(FOLDER / "values"))):
        try:
            serdes.deserialize(text, SerDesContext())
        except (DurableExecutionsError, ValueError, RecursionError):
            pass


READERS: tuple[Callable[[bytes], None], ...] = (manifest, row, sealed, marker, blob, salt, payload)


def one(data: bytes) -> None:
    if data:
        READERS[data[0] % len(READERS)](data[1:])


def corpus() -> Path:
    """Inputs to begin with: whole messages, of which the fuzzer makes others."""
    folder = FOLDER / "corpus"
    folder.mkdir()
    names = FileMarkers(FOLDER / "other")
    names.claim("e", "pay", {"at": 1.0})
    (mark,) = (FOLDER / "other").glob("*.json")
    begin: dict[Callable[[bytes], None], bytes] = {
        manifest: encode({"a": [1, b"bytes", {"b": None}], "c": "text"}),
        sealed: b"".join(CIPHER.seal([b"message"], b"another context")),
        marker: mark.read_bytes(),
        blob: b"right",
        salt: b'{"format": 1, "salt": "00", "check": "00"}',
        payload: b'{"t": "m", "v": {"file": {"t": "s", "v": "../../x"}}}',
    }
    for reader, data in begin.items():
        (folder / reader.__name__).write_bytes(bytes([READERS.index(reader)]) + data)
    return folder


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=512", "-rss_limit_mb=2048", str(corpus())], one)
    atheris.Fuzz()
