"""Local modules are seen while they are imported: what they read belongs to every cell that uses them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from durable_nb.cells import Environment, FileLedger, LocalModules, Observer, Places, watch_imports


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.txt").write_text("1")
    (tmp_path / "loc_settings.py").write_text(
        "import os\nVALUE = open('settings.txt', encoding='utf-8')\nVALUE.close()\nURL = os.environ.get('DN_URL')\n"
    )
    (tmp_path / "loc_outer.py").write_text("import loc_settings\n")
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("loc_")]:
        del sys.modules[name]


def watched(project: Path) -> tuple[Observer, FileLedger, list[str]]:
    places = Places(project)
    ledger = FileLedger(places)
    observer = Observer(places, version_of=ledger.digest)
    observer.install()
    seen: list[str] = []

    def notice(name: str, module: ModuleType) -> None:
        assert vars(module)["__name__"] == name
        seen.append(name)

    watch_imports(places.is_local_source, notice, observer.importing)
    return observer, ledger, seen


def test_what_a_module_reads_while_it_is_imported_is_kept_under_its_name(project: Path) -> None:
    observer, ledger, seen = watched(project)
    observer.begin()
    importlib.import_module("loc_outer")
    observed = observer.end()
    assert seen == ["loc_settings", "loc_outer"]
    for name in seen:
        read = observer.imported[name]
        assert [(i.kind, i.key) for i in ledger.inputs(read)] == [("file", "settings.txt")]
        assert [i.key for i in Environment(b"k", Places(project)).inputs(read)] == ["DN_URL", "cwd"]
    assert list(observed.read) == [str(project / "settings.txt")]
    assert observed.env == {"DN_URL": None}


def test_an_import_between_cells_is_seen_too(project: Path) -> None:
    observer, _, _ = watched(project)
    importlib.import_module("loc_settings")
    assert list(observer.imported["loc_settings"].read) == [str(project / "settings.txt")]
    (project / "settings.txt").read_text()
    observer.begin()
    assert not observer.end().read


def test_a_module_that_fails_while_it_is_imported_leaves_the_watch_in_order(project: Path) -> None:
    (project / "loc_broken.py").write_text("open('settings.txt').close()\nraise ValueError\n")
    observer, _, seen = watched(project)
    observer.begin()
    with pytest.raises(ValueError):
        importlib.import_module("loc_broken")
    (project / "loc_settings.py").read_text()
    observed = observer.end()
    assert {Path(p).name for p in observed.read} == {"settings.txt", "loc_settings.py"}
    assert seen == []


def test_installed_and_standard_modules_are_imported_as_ever(project: Path) -> None:
    _, _, seen = watched(project)
    sys.modules.pop("this", None)
    assert importlib.util.find_spec("json") is not None
    assert importlib.util.find_spec("loc_no_such") is None
    importlib.import_module("colorsys")
    assert seen == []


def test_reloading_goes_through_the_watch(project: Path) -> None:
    observer, ledger, seen = watched(project)
    modules = LocalModules(Places(project))
    module = importlib.import_module("loc_settings")
    before = [i.version for i in ledger.inputs(observer.imported["loc_settings"])]
    modules.notice()
    (project / "settings.txt").write_text("2")
    importlib.reload(module)
    assert seen == ["loc_settings", "loc_settings"]
    assert [i.version for i in ledger.inputs(observer.imported["loc_settings"])] != before
