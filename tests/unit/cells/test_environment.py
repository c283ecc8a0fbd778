"""Environment variables and the working directory as inputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from durable_nb.cells import ABSENT, Environment, Input, Observed, Places, is_session_variable


def environment(project: Path, key: bytes = b"k", **variables: str) -> Environment:
    return Environment(key, Places(project), variables)


def test_a_version_needs_the_key_and_hides_the_value(tmp_path: Path) -> None:
    one, other = environment(tmp_path, b"k", TOKEN="hunter2"), environment(tmp_path, b"other", TOKEN="hunter2")
    assert one.version("TOKEN") == environment(tmp_path, b"k", TOKEN="hunter2").version("TOKEN")
    assert one.version("TOKEN") != other.version("TOKEN")
    assert "hunter2" not in one.version("TOKEN")
    assert one.version("NONE") == ABSENT != environment(tmp_path, NONE="").version("NONE")


def test_variables_enter_as_the_cell_saw_them(tmp_path: Path) -> None:
    now = environment(tmp_path, A="changed since")
    observed = Observed(env={"A": "first", "B": None, "JPY_SESSION_NAME": "x"})
    inputs = now.inputs(observed)
    assert [(i.key, i.version) for i in inputs] == [("A", environment(tmp_path, A="first").version("A")), ("B", ABSENT)]


def test_all_variables_leave_out_those_of_the_session(tmp_path: Path) -> None:
    base = environment(tmp_path, A="1").version("*")
    assert environment(tmp_path, A="1", JPY_PARENT_PID="3", TERM="x", COLUMNS="80").version("*") == base
    assert environment(tmp_path, A="2").version("*") != base
    assert environment(tmp_path, A="1", B="1").version("*") != base


@pytest.mark.parametrize("name", ["JPY_SESSION_NAME", "PYTEST_CURRENT_TEST", "TERM", "COLUMNS", "DURABLE_NB_STORE"])
def test_front_end_and_terminal_variables_say_nothing_about_the_work(name: str) -> None:
    assert is_session_variable(name)


@pytest.mark.parametrize("name", ["HOME", "PATH", "API_KEY", "GIT_COMMIT", "TERMS", "LANG", "TZ"])
def test_other_variables_count(name: str) -> None:
    assert not is_session_variable(name)


def test_the_working_directory_is_relative_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    env = environment(tmp_path)
    assert env.cwd() == "sub"
    assert env.inputs(Observed(used_cwd=True)) == [Input("cwd", "cwd", "sub")]
    assert env.inputs(Observed()) == []


def test_the_process_environment_is_used_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DN_X", "1")
    assert Environment(b"k", Places(tmp_path)).version("DN_X") == environment(tmp_path, DN_X="1").version("DN_X")
    assert os.environ["DN_X"] == "1"
