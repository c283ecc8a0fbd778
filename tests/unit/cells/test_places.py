"""Which files and frames are the user's."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

import durable_nb.cells
from durable_nb.cells import Places


def test_the_longest_known_folder_decides(tmp_path: Path) -> None:
    project = tmp_path / "project"
    places = Places(project, ignored=[project / ".durable"])
    assert places.counts(str(project / "a.csv"))
    assert places.counts(str(tmp_path / "elsewhere.csv"))
    assert not places.counts(str(project / ".durable" / "journal.sqlite"))
    assert not places.counts(str(project / "__pycache__" / "a.pyc"))
    assert not places.counts(str(project / ".ipynb_checkpoints" / "a.ipynb"))


def test_a_project_inside_a_system_folder_counts() -> None:
    places = Places("/usr/src/app")
    assert places.counts("/usr/src/app/data.csv")
    assert not places.counts("/usr/share/dict/words")


@pytest.mark.parametrize(
    "path",
    ["/proc/self/stat", "/dev/null", "/etc/hosts", os.__file__, sys.executable, durable_nb.cells.__file__]
    + [str(Path.home() / ".cache" / "x"), str(Path.home() / ".ipython" / "profile_default" / "history.sqlite")],
)
def test_the_system_the_installation_and_caches_do_not_count(path: str, tmp_path: Path) -> None:
    assert not Places(tmp_path).counts(path)


@pytest.mark.parametrize(
    ("filename", "kind"),
    [
        ("<ipython-input-1-abc>", "user"),
        (os.path.join(tempfile.gettempdir(), "ipykernel_12", "345.py"), "user"),
        ("<stdin>", "user"),
        ("<string>", "stdlib"),
        ("<frozen os>", "stdlib"),
        ("<decorator-gen-3>", "stdlib"),
        (os.__file__, "stdlib"),
        (pytest.__file__, "installed"),
        (durable_nb.cells.__file__, "installed"),
        ("/somewhere/helpers.py", "local"),
    ],
)
def test_code_is_told_apart_by_its_file(filename: str, kind: str, tmp_path: Path) -> None:
    assert Places(tmp_path).frame(filename) == kind


def test_keys_do_not_depend_on_links_to_the_project(tmp_path: Path) -> None:
    project = tmp_path / "real"
    (project / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(project)
    places = Places(tmp_path / "link")
    assert places.key(str(tmp_path / "link" / "data" / "a.csv")) == "data/a.csv"
    assert places.key(str(project / "data" / "a.csv")) == "data/a.csv"
    assert places.key(str(project)) == "."
    assert places.path("data/a.csv") == str(project / "data" / "a.csv")
    assert places.key("/data/shared.csv") == "/data/shared.csv"


def test_the_temporary_folder_is_known_and_a_project_in_it_is_not_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    places = Places(tmp_path / "project")
    assert places.is_temporary(str(tmp_path / "scratch"))
    assert not places.is_temporary(str(tmp_path / "project" / "a"))
