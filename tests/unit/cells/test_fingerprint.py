"""Inputs, fingerprints, and the words for what differs."""

from __future__ import annotations

import json

import pytest

from durable_nb.cells import (
    ABSENT,
    KINDS,
    MISSING,
    Input,
    Inputs,
    compare,
    describe,
    explain,
    fingerprint,
    first_difference,
    from_json,
    to_json,
)
from durable_nb.exceptions import ValidationError

A, B = Input("name", "a", "1", "cell [1]"), Input("file", "data.csv", "2")


def test_the_order_in_which_inputs_are_found_does_not_matter() -> None:
    assert fingerprint(Inputs([A, B])) == fingerprint(Inputs([B, A]))
    assert Inputs([A, B]) == Inputs([B, A])


def test_kind_key_and_version_matter_and_the_origin_does_not() -> None:
    base = fingerprint(Inputs([A]))
    assert base == fingerprint(Inputs([Input("name", "a", "1")]))
    others = [Input("file", "a", "1"), Input("name", "b", "1"), Input("name", "a", "2")]
    assert len({base, *(fingerprint(Inputs([other])) for other in others), fingerprint(Inputs())}) == 5


def test_the_boundaries_between_fields_count() -> None:
    assert fingerprint(Inputs([Input("name", "ab", "c")])) != fingerprint(Inputs([Input("name", "a", "bc")]))


def test_adding_an_input_again_replaces_its_version() -> None:
    inputs = Inputs([A, Input("name", "a", "9")])
    assert inputs.of("name") == {"a": "9"}


def test_inputs_survive_json() -> None:
    inputs = Inputs([A, B])
    again = from_json(json.loads(json.dumps(to_json(inputs))))
    assert again == inputs
    assert again["name", "a"].origin == "cell [1]"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="unknown kind of input 'moon'"):
        from_json([["moon", "a", "1"]])


def test_comparing_asks_for_no_more_than_the_first_difference() -> None:
    asked: list[str] = []

    def now(item: Input) -> str:
        asked.append(item.key)
        return "other"

    found = first_difference(Inputs([B, A]), now)
    assert found is not None
    assert (found.key, asked) == ("a", ["a"])


def test_an_input_that_is_gone_differs_and_equal_ones_do_not() -> None:
    assert [d.key for d in compare(Inputs([A, B]), Inputs([A]))] == ["data.csv"]
    assert first_difference(Inputs([A]), Inputs([A, B])) is None
    absent = Inputs([Input("name", "a", ABSENT)])
    assert first_difference(absent, Inputs()) is None


@pytest.mark.parametrize(
    ("recorded", "now", "words"),
    [
        (Input("name", "a", "1", "cell [2]"), "2", "a has another value, from cell [2]"),
        (Input("name", "a", "1", "cell [2]"), ABSENT, "a is not defined any more (it came from cell [2])"),
        (Input("name", "a", ABSENT), "1", "a is defined now"),
        (Input("everything", "eval()", "1"), "2", "it may read any name (eval()), and one has changed"),
        (Input("module", "helpers", "1"), "2", "the module helpers was edited"),
        (Input("module", "helpers", "1"), ABSENT, "the module helpers is not there any more"),
        (Input("dist", "pandas", "2.0"), "2.1", "pandas 2.0 -> 2.1"),
        (Input("dist", "pandas", "2.0"), ABSENT, "pandas 2.0 -> not installed"),
        (Input("python", "python", "3.11"), "3.12", "Python 3.11 -> 3.12"),
        (Input("process", "<random>", "1"), "2", "random was seeded or used differently before it"),
        (Input("file", "a.csv", "1"), "2", "the file a.csv was changed"),
        (Input("file", "a.csv", "1"), MISSING, "the file a.csv is gone"),
        (Input("file", "a.csv", MISSING), "1", "the file a.csv is there now"),
        (Input("missing", "a.csv", MISSING), "file", "a.csv is there now"),
        (Input("missing", "a.csv", "file"), MISSING, "a.csv is gone"),
        (Input("missing", "a", "file"), "dir", "a is a directory now, not a file"),
        (Input("listing", "data", "1"), "2", "the entries of data are others"),
        (Input("listing", "glob:*.csv", "1"), "2", "the files that match *.csv are others"),
        (Input("env", "MODE", "1"), "2", "the environment variable MODE has another value"),
        (Input("env", "MODE", "1"), ABSENT, "the environment variable MODE is not set any more"),
        (Input("env", "MODE", ABSENT), "1", "the environment variable MODE is set now"),
        (Input("env", "*", "1"), "2", "the environment variables, all of which it read, are others"),
        (Input("cwd", "cwd", "."), "sub", "the working directory is sub, not ."),
        (Input("setup", "pandas", "1", "cell [1]"), "2", "pandas was set up in another way by cell [1]"),
        (Input("source", "source", "1"), "2", "its source was edited"),
    ],
)
def test_each_kind_of_difference_has_its_words(recorded: Input, now: str, words: str) -> None:
    reason = explain(Inputs([recorded]), lambda item: now)
    assert (reason.kind, reason.text) == (recorded.kind, words)


def test_every_kind_can_be_explained() -> None:
    for kind in KINDS:
        assert explain(Inputs([Input(kind, "k", "1")]), lambda item: "2").text


def test_an_edit_is_shown_as_a_diff_of_the_readable_source() -> None:
    reason = explain(
        Inputs([Input("source", "source", "1")]),
        lambda item: "2",
        source_before="x = 1\ny = 2\n",
        source_now="x = 1\ny = 3\n",
    )
    assert "-y = 2" in reason.diff
    assert "+y = 3" in reason.diff
    assert not any(line.startswith(("---", "+++")) for line in reason.diff)
    assert str(reason).startswith("its source was edited\n")


def test_the_first_cause_is_named_and_the_others_are_counted() -> None:
    reason = explain(Inputs([B, A]), lambda item: "other")
    assert reason.text == "a has another value, from cell [1] (and 1 more input)"


def test_nothing_recorded_and_nothing_changed_have_words_too() -> None:
    assert explain(None, Inputs()).kind == "first"
    assert explain(Inputs([A]), Inputs([A])).kind == "equal"


def test_inputs_can_be_listed() -> None:
    assert describe(Inputs([B, A])) == ["name       a, from cell [1]", "file       data.csv"]
