"""Of changed arrays only the changed chunks are stored, and the whole array comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_nb.exceptions import DamagedBlobError
from durable_nb.snapshot import FileBlobStore, MemoryBlobStore
from tests.unit.snapshot.namespace import Namespace

MIB = 1 << 20


def notebook_in(folder: Path) -> Namespace:
    notebook = Namespace(FileBlobStore(folder / "blobs"))
    notebook.run("import numpy as np\na = np.arange(32 * 131072, dtype='f8')")
    return notebook


def test_one_changed_row_stores_one_chunk(tmp_path: Path) -> None:
    notebook = notebook_in(tmp_path)
    notebook.run("a[5] = -1")
    assert notebook.last["nbytes"] < 1.1 * MIB
    assert (notebook.reborn()["a"] == notebook["a"]).all()


def test_patches_pile_up_and_each_stores_only_what_is_new(tmp_path: Path) -> None:
    notebook = notebook_in(tmp_path)
    for row in range(4):
        notebook.run(f"a[{row} * 131072] = -{row} - 1")
        assert notebook.last["nbytes"] < 1.1 * MIB
    assert (notebook.reborn()["a"] == notebook["a"]).all()


def buffers_of(notebook: Namespace) -> dict[str, Any]:
    """How the last checkpoint refers to the array."""
    (group,) = [group for group in notebook.last["groups"] if "a" in group["names"]]
    (reference,) = group["buffers"]
    return reference


def test_changes_all_over_an_array_never_write_it_whole_again(tmp_path: Path) -> None:
    notebook = notebook_in(tmp_path)
    for row in range(32):
        notebook.run(f"a[{row} * 131072] = -{row} - 1")
        assert notebook.last["nbytes"] < 1.1 * MIB
    assert len(buffers_of(notebook)["patches"]) == 32
    assert (notebook.reborn()["a"] == notebook["a"]).all()


def test_a_patch_that_later_ones_cover_is_left_out(tmp_path: Path) -> None:
    notebook = notebook_in(tmp_path)
    notebook.run("a[0] = a[131072] = -1")  # chunks 0 and 1
    notebook.run("a[0] = -2")
    assert [patch["chunks"] for patch in buffers_of(notebook)["patches"]] == [[0, 1], [0]]
    assert (notebook.reborn()["a"] == notebook["a"]).all()
    notebook.run("a[131072] = -3")  # now both chunks of the first patch are covered
    assert [patch["chunks"] for patch in buffers_of(notebook)["patches"]] == [[0], [1]]
    assert (notebook.reborn()["a"] == notebook["a"]).all()
    for turn in range(40):
        notebook.run(f"a[0] = {turn}.5")
    assert [patch["chunks"] for patch in buffers_of(notebook)["patches"]] == [[1], [0]]
    assert (notebook.reborn()["a"] == notebook["a"]).all()


@given(changes=st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3), min_size=1, max_size=8))
@settings(max_examples=10, deadline=None)
def test_whatever_changes_the_last_state_comes_back(changes: list[list[int]]) -> None:
    notebook = Namespace(MemoryBlobStore())
    notebook.run("import numpy as np\na = np.zeros(8 * 131072)")
    for turn, chunks in enumerate(changes, start=1):
        notebook.run("\n".join(f"a[{chunk} * 131072 + {turn}] = {turn}" for chunk in chunks))
    assert (notebook.reborn()["a"] == notebook["a"]).all()


def test_beyond_a_quarter_the_array_is_written_whole(tmp_path: Path) -> None:
    notebook = notebook_in(tmp_path)
    notebook.run("a[: 9 * 131072] = 0")
    assert notebook.last["nbytes"] > 31 * MIB
    assert (notebook.reborn()["a"] == notebook["a"]).all()


def test_an_undone_change_stores_nothing(tmp_path: Path) -> None:
    notebook = notebook_in(tmp_path)
    notebook.run("a[5] = -1")
    known = set(notebook.blobs.addresses())
    notebook.run("a[5] = 5")
    assert set(notebook.blobs.addresses()) == known


def test_unchanged_data_under_a_new_name_stores_nothing(tmp_path: Path) -> None:
    notebook = notebook_in(tmp_path)
    known = set(notebook.blobs.addresses())
    notebook.run("b = a.copy()")
    assert set(notebook.blobs.addresses()) == known


def test_only_what_is_new_counts_as_stored(tmp_path: Path) -> None:
    notebook = Namespace(FileBlobStore(tmp_path / "blobs"))
    notebook.run("import numpy as np\na = np.arange(400_000.0)")
    notebook.run("b = a")
    assert notebook.last["nbytes"] < 10_000


def test_a_restored_array_is_patched_too(tmp_path: Path) -> None:
    first = notebook_in(tmp_path)
    second = first.reborn()
    second.manifests = list(first.manifests)
    second.run("a[7] = -7")
    assert second.last["nbytes"] < 1.1 * MIB
    third = second.reborn()
    assert third["a"][7] == -7
    assert third["a"].flags.writeable
    assert (np.asarray(third["a"]) == second["a"]).all()


def test_a_damaged_patch_is_noticed(tmp_path: Path) -> None:
    notebook = notebook_in(tmp_path)
    known = set(notebook.blobs.addresses())
    notebook.run("a[5] = -1")
    (patch,) = set(notebook.blobs.addresses()) - known
    path = tmp_path / "blobs" / patch[:2] / patch
    path.chmod(0o600)
    path.write_bytes(b"X" + path.read_bytes()[1:])
    with pytest.raises(DamagedBlobError):
        notebook.reborn()


def test_every_blob_a_checkpoint_needs_is_named(tmp_path: Path) -> None:
    notebook = notebook_in(tmp_path)
    notebook.run("a[5] = -1")
    notebook.run("b = [a]")
    for address in set(notebook.blobs.addresses()) - set(notebook.last["blobs"]):
        notebook.blobs.delete(address)
    notebook.manifests = notebook.manifests[-1:]
    assert notebook.reborn()["b"][0][5] == -1
