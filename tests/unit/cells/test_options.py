"""What a user may ask of a step, in three spellings, and what each mistake says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durable_nb.cells import (
    StepOptions,
    parse_comment,
    parse_duration,
    parse_line_statement,
    parse_magic_line,
    parse_tags,
    resolve_error_types,
)
from durable_nb.exceptions import ValidationError


def test_every_option_of_the_magic_is_understood() -> None:
    line = (
        "pay --max-attempts 3 --initial-delay 5s --max-delay 5m --backoff 1.5 --jitter half --retry transient "
        "--retry-on ValueError,json.JSONDecodeError --retry-on OSError --retry-if-message 'time ?out' --at-most-once "
        "--timeout 1h30m --depends-on data/*.csv conf.d/** --force --no-store-output --quiet"
    )
    assert parse_magic_line(line) == StepOptions(
        name="pay",
        max_attempts=3,
        initial_delay=5.0,
        max_delay=300.0,
        backoff=1.5,
        jitter="half",
        retry="transient",
        retry_on=("ValueError", "json.JSONDecodeError", "OSError"),
        retry_if_message="time ?out",
        at_most_once=True,
        timeout=5400.0,
        depends_on=("data/*.csv", "conf.d/**"),
        force=True,
        store_output=False,
        quiet=True,
    )


def test_an_empty_line_gives_the_defaults() -> None:
    assert parse_magic_line("") == StepOptions()
    assert not StepOptions().retries


def test_a_value_may_be_joined_by_an_equals_sign_and_quoted() -> None:
    options = parse_magic_line("'load the data' --max-attempts=3 --retry-if-message='a b'")
    assert (options.name, options.max_attempts, options.retry_if_message) == ("load the data", 3, "a b")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("0.5", 0.5), ("250ms", 0.25), ("5s", 5), ("5m", 300), ("1h30m", 5400), ("1d", 86400), ("2min", 120)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "abc", "5x", "-3", "5s junk", "nan", "inf", "1h-30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--max-atempts 3", r"unknown option --max-atempts \(did you mean --max-attempts\?\)"),
        ("--max-attempts", "--max-attempts needs a value"),
        ("--max-attempts three", "--max-attempts: 'three' is not a whole number"),
        ("--max-attempts 0", "--max-attempts must be 1 or more"),
        ("--max-attempts 2 --max-attempts 3", "--max-attempts is given twice"),
        ("--initial-delay soon", "--initial-delay: 'soon' is not a duration"),
        ("--max-delay 1s --initial-delay 5s", "--max-delay"),
        ("--backoff 0.5", "--backoff must be 1 or more"),
        ("--jitter fully", r"--jitter: 'fully' .*did you mean full\?"),
        ("--retry tranzient", r"--retry: 'tranzient' .*did you mean transient\?"),
        ("--retry-on 3x", "--retry-on: '3x' is not the name of an exception"),
        ("--retry-if-message '('", "--retry-if-message: .* is not a regular expression"),
        ("--timeout 0", "--timeout must be more than 0"),
        ("--force=yes", "--force takes no value"),
        ("-f", "unknown option -f"),
        ("two names", "takes one NAME"),
        ("--at-most-once", "--at-most-once needs a NAME"),
        ("pay --at-most-once --max-attempts 2", "needs --retry-on"),
        ("pay --at-most-once --retry default", "needs --retry-on"),
        ("pay 'unclosed", "No closing quotation"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_option(line: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        parse_magic_line(line)
    assert "\n" not in str(caught.value)


def test_at_most_once_with_one_attempt_or_named_errors_is_allowed() -> None:
    assert parse_magic_line("pay --at-most-once --max-attempts 1").at_most_once
    assert parse_magic_line("pay --at-most-once --retry none").at_most_once
    assert parse_magic_line("pay --at-most-once --max-attempts 3 --retry-on ConnectError").retries


@pytest.mark.parametrize(
    "line", ["--retry default", "--max-attempts 2", "--retry-on ValueError", "--initial-delay 5", "--jitter none"]
)
def test_any_retry_option_asks_for_retries(line: str) -> None:
    assert parse_magic_line(line).retries


def test_the_line_form_takes_options_and_leaves_the_statement() -> None:
    options, statement = parse_line_statement('--name "pay now" --max-attempts 3 --quiet x = f("a  b", c=1)')
    assert (options.name, options.max_attempts, options.quiet) == ("pay now", 3, True)
    assert statement == 'x = f("a  b", c=1)'
    assert parse_line_statement("--force -- --x") == (StepOptions(force=True), "--x")
    assert parse_line_statement("--max-attempts=3 f()")[1] == "f()"
    for bad, message in [("", "needs a statement"), ("--name", "needs a value"), ("--nam x y", "did you mean --name")]:
        with pytest.raises(ValidationError, match=message):
            parse_line_statement(bad)


@pytest.mark.parametrize(
    ("comment", "options"),
    [
        ("# durable: off", StepOptions(mode="off")),
        ("#durable:always", StepOptions(mode="always")),
        ("# durable: name=pay at-most-once", StepOptions(name="pay", at_most_once=True)),
        (
            "# durable: name=pay at-most-once | max-attempts=1",
            StepOptions(name="pay", at_most_once=True, max_attempts=1),
        ),
        (
            "# durable: max_attempts=3 retry-on=ValueError,OSError",
            StepOptions(max_attempts=3, retry_on=("ValueError", "OSError")),
        ),
        ("# title\n\n# durable: name='a b'\nx = 1", StepOptions(name="a b")),
        ("%%time\n# durable: off\nx = 1", StepOptions(mode="off")),
        ("# durable: quiet\n# durable: force", StepOptions(quiet=True, force=True)),
    ],
)
def test_a_comment_sets_the_same_things(comment: str, options: StepOptions) -> None:
    assert parse_comment(comment) == options


@pytest.mark.parametrize("source", ["", "x = 1", "# about durable things", "x = 1\n# durable: off", "'# durable: off'"])
def test_other_text_is_no_option_comment(source: str) -> None:
    assert parse_comment(source) is None


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("# durable:", "needs an option"),
        ("# durable: offf", r"unknown option offf \(did you mean off\?\)"),
        ("# durable: off always", "cannot be both"),
        ("# durable: max-attempts", "max-attempts needs a value"),
        ("# durable: force=1", "takes no value"),
        ("# durable: at-most-once", "needs a NAME"),
    ],
)
def test_a_mistake_in_a_comment_is_named(comment: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse_comment(comment)


def test_tags_set_the_same_things_and_others_are_left_alone() -> None:
    assert parse_tags(["parameters", "durable: off"]) == StepOptions(mode="off")
    assert parse_tags(["durable:max-attempts=3", "durable:quiet"]) == StepOptions(max_attempts=3, quiet=True)
    assert parse_tags(["parameters", 3]) is None


def test_options_laid_over_others_win_where_they_are_given() -> None:
    below, above = StepOptions(name="a", max_attempts=2), StepOptions(max_attempts=5)
    assert below.merged(above) == StepOptions(name="a", max_attempts=5)
    assert below.merged(None) is below


class Own(Exception):
    pass


def test_error_names_are_resolved_as_the_cell_would_see_them() -> None:
    namespace: dict[str, Any] = {"Own": Own, "json": json, "several": (Own, KeyError)}
    names = ["Own", "ValueError", "json.JSONDecodeError", "json.decoder.JSONDecodeError", "several"]
    assert resolve_error_types(names, namespace) == (
        Own,
        ValueError,
        json.JSONDecodeError,
        json.JSONDecodeError,
        Own,
        KeyError,
    )
    assert resolve_error_types(["concurrent.futures.TimeoutError"], {}) == (TimeoutError,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ValueEror", r"unknown exception 'ValueEror' \(did you mean ValueError\?\)"),
        ("not_imported.Error", "unknown exception 'not_imported.Error'"),
        ("json", "unknown exception|not an exception type"),
        ("len", "not an exception type"),
        ("KeyboardInterrupt", "never retried"),
        ("SystemExit", "never retried"),
    ],
)
def test_a_name_that_is_no_error_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        resolve_error_types([name], {})
