"""The state of a generator read from memory is the one that is asked for."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_nb.snapshot import _twister
from durable_nb.snapshot._process import PARTS
from durable_nb.snapshot._twister import raw_state

STEPS = st.lists(st.tuples(st.sampled_from(["random", "gauss", "seed", "bits", "set", "nothing"]), st.integers(0, 9)))


def step(generator: random.Random, name: str, number: int) -> None:
    match name:
        case "random":
            generator.random()
        case "gauss":
            generator.gauss(0.0, 1.0)
        case "seed":
            generator.seed(number)
        case "bits":
            generator.getrandbits(number * 400)
        case "set":  # one bit of one word
            kind, words, last = generator.getstate()
            generator.setstate((kind, (*words[:number], words[number] ^ 1, *words[number + 1 :]), last))


@given(STEPS)
def test_it_moves_exactly_when_the_state_moves(steps: list[tuple[str, int]]) -> None:
    generator = random.Random(7)
    for name, number in steps:
        before, raw = generator.getstate(), raw_state(generator)
        assert raw is not None
        step(generator, name, number)
        assert (raw_state(generator) == raw) == (generator.getstate()[1] == before[1])


@given(STEPS)
def test_the_part_of_the_process_says_what_getstate_says(steps: list[tuple[str, int]]) -> None:
    part: Any = next(part for part in PARTS if part.name == "<random>")
    before = random.getstate()
    try:
        part.note_start()
        start = random.getstate()
        generator: Any = random.getstate.__self__  # type: ignore[attr-defined]
        for name, number in steps:
            step(generator, name, number)
            now = random.getstate()
            assert part.read() == (None if now == start else now)
    finally:
        random.setstate(before)
        part.note_start()


def test_what_cannot_be_read_so_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(random.Random):
        pass

    assert raw_state(Own()) is None
    assert raw_state(random.SystemRandom()) is None
    assert raw_state(None) is None
    monkeypatch.setattr(_twister, "_OFFSET", None)
    part: Any = next(part for part in PARTS if part.name == "<random>")
    first = part.read()
    random.random()
    assert part.read() not in (None, first)
    part.note_start()
