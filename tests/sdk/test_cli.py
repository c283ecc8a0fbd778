"""The verbs for handlers: invoke, worker, callback, cancel."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest

from durable_nb.cli import main

MODULE = """
    from pathlib import Path
    from durable_nb import durable_execution

    @durable_execution
    def handler(event, context):
        value = context.step(lambda _: event["a"] + 1, name="add")
        if event.get("ask"):
            callback = context.create_callback("answer")
            Path("id").write_text(callback.callback_id)
            return [value, callback.result()]
        if event.get("fail"):
            context.step(lambda _: {}["missing"], name="look")
        return value

    def plain(event, context):
        return 1
"""


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("DURABLE_NB_STORE", "DURABLE_NB_EXECUTION", "DURABLE_NB_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cli_shop.py").write_text(textwrap.dedent(MODULE), encoding="utf-8")
    sys.modules.pop("cli_shop", None)


def invoke(*more: str, **event: object) -> int:
    return main(["invoke", "cli_shop:handler", "--input", json.dumps(event), *more])


def test_invoke_prints_the_result_and_the_same_name_prints_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("--name", "one", a=1) == 0
    assert invoke("--name", "one", a=1) == 0
    assert capsys.readouterr().out == "2\n2\n"


def test_another_input_under_a_taken_name_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    invoke("--name", "one", a=1)
    assert invoke("--name", "one", a=2) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "another input" in error


def test_a_failed_handler_exits_with_one_and_names_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("--name", "bad", a=1, fail=True) == 1
    assert "KeyError" in capsys.readouterr().err


def test_input_may_come_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "event.json").write_text('{"a": 4}', encoding="utf-8")
    assert main(["invoke", "cli_shop:handler", "--input", "@event.json"]) == 0
    assert capsys.readouterr().out == "5\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["invoke", "cli_shop"], "module:function"),
        (["invoke", "no_such_module:x"], "no_such_module"),
        (["invoke", "cli_shop:nothing"], "nothing"),
        (["invoke", "cli_shop:plain"], "durable_execution"),
        (["invoke", "cli_shop:handler", "--input", "{"], "not JSON"),
        (["invoke", "cli_shop:handler", "--input", "@absent.json"], "cannot read"),
        (["callback", "success", "x.y"], "no store"),
        (["cancel", "x"], "no store"),
        (["worker", "no_such_module"], "no_such_module"),
    ],
)
def test_misuse_is_one_clear_line(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1


def test_a_detached_execution_is_driven_by_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("--name", "later", "--detach", a=1) == 0
    assert main(["worker", "--once"]) == 0
    assert invoke("--name", "later", a=1) == 0
    assert capsys.readouterr().out == "later\n2\n"


def test_a_callback_is_completed_from_outside(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("--name", "asks", "--timeout", "0.05", a=1, ask=True) == 1
    callback_id = Path("id").read_text(encoding="utf-8")
    assert main(["callback", "heartbeat", callback_id]) == 0
    assert main(["callback", "success", callback_id, "--result", "yes"]) == 0
    assert main(["callback", "success", callback_id]) == 2
    assert invoke("--name", "asks", a=1, ask=True) == 0
    assert capsys.readouterr().out == '[2, "yes"]\n'


def test_a_callback_may_fail_from_outside(capsys: pytest.CaptureFixture[str]) -> None:
    invoke("--name", "asks", "--timeout", "0.05", a=1, ask=True)
    callback_id = Path("id").read_text(encoding="utf-8")
    assert main(["callback", "failure", callback_id, "--message", "denied", "--type", "Denied"]) == 0
    assert invoke("--name", "asks", a=1, ask=True) == 1
    assert "denied" in capsys.readouterr().err


def test_a_cancelled_execution_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    invoke("--name", "gone", "--detach", a=1)
    assert main(["cancel", "gone", "--reason", "changed my mind"]) == 0
    assert main(["cancel", "gone"]) == 2
    assert main(["cancel", "never"]) == 2
    assert invoke("--name", "gone", a=1) == 1
    assert "changed my mind" in capsys.readouterr().err


def test_listing_verbs_know_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    invoke("--name", "one", a=1)
    for arguments in (["ls"], ["show", "one"], ["why", "one"]):
        assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "handler" in out
    assert "add" in out
