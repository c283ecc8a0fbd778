"""What was warned of once, and which change of the filters forgets it."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Iterator

import pytest

from durable_nb.snapshot._warned import Warned

CODE = "import warnings\ndef warn():\n    warnings.warn('old', UserWarning)\n"


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    module = types.ModuleType("noisy_module_of_the_tests")
    exec(CODE, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(warnings, "_showwarnmsg", warnings._showwarnmsg)  # type: ignore[attr-defined]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        module.shown = shown  # type: ignore[attr-defined]
        yield module


def test_a_warning_that_was_shown_is_not_shown_after_a_restore(noisy: types.ModuleType) -> None:
    warned = Warned()
    warned.note_start()
    before = warned.read()
    noisy.warn(), noisy.warn()
    delta = warned.delta(before, warned.read())
    assert len(noisy.shown) == 1
    assert delta["value"][1] == [[noisy.__name__, "old", "builtins:UserWarning", 3]]
    del noisy.__warningregistry__
    other = Warned()
    other.write(delta["value"])
    noisy.warn()
    assert len(noisy.shown) == 1
    assert other.read() is not None


def test_a_change_of_the_filters_forgets_it_in_a_replay_too(noisy: types.ModuleType) -> None:
    warned = Warned()
    warned.note_start()
    noisy.warn()
    before = warned.read()
    assert before is not None
    warnings.simplefilter("default", BytesWarning)
    assert warned.read() is None
    noisy.warn()
    assert len(noisy.shown) == 2
    warned.reset()
    noisy.warn()
    assert len(noisy.shown) == 3


def test_asking_shows_nothing_even_where_warnings_are_errors(noisy: types.ModuleType) -> None:
    warned = Warned()
    warned.note_start()
    warnings.simplefilter("error")
    assert warned.read() is None
    assert noisy.shown == []


def test_what_cannot_be_found_again_is_left_out(noisy: types.ModuleType) -> None:
    Warned().write([True, [["no_such_module", "x", "builtins:UserWarning", 1], [noisy.__name__, "x", "gone:Kind", 1]]])
    assert not hasattr(noisy, "__warningregistry__")


def test_asking_shows_nothing_where_nobody_watches(noisy: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "_showwarnmsg", lambda message: noisy.shown.append(message))
    assert Warned().read() is None
    assert noisy.shown == []
