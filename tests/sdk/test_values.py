"""Serdes, previews and configuration values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import os
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_nb.sdk import DurableContext, durable_execution
from durable_nb.sdk.concurrency.models import BatchItem, BatchItemStatus, BatchResult, CompletionReason
from durable_nb.sdk.config import CompletionConfig, Duration, JitterStrategy, StepConfig, StepSemantics
from durable_nb.sdk.exceptions import SerDesError, ValidationError
from durable_nb.sdk.filesystem_serdes import (
    FileSystemPathEncoding,
    FileSystemSerDes,
    FileSystemSerDesConfig,
    FileSystemSerDesMode,
)
from durable_nb.sdk.pickle_serdes import PickleSerDes
from durable_nb.sdk.preview import FieldMatchMode, PreviewConfig, PreviewField, PreviewMode, build_preview
from durable_nb.sdk.retries import (
    LinearRetryStrategyConfig,
    RetryPresets,
    RetryStrategyConfig,
    create_linear_retry_strategy,
    create_retry_strategy,
)
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES, JsonSerDes, SerDesContext, deserialize, serialize
from durable_nb.sdk.typed_serdes import ModelSerDes, TypedSerDes
from durable_nb.sdk.types import DurableExecutionArn
from durable_nb.snapshot import MemoryBlobStore

NOWHERE = SerDesContext()
ARN = "arn:aws:lambda:us-west-2:123456789012:function:fn:$LATEST/durable-execution/name/inv"


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    tags: tuple[str, ...] = ()
    colour: Colour = Colour.RED
    cached: int = dataclasses.field(default=0, init=False)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.datetimes()
    | st.dates()
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(values)
def test_extended_values_come_back_equal_and_of_their_type(value: Any) -> None:
    back = EXTENDED_TYPES_SERDES.deserialize(EXTENDED_TYPES_SERDES.serialize(value, NOWHERE), NOWHERE)
    assert back == value
    assert type(back) is type(value)


@given(values)
def test_typed_values_come_back_equal_and_of_their_type(value: Any) -> None:
    serdes = TypedSerDes()
    back = serdes.deserialize(serdes.serialize(value, NOWHERE), NOWHERE)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [None, 1, "a", True, 1.5, [1, [2, "x"]], []])
def test_what_plain_json_keeps_is_plain_json(value: Any) -> None:
    assert EXTENDED_TYPES_SERDES.serialize(value, NOWHERE) == json.dumps(value, separators=(",", ":"))


def test_envelopes_have_the_tags_of_the_mirrored_format() -> None:
    value = (
        1,
        b"x",
        uuid.UUID(int=5),
        Decimal("1.5"),
        dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        dt.date(2020, 1, 1),
        [()],
    )
    tags = [item["t"] for item in json.loads(EXTENDED_TYPES_SERDES.serialize(value, NOWHERE))["v"]]
    assert tags == ["i", "B", "u", "d", "dt", "D", "l"]


def test_a_dict_that_looks_like_an_envelope_survives() -> None:
    value = {"t": "i", "v": 3}
    assert EXTENDED_TYPES_SERDES.deserialize(EXTENDED_TYPES_SERDES.serialize(value, NOWHERE), NOWHERE) == value


def test_a_batch_result_is_a_value() -> None:
    result: BatchResult[Any] = BatchResult(
        [BatchItem(0, BatchItemStatus.SUCCEEDED, (1, 2))], CompletionReason.ALL_COMPLETED
    )
    for serdes in (EXTENDED_TYPES_SERDES, TypedSerDes()):
        assert serdes.deserialize(serdes.serialize([result], NOWHERE), NOWHERE) == [result]


@pytest.mark.parametrize("value", [{1, 2}, object(), {(1, 2): 3}, dt.time(1)])
def test_what_cannot_be_kept_is_refused(value: Any) -> None:
    with pytest.raises(SerDesError):
        EXTENDED_TYPES_SERDES.serialize(value, NOWHERE)


@pytest.mark.parametrize("text", ["{", '{"t":"zz","v":1}', '{"t":"i"}', '{"t":"m","v":3}', "", '[{"t":"i","v":1}]'])
def test_a_payload_that_is_not_well_formed_is_refused(text: str) -> None:
    with pytest.raises(SerDesError):
        deserialize(None, text, "op", "arn")


def test_every_failure_of_a_serdes_is_a_serdes_error() -> None:
    with pytest.raises(SerDesError, match="op-1"):
        serialize(JsonSerDes(), {1}, "op-1", "arn")


def test_a_serdes_is_told_where_a_value_belongs(run: Any) -> None:
    seen: list[SerDesContext] = []

    class Spy(JsonSerDes):
        def serialize(self, value: Any, serdes_context: Any = None) -> str:
            seen.append(serdes_context)
            return super().serialize(value, serdes_context)

    @durable_execution(serdes=Spy())
    def handler(event: Any, context: DurableContext) -> str:
        context.step(lambda _: 1, name="named")
        return context.execution_context.durable_execution_arn

    arn = run(handler).result
    assert (seen[0].name, seen[0].type, seen[0].attempt, seen[0].durable_execution_arn) == ("named", "STEP", 1, arn)
    assert seen[1].type == "EXECUTION"


@pytest.mark.parametrize(
    "value",
    [
        Point(1, ("a",)),
        {"p": [Point(2)], Colour.RED: {1, 2}},
        Colour.RED,
        {(1, 2): frozenset({3})},
        np.float64(1.5),
        {"$class": "mine"},
    ],
    ids=repr,
)
def test_classes_that_describe_themselves_come_back(value: Any) -> None:
    serdes = TypedSerDes()
    back = serdes.deserialize(serdes.serialize(value, NOWHERE), NOWHERE)
    assert back == value
    assert type(back) is type(value)


def test_arrays_come_back_writable() -> None:
    serdes = TypedSerDes()
    for array in (
        np.arange(6).reshape(2, 3),
        np.array(["a", "bc"]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    ):
        back = serdes.deserialize(serdes.serialize(array, NOWHERE), NOWHERE)
        assert back.dtype == array.dtype
        assert np.array_equal(back, array)
        assert back.flags.writeable


def test_pydantic_models_come_back_validated() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Order(pydantic.BaseModel):
        number: int
        when: dt.date

    order = Order(number=1, when=dt.date(2020, 1, 2))
    serdes = ModelSerDes(Order)
    text = serdes.serialize(order, NOWHERE)
    assert json.loads(text) == {"number": 1, "when": "2020-01-02"}
    assert serdes.deserialize(text, NOWHERE) == order
    with pytest.raises(SerDesError, match="expected"):
        serdes.serialize("no order", NOWHERE)


def test_dataclasses_have_a_serdes_of_their_own() -> None:
    serdes = ModelSerDes(Point)
    assert serdes.deserialize(serdes.serialize(Point(3, ("x",)), NOWHERE), NOWHERE) == Point(3, ("x",))
    with pytest.raises(SerDesError, match="neither"):
        ModelSerDes(int)


def test_only_allowed_classes_are_read() -> None:
    text = TypedSerDes().serialize(Point(1), NOWHERE)
    with pytest.raises(SerDesError, match="not allow"):
        TypedSerDes(allow=lambda name: False).deserialize(text, NOWHERE)


def test_a_handler_s_serdes_serves_all_its_operations_and_its_result(run: Any) -> None:
    blobs = MemoryBlobStore()

    @durable_execution(serdes=PickleSerDes(blobs))
    def handler(event: Any, context: DurableContext) -> Any:
        array = context.step(lambda _: np.arange(50_000))
        context.wait(1)
        return {"sum": int(array.sum()), "point": context.run_in_child_context(lambda c: Point(7)), "s": {1}}

    assert run(handler).result == {"sum": int(np.arange(50_000).sum()), "point": Point(7), "s": {1}}
    assert list(blobs.addresses())


def test_a_payload_of_another_serdes_is_refused_by_name() -> None:
    serdes = PickleSerDes()
    with pytest.raises(SerDesError, match="no pickle"):
        serdes.load(b"junkjunkjunk", NOWHERE)
    text = serdes.serialize([1, {2}], NOWHERE)
    assert serdes.deserialize(text, NOWHERE) == [1, {2}]


# --- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", list(FileSystemPathEncoding))
def test_values_in_files_come_back(tmp_path: Path, encoding: FileSystemPathEncoding) -> None:
    serdes = FileSystemSerDes(str(tmp_path), FileSystemSerDesConfig(path_encoding=encoding))
    where = SerDesContext("op/1", ARN)
    text = serdes.serialize({"a": (1,)}, where)
    path = Path(json.loads(text)["file"])
    assert path.exists()
    assert tmp_path in path.parents
    assert serdes.deserialize(text, where) == {"a": (1,)}
    if encoding is FileSystemPathEncoding.URI:
        assert path.relative_to(tmp_path).parts == ("fn", "name", "inv", "op%2F1.json")


def test_only_large_values_overflow(tmp_path: Path) -> None:
    serdes = FileSystemSerDes(str(tmp_path), FileSystemSerDesConfig(FileSystemSerDesMode.OVERFLOW))
    assert "data" in json.loads(serdes.serialize("x" * 1000, SerDesContext("op", ARN)))
    assert "file" in json.loads(serdes.serialize("x" * 300_000, SerDesContext("op", ARN)))


def test_a_file_that_is_gone_is_a_serdes_error(tmp_path: Path) -> None:
    serdes = FileSystemSerDes(str(tmp_path))
    text = serdes.serialize(1, SerDesContext("op", ARN))
    Path(json.loads(text)["file"]).unlink()
    with pytest.raises(SerDesError, match="cannot be read"):
        serdes.deserialize(text, NOWHERE)


def test_a_path_never_leaves_its_folder(tmp_path: Path) -> None:
    serdes = FileSystemSerDes(str(tmp_path))
    for operation, arn in (("..", ".."), ("../../x", "../.."), ("/etc/x", "/etc")):
        path = Path(json.loads(serdes.serialize(1, SerDesContext(operation, arn)))["file"]).resolve()
        assert tmp_path.resolve() in path.parents


HOSTILE = {
    "an absolute path": lambda base: "/etc/hostname",
    "a way up": lambda base: f"{base}/a/../../secret.json",
    "a neighbour": lambda base: f"{base}-other/secret.json",
    "the folder itself": lambda base: str(base),
    "a relative path": lambda base: "secret.json",
    "a NUL": lambda base: f"{base}/a\0b",
    "nothing": lambda base: "",
}


@pytest.mark.parametrize("path", HOSTILE.values(), ids=HOSTILE)
def test_a_payload_opens_no_file_outside_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Callable[[Path], str]
) -> None:
    base = tmp_path / "values"
    for folder in (base / "a", tmp_path / "values-other"):
        folder.mkdir(parents=True)
    for place in (tmp_path, tmp_path / "values-other"):
        (place / "secret.json").write_text('"secret"')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SerDesError, match="outside") as caught:
        FileSystemSerDes(str(base)).deserialize(json.dumps({"file": path(base)}), NOWHERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_on_the_way_to_a_value_is_not_followed(tmp_path: Path, linked: str) -> None:
    serdes = FileSystemSerDes(str(tmp_path / "values"))
    text = serdes.serialize("right", SerDesContext("op", ARN))
    path = Path(json.loads(text)["file"])
    target = path if linked == "file" else path.parent
    target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SerDesError, match="cannot be read"):
        serdes.deserialize(text, NOWHERE)


def test_a_pipe_in_the_place_of_a_value_makes_nobody_wait(tmp_path: Path) -> None:
    serdes = FileSystemSerDes(str(tmp_path))
    text = serdes.serialize("right", SerDesContext("op", ARN))
    path = Path(json.loads(text)["file"])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SerDesError, match="no file"):
        serdes.deserialize(text, NOWHERE)


def test_a_value_whose_file_was_changed_is_not_given_back(tmp_path: Path) -> None:
    serdes = FileSystemSerDes(str(tmp_path))
    text = serdes.serialize("right\r\n", SerDesContext("op", ARN))
    assert serdes.deserialize(text, NOWHERE) == "right\r\n"
    Path(json.loads(text)["file"]).write_text('"wrong"')
    with pytest.raises(SerDesError, match="was changed"):
        serdes.deserialize(text, NOWHERE)


def test_a_folder_may_be_named_relatively_or_with_a_way_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for base in ("values", "../values", "./values"):
        serdes = FileSystemSerDes(base)
        assert serdes.deserialize(serdes.serialize([1], SerDesContext("op", ARN)), NOWHERE) == [1]


def test_a_preview_travels_with_the_file(tmp_path: Path) -> None:
    config = PreviewConfig(PreviewMode.INCLUDE_ALL, mask=[PreviewField("ssn")])
    serdes = FileSystemSerDes(
        str(tmp_path), FileSystemSerDesConfig(generate_preview=lambda value: build_preview(value, config))
    )
    text = serdes.serialize({"id": 1, "user": {"ssn": "1"}}, SerDesContext("op", ARN))
    assert json.loads(text)["preview"] == {"id": 1, "user": {"ssn": "***"}}


ALL, NONE = PreviewMode.INCLUDE_ALL, PreviewMode.EXCLUDE_ALL
SHOWN = {"id": 1, "user": {"name": "n", "ssn": "s", "tags": ["a", {"ssn": "t", "q": 1}]}, "list": [1, 2]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PreviewConfig(ALL), {"id": 1, "user": {"name": "n", "ssn": "s", "tags": {"ssn": "t", "q": 1}}}),
        (PreviewConfig(NONE), None),
        (PreviewConfig(NONE, include=[PreviewField("id"), PreviewField("name")]), {"id": 1, "user": {"name": "n"}}),
        (PreviewConfig(ALL, exclude=[PreviewField("user")]), {"id": 1}),
        (PreviewConfig(ALL, exclude=[PreviewField("id", FieldMatchMode.PATH), PreviewField("user")]), None),
        (PreviewConfig(NONE, mask=[PreviewField("list")]), {"list": "***"}),
        (PreviewConfig(NONE, include=[PreviewField("user.name", FieldMatchMode.PATH)]), {"user": {"name": "n"}}),
        (PreviewConfig(ALL, exclude=[PreviewField("x")], mask=[PreviewField("user")]), {"id": 1, "user": "***"}),
        (PreviewConfig(ALL, max_preview_bytes=20), {"id": 1}),
    ],
)
def test_a_preview_shows_what_its_config_says(config: PreviewConfig, expected: Any) -> None:
    assert build_preview(SHOWN, config) == expected
    assert build_preview([1], config) is None


# --- configuration -----------------------------------------------------------------------------------------------------


def test_durations_are_whole_seconds() -> None:
    assert Duration.from_seconds(1.9) == Duration(1)
    assert Duration.from_minutes(1.5) == Duration(90)
    assert Duration.from_hours(1) == Duration(3600)
    assert Duration.from_days(1) == Duration(86400)
    with pytest.raises(ValidationError):
        Duration(-1)


def test_both_spellings_of_delays_work_and_together_they_are_refused() -> None:
    seconds = RetryStrategyConfig(max_attempts=3, initial_delay_seconds=1, max_delay_seconds=10, backoff_rate=2.0)
    durations = RetryStrategyConfig(3, Duration(1), Duration(10))
    spans = RetryStrategyConfig(initial_delay=dt.timedelta(seconds=1), max_delay=dt.timedelta(seconds=10))  # type: ignore[arg-type]
    for config in (seconds, durations, spans):
        assert (config.initial_delay_seconds, config.max_delay_seconds) == (1, 10)
        assert config.initial_delay == Duration(1)
    with pytest.raises(ValidationError, match="not both"):
        RetryStrategyConfig(initial_delay=Duration(1), initial_delay_seconds=1)
    assert RetryStrategyConfig().initial_delay_seconds == 5
    assert RetryStrategyConfig().max_delay_seconds == 300


def test_the_docs_positional_order_of_a_step_s_options() -> None:
    strategy = RetryPresets.none()
    config = StepConfig(strategy, StepSemantics.AT_MOST_ONCE_PER_RETRY)
    assert config.retry_strategy is strategy
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.retry_strategy = None  # type: ignore[misc]


def test_exponential_delays_are_capped_and_at_least_a_second() -> None:
    strategy = create_retry_strategy(
        RetryStrategyConfig(
            max_attempts=10, initial_delay=Duration(2), max_delay=Duration(9), jitter_strategy=JitterStrategy.NONE
        )
    )
    assert [strategy(OSError(), n).delay_seconds for n in (1, 2, 3, 4, 5)] == [2, 4, 8, 9, 9]
    assert not strategy(OSError(), 10).should_retry
    huge = create_retry_strategy(RetryStrategyConfig(max_attempts=10**6, jitter_strategy=JitterStrategy.NONE))
    assert huge(OSError(), 5000).delay_seconds == 300


def test_linear_delays_grow_by_the_increment() -> None:
    strategy = create_linear_retry_strategy(
        LinearRetryStrategyConfig(initial_delay=Duration(1), increment=Duration(2), jitter_strategy=JitterStrategy.NONE)
    )
    assert [strategy(OSError(), n).delay_seconds for n in (1, 2, 3)] == [1, 3, 5]


def test_jitter_stays_in_its_range_and_delays_are_rounded_up() -> None:
    with patch("random.random", return_value=0.5):
        assert JitterStrategy.NONE.apply_jitter(10) == 10
        assert JitterStrategy.FULL.apply_jitter(10) == 5
        assert JitterStrategy.HALF.apply_jitter(10) == 7.5
        assert JitterStrategy.HALF.finalize_delay(10) == 8
        assert JitterStrategy.FULL.finalize_delay(0) == 1


@pytest.mark.parametrize(
    ("options", "error", "retried"),
    [
        ({}, OSError("x"), True),
        ({"retryable_errors": ["timeout"]}, OSError("a timeout b"), True),
        ({"retryable_errors": ["timeout"]}, OSError("x"), False),
        ({"retryable_errors": [re.compile("^a.b$")]}, OSError("axb"), True),
        ({"retryable_errors": []}, OSError("x"), False),
        ({"retryable_error_types": [OSError]}, ConnectionError("x"), True),
        ({"retryable_error_types": [ValueError]}, OSError("x"), False),
        ({"retryable_errors": ["x"], "retryable_error_types": [ValueError]}, OSError("x"), True),
        ({"retryable_errors": ["y"], "retryable_error_types": [OSError]}, OSError("x"), True),
    ],
)
def test_filters_choose_what_is_retried(options: Any, error: Exception, retried: bool) -> None:
    assert create_retry_strategy(RetryStrategyConfig(**options))(error, 1).should_retry is retried


@pytest.mark.parametrize(
    ("preset", "attempts"),
    [
        ("none", 1),
        ("default", 6),
        ("transient", 3),
        ("resource_availability", 5),
        ("critical", 10),
        ("linear", 6),
        ("fixed", 5),
    ],
)
def test_presets_have_their_number_of_attempts(preset: str, attempts: int) -> None:
    strategy = getattr(RetryPresets, preset)()
    assert not strategy(OSError(), attempts).should_retry
    assert attempts == 1 or strategy(OSError(), attempts - 1).should_retry
    assert RetryPresets.fixed(Duration(7))(OSError(), 3).delay_seconds == 7


@pytest.mark.parametrize(
    "options",
    [
        {"min_successful": 0},
        {"tolerated_failure_count": -1},
        {"tolerated_failure_percentage": 101},
        {"min_successful": 1, "should_complete": lambda status: None},
    ],
)
def test_impossible_completion_rules_are_refused(options: Any) -> None:
    with pytest.raises(ValidationError):
        CompletionConfig(**options)


def test_arns_are_read_and_other_text_is_not() -> None:
    assert DurableExecutionArn.from_arn(ARN) == DurableExecutionArn("fn", "name", "inv")
    assert DurableExecutionArn.from_arn("order-42") is None
    assert math.inf > 0
