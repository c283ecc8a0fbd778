"""A manifest is loaded only with the right signature for its place."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_nb.exceptions import UntrustedCheckpointError
from durable_nb.snapshot import Keyring, decode, encode, open_signed, seal

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1).filter(lambda key: key != "\0bytes"), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "\0bytes"), json))
def test_encoding_is_undone_by_decoding(value: dict[str, object]) -> None:
    assert decode(encode(value)) == value
    assert encode(decode(encode(value))) == encode(value)


def test_a_signed_manifest_opens_in_its_place_only() -> None:
    key = Keyring("secret")
    payload = seal({"a": b"x"}, key, "notebook/cell")
    assert open_signed(payload, key, "notebook/cell") == {"a": b"x"}
    for opened in (
        (payload, key, "other"),
        (payload, Keyring("wrong"), "notebook/cell"),
        (payload[:-1] + b"?", key, "notebook/cell"),
    ):
        with pytest.raises(UntrustedCheckpointError):
            open_signed(*opened)


def test_the_own_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(Keyring(path=path).key)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["key"]
