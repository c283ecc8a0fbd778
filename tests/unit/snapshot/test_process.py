"""Process state has versions that mean something in another process, and is put back."""

from __future__ import annotations

import decimal
import locale
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from durable_nb.snapshot import ProcessState, looks_secret, note_starts, settle_starts


@pytest.fixture(autouse=True)
def put_back(tmp_path: Path) -> Iterator[None]:
    """Each test leaves the process as it was."""
    folder, environ, path, umask = Path.cwd(), dict(os.environ), list(sys.path), os.umask(0)
    os.umask(umask)
    filters, context, level = list(warnings.filters), decimal.getcontext().copy(), logging.root.level
    python, numpy, printing = random.getstate(), np.random.get_state(), np.get_printoptions()
    note_starts()
    yield
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.path[:] = path
    os.umask(umask)
    warnings.filters[:] = filters  # type: ignore[index]
    decimal.setcontext(context)
    logging.root.setLevel(level)
    random.setstate(python)
    np.random.set_state(numpy)
    printing.pop("override_repr", None)
    np.set_printoptions(**printing)
    pd.reset_option("display.max_rows")
    locale.setlocale(locale.LC_ALL, "C")
    locale.setlocale(locale.LC_ALL, "")
    note_starts()


CHANGES = {
    "<random>": lambda: random.seed(1),
    "<numpy.random>": lambda: np.random.seed(1),
    "<numpy.printoptions>": lambda: np.set_printoptions(precision=3),
    "<pandas.options>": lambda: pd.set_option("display.max_rows", 7),
    "<warnings>": lambda: warnings.filterwarnings("ignore", message="quite special"),
    "<sys.path>": lambda: sys.path.append("/a/place"),
    "<cwd>": lambda: os.chdir("/"),
    "<environ>": lambda: os.environ.__setitem__("SOME_COLOUR", "blue"),
    "<decimal>": lambda: setattr(decimal.getcontext(), "prec", 7),
    "<umask>": lambda: os.umask(0o027),
    "<logging>": lambda: logging.root.setLevel(logging.DEBUG),
    "<recursionlimit>": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 100),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_stored_and_put_back(name: str) -> None:
    limit = sys.getrecursionlimit()
    before = ProcessState.capture()
    CHANGES[name]()
    after = ProcessState.capture()
    delta = ProcessState.diff(before, after)
    assert set(delta) == {name}
    assert ProcessState.restore(ProcessState.diff(after, before)) == () or name in ("<random>", "<numpy.random>")
    sys.setrecursionlimit(limit)
    assert ProcessState.restore(delta) == ()
    assert ProcessState.capture().versions[name] == after.versions[name]
    sys.setrecursionlimit(limit)


def test_nothing_changed_is_an_empty_delta() -> None:
    assert ProcessState.diff(ProcessState.capture(), ProcessState.capture()) == {}


def test_a_generator_that_nobody_moved_has_no_content() -> None:
    assert ProcessState.capture().versions["<random>"] == "unseeded"
    random.seed(5)
    seeded = ProcessState.capture().versions["<random>"]
    assert seeded != "unseeded"
    random.random()
    assert ProcessState.capture().versions["<random>"] != seeded
    random.seed(5)
    assert ProcessState.capture().versions["<random>"] == seeded


def test_restored_generators_go_on_with_the_same_numbers() -> None:
    before = ProcessState.capture()
    random.seed(3)
    np.random.seed(3)
    np.random.standard_normal()
    delta = ProcessState.diff(before, ProcessState.capture())
    expected = random.random(), np.random.standard_normal(), np.random.standard_normal()
    random.seed()
    np.random.seed()
    ProcessState.restore(delta)
    assert (random.random(), np.random.standard_normal(), np.random.standard_normal()) == expected


def test_a_secret_is_never_written_and_is_named() -> None:
    before = ProcessState.capture()
    os.environ["SERVICE_API_KEY"] = "very-secret-value"
    os.environ["COLOUR"] = "red"
    delta = ProcessState.diff(before, ProcessState.capture())
    assert delta["<environ>"]["unstored"] == ["SERVICE_API_KEY"]
    assert "very-secret-value" not in repr(delta)
    assert ProcessState.restore(delta) == ("<environ>: SERVICE_API_KEY",)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "GITHUB_TOKEN", "PGPASSWD", "MY_CREDENTIALS"])
def test_names_of_secrets_are_recognised(name: str) -> None:
    assert looks_secret(name)


def test_a_deleted_variable_is_deleted_again() -> None:
    os.environ["SOME_COLOUR"] = "blue"
    note_starts()
    before = ProcessState.capture()
    del os.environ["SOME_COLOUR"]
    delta = ProcessState.diff(before, ProcessState.capture())
    os.environ["SOME_COLOUR"] = "blue"
    ProcessState.restore(delta)
    assert "SOME_COLOUR" not in os.environ


def test_matplotlib_options_are_put_back() -> None:
    import matplotlib as mpl

    before = ProcessState.capture()
    old = mpl.rcParams["lines.linewidth"]
    mpl.rcParams["lines.linewidth"] = 9.0
    after = ProcessState.capture()
    delta = ProcessState.diff(before, after)
    assert set(delta) == {"<rcParams>"}
    mpl.rcParams["lines.linewidth"] = old
    ProcessState.restore(delta)
    assert mpl.rcParams["lines.linewidth"] == 9.0
    mpl.rcParams["lines.linewidth"] = old


def test_a_list_of_options_that_is_changed_in_place_is_a_change_and_is_put_back() -> None:
    import matplotlib as mpl

    note_starts()
    before = ProcessState.capture()
    mpl.rcParams["font.serif"].append("Nobody Has This")
    delta = ProcessState.diff(before, ProcessState.capture())
    assert set(delta) == {"<rcParams>"}
    mpl.rcParams["font.serif"].remove("Nobody Has This")
    ProcessState.restore(delta)
    assert mpl.rcParams["font.serif"][-1] == "Nobody Has This"
    undone = ProcessState.diff(ProcessState.capture(), before)
    ProcessState.restore(undone)
    assert "Nobody Has This" not in mpl.rcParams["font.serif"]


def test_draws_of_an_import_leave_a_generator_unseeded() -> None:
    before = ProcessState.capture()
    random.getrandbits(24)
    settle_starts(before)
    assert ProcessState.capture().versions["<random>"] == "unseeded"
    random.seed(1)
    before = ProcessState.capture()
    random.random()
    settle_starts(before)
    assert ProcessState.capture().versions["<random>"] != "unseeded"


def test_the_import_path_is_changed_as_the_cell_did_in_another_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from durable_nb.snapshot._process_python import SysPath

    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    part = SysPath()
    part.start = str(old)
    delta = part.delta(["/python", "/gone"], [f"{old}/first", "/python", f"{old}/lib", "/elsewhere"])
    part.start = str(new)
    monkeypatch.setattr(sys, "path", ["/other-python", "/gone"])
    part.write(delta["value"])
    assert sys.path == [f"{new}/first", "/other-python", f"{new}/lib", "/elsewhere"]
    part.write(delta["value"])
    assert sys.path[:2] == [f"{new}/first", f"{new}/first"], "as the cell itself would do"
