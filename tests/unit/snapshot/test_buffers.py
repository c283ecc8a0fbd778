"""Of changed arrays only the changed chunks are stored, and the whole array comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from durable_nb.exceptions import DamagedBlobError
from durable_nb.snapshot import FileBlobStore
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
