"""When two sets of outputs say the same."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest

from durable_nb.testing._notebook_outputs import Tolerance, differences

EXACT = Tolerance()


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data: Any) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {key.replace("_", "/"): value for key, value in data.items()}}


def figure(colour: int, size: tuple[int, int] = (8, 8)) -> dict[str, Any]:
    image = pytest.importorskip("PIL.Image")
    target = io.BytesIO()
    image.new("RGB", size, (colour, colour, colour)).save(target, "PNG")
    return shown(image_png=base64.b64encode(target.getvalue()).decode())


def test_how_a_stream_was_cut_means_nothing() -> None:
    assert differences([stream("a\nb\n")], [stream("a\n"), stream("b\n")], EXACT) == []
    assert differences([stream(["a\n", "b\n"])], [stream("a\nb\n")], EXACT) == []  # type: ignore[arg-type]


def test_another_text_is_told_as_a_diff() -> None:
    assert differences([stream("a\nb\n")], [stream("a\nc\n")], EXACT)[-2:] == ["-b", "+c"]


def test_text_on_the_other_stream_is_a_difference() -> None:
    assert differences([stream("a")], [stream("a", "stderr")], EXACT)


def test_numbers_are_compared_exactly_unless_a_tolerance_is_asked_for() -> None:
    old, new = [stream("loss 0.1000001 of 3\n")], [stream("loss 0.1 of 3\n")]
    assert differences(old, new, EXACT)
    assert differences(old, new, Tolerance(relative=1e-4)) == []
    assert differences(old, new, Tolerance(relative=1e-9))


def test_a_tolerance_is_for_numbers_not_for_words_or_their_count() -> None:
    loose = Tolerance(relative=0.5)
    assert differences([stream("loss 1.0")], [stream("gain 1.0")], loose)
    assert differences([stream("1.0 2.0")], [stream("1.0")], loose)


def test_columns_may_be_as_wide_as_their_numbers() -> None:
    assert differences([stream("x  0.10001\n")], [stream("x      0.1\n")], Tolerance(relative=0.01)) == []


def test_addresses_of_objects_are_not_compared() -> None:
    assert (
        differences([shown(text_plain="<A at 0x7f00aa11bb22>")], [shown(text_plain="<A at 0x7fff00000000>")], EXACT)
        == []
    )


def test_another_number_or_kind_of_displays_is_a_difference() -> None:
    one = shown(text_plain="a")
    assert differences([one], [], EXACT)
    assert differences([one], [one, one], EXACT)
    assert differences([one], [shown(text_plain="a", text_html="a")], EXACT)
    assert differences([one], [{**one, "output_type": "execute_result"}], EXACT)


def test_figures_are_compared_by_how_they_look() -> None:
    assert differences([figure(100)], [figure(101)], EXACT) == []
    assert differences([figure(100)], [figure(200)], EXACT)
    assert differences([figure(100)], [figure(200)], Tolerance(figures=0.5)) == []
    assert "another size" in differences([figure(100)], [figure(100, (4, 4))], EXACT)[0]


def test_an_error_is_its_name_and_value_not_its_traceback() -> None:
    old = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["here"]}
    assert differences([old], [{**old, "traceback": ["there"]}], EXACT) == []
    assert differences([old], [{**old, "evalue": "yes"}], EXACT)


def test_live_widgets_are_not_compared() -> None:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    old = {"output_type": "display_data", "data": {"text/plain": "a", **view}}
    assert differences([old], [shown(text_plain="a")], EXACT) == []
