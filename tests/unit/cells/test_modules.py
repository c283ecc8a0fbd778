"""Code outside the notebook: local modules by what was loaded, distributions by version, modules as state."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_nb.cells import ABSENT, Distributions, LocalModules, Places, changed, module_state


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("loc_")]:
        del sys.modules[name]


def write(project: Path, **files: str) -> None:
    for name, text in files.items():
        path = project / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    importlib.invalidate_caches()


def test_a_local_module_and_those_it_imports_have_versions(project: Path) -> None:
    write(project, loc_a="import loc_b\nimport json\nimport numpy\n", loc_b="def f():\n    import loc_c\n", loc_c="")
    write(project, loc_d="")
    modules = LocalModules(Places(project))
    importlib.import_module("loc_a")
    assert set(modules.versions({"loc_a", "json", "numpy", "sys", "__main__"})) == {"loc_a", "loc_b", "loc_c"}


def test_packages_relative_imports_and_parents_are_followed(project: Path) -> None:
    package = project / "loc_pkg"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("VERSION = 1\n")
    (package / "core.py").write_text("from . import tools\nfrom .sub import deep\nfrom .sub.deep import x\n")
    (package / "tools.py").write_text("")
    (package / "sub" / "__init__.py").write_text("")
    (package / "sub" / "deep.py").write_text("from ..other import y\nx = 1\n")
    (package / "other.py").write_text("y = 1\n")
    (package / "unused.py").write_text("")
    importlib.invalidate_caches()
    expected = {"loc_pkg", "loc_pkg.core", "loc_pkg.tools", "loc_pkg.sub", "loc_pkg.sub.deep", "loc_pkg.other"}
    modules = LocalModules(Places(project))
    before = modules.versions({"loc_pkg.core"})
    assert set(before) == expected
    importlib.import_module("loc_pkg.core")
    assert modules.versions({"loc_pkg.core"}) == before


def test_looking_at_a_module_that_is_not_loaded_does_not_import_it(project: Path) -> None:
    write(project, loc_boom="raise RuntimeError\n")
    assert set(LocalModules(Places(project)).versions({"loc_boom", "loc_boom.x", "no_such_module"})) == {"loc_boom"}
    assert "loc_boom" not in sys.modules


def test_the_version_is_that_of_the_code_as_loaded(project: Path) -> None:
    write(project, loc_e="x = 1\n")
    modules = LocalModules(Places(project))
    module = importlib.import_module("loc_e")
    modules.notice()
    loaded = modules.version("loc_e")
    write(project, loc_e="x = 22\n")
    assert modules.version("loc_e") == loaded
    assert LocalModules(Places(project)).version("loc_e") != loaded
    importlib.reload(module)
    assert modules.version("loc_e") != loaded


def test_installed_and_standard_modules_are_not_local(project: Path) -> None:
    modules = LocalModules(Places(project))
    assert not any(modules.is_local(name) for name in ("json", "numpy", "sys", "pytest", "durable_nb", "no.such"))
    assert modules.version("json") == ABSENT


def test_a_function_brought_in_from_another_local_module_leads_there(project: Path) -> None:
    write(project, loc_f="import importlib\ng = importlib.import_module('loc_' + 'g').g\n", loc_g="def g(): pass\n")
    importlib.import_module("loc_f")
    assert set(LocalModules(Places(project)).versions({"loc_f"})) == {"loc_f", "loc_g"}


def test_a_broken_local_source_has_a_version_all_the_same(project: Path) -> None:
    write(project, loc_h="def (:\n")
    assert set(LocalModules(Places(project)).versions({"loc_h"})) == {"loc_h"}


def test_distributions_come_with_what_they_require() -> None:
    versions = Distributions().versions({"pandas.core.frame", "json", "__main__", "no_such_package"})
    assert versions["pandas"] == importlib.metadata.version("pandas")
    assert {"numpy", "python-dateutil"} <= set(versions)
    assert "pytest" not in versions


def test_a_package_with_another_name_than_its_distribution_is_found() -> None:
    versions = Distributions().versions({"sklearn.datasets"})
    assert {"scikit-learn", "numpy", "scipy", "joblib"} <= set(versions)
    assert Distributions().versions({"dateutil"}).keys() >= {"python-dateutil"}


def test_a_distribution_can_be_asked_for_by_name() -> None:
    assert Distributions().version("NumPy") == importlib.metadata.version("numpy")
    assert Distributions().version("no-such-thing") == ABSENT


def module(**names: object) -> types.ModuleType:
    made = types.ModuleType("some_module")
    vars(made).update(names)
    return made


def test_an_attribute_set_on_a_module_is_a_change() -> None:
    some = module(limit=1, name="a", table={}, f=len)
    before = module_state(some)
    assert changed(before, module_state(some)) == []
    some.limit = 2  # type: ignore[attr-defined]
    some.extra = "x"  # type: ignore[attr-defined]
    del some.name
    some.f = max  # type: ignore[attr-defined]
    assert changed(before, module_state(some)) == ["extra", "f", "limit", "name"]


def test_an_equal_plain_value_is_no_change() -> None:
    some = module(limit=10**9, ratio=0.5)
    before = module_state(some)
    some.limit, some.ratio = int("1000000000"), float("0.5")  # type: ignore[attr-defined]
    assert changed(before, module_state(some), package="some_module") == []


def test_contents_count_in_local_modules_only() -> None:
    some = module(table={"a": 1}, _cache={})
    local, installed = module_state(some, local=True), module_state(some)
    some.table["a"] = 2
    some._cache["b"] = 1
    assert changed(local, module_state(some, local=True)) == ["table"]
    assert changed(installed, module_state(some)) == []


def test_what_the_shell_sets_around_each_cell_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    before = module_state(sys)
    monkeypatch.setattr(sys, "displayhook", print)
    assert changed(before, module_state(sys)) == []


def test_lazy_imports_of_a_package_are_no_change() -> None:
    some = module()
    before = module_state(some)
    some.sub = types.ModuleType("some_module.sub")  # type: ignore[attr-defined]

    def late() -> None: ...

    late.__module__ = "some_module.sub"
    some.late = late  # type: ignore[attr-defined]
    assert changed(before, module_state(some), package="some_module") == []
    assert changed(before, module_state(some), package="another") == ["late"]


def test_what_an_installed_package_sets_itself_is_told_from_what_others_set() -> None:
    def own() -> None: ...

    own.__module__ = "some_module.backend"
    some = module(draw=len, option=1)
    before = module_state(some)
    some.draw = own  # type: ignore[attr-defined]
    assert changed(before, module_state(some), package="some_module") == []
    some.draw = test_an_attribute_set_on_a_module_is_a_change  # type: ignore[attr-defined]
    some.option = 2  # type: ignore[attr-defined]
    assert changed(before, module_state(some), package="some_module") == ["draw", "option"]
    assert changed(before, module_state(some), package="matplotlib") == ["draw"]


def test_the_first_figure_is_no_set_up() -> None:
    import matplotlib.pyplot as plt

    before = module_state(plt)
    plt.switch_backend("agg")
    plt.close(plt.figure())
    assert changed(before, module_state(plt), package="matplotlib") == []


def test_a_table_that_a_thread_fills_can_be_compared() -> None:
    some = module(table={})
    stop = threading.Event()

    def fill() -> None:
        number = 0
        while not stop.is_set():
            some.table[number % 3000] = some.table.pop((number + 1) % 3000, None)
            number += 1

    thread = threading.Thread(target=fill)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(300):
            changed(module_state(some, local=True), module_state(some, local=True))
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
