"""The decorator of ours and the library's make the same of a class."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from durable_nb import _dataclass

MAKERS: list[Callable[..., Any]] = [dataclasses.dataclass, _dataclass.dataclass]
OPTIONS: list[dict[str, bool]] = [
    {"frozen": True, "slots": True},
    {"frozen": True, "slots": True, "kw_only": True},
    {"frozen": True, "slots": True, "eq": False},
    {"slots": True},
    {"slots": True, "eq": False},
    {},
]


def make(maker: Callable[..., Any], options: dict[str, bool]) -> Any:
    @maker(**options)
    class Point:
        """Where."""

        x: int
        y: int = 2
        seen: list[int] = field(default_factory=list, compare=False)
        secret: str = field(default="s", repr=False)
        label: str | None = field(default=None, kw_only=True)
        length: float = field(init=False, default=1.5)
        parts: list[int] = field(init=False, default_factory=list, hash=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "length", float(self.x))

    return Point


def outcome(call: Callable[[], Any]) -> Any:
    try:
        found = call()
    except Exception as error:  # noqa: BLE001 - what is compared
        return type(error)
    return str(found) if dataclasses.is_dataclass(found) else found


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_both_make_the_same_class(options: dict[str, bool]) -> None:
    theirs, ours = (make(maker, options) for maker in MAKERS)
    asks: list[Callable[[Any], Any]] = [
        lambda cls: repr(cls(x=1, y=3)),
        lambda cls: cls(x=1) == cls(x=1, seen=[1]),
        lambda cls: cls(x=1) == cls(x=2),
        lambda cls: cls(x=1) == 1,
        lambda cls: hash(cls(x=1, label="a")) == object.__hash__(cls(x=1)),
        lambda cls: None if cls.__hash__ is object.__hash__ else hash(cls(x=1, label="a")),
        lambda cls: cls(1, 2),
        lambda cls: cls(),
        lambda cls: cls(x=1, length=2),
        lambda cls: cls(x=1).seen is cls(x=1).seen,
        lambda cls: dataclasses.asdict(dataclasses.replace(cls(x=1), y=9)),
        lambda cls: [(one.name, one.init, one.kw_only) for one in dataclasses.fields(cls)],
        lambda cls: setattr(cls(x=1), "x", 2),
        lambda cls: delattr(cls(x=1), "x"),
        lambda cls: copy.deepcopy(cls(x=1, seen=[1])).seen,
        lambda cls: cls(x=1).__reduce_ex__(5)[2],
        lambda cls: [(one.name, one.kind, one.annotation) for one in inspect.signature(cls).parameters.values()],
        lambda cls: inspect.signature(cls).parameters["y"].default,
        lambda cls: (cls.__doc__, cls.__match_args__, cls.__init__.__qualname__, getattr(cls, "__slots__", None)),
    ]
    for ask in asks:
        one, two = (outcome(lambda: ask(cls)) for cls in (theirs, ours))  # noqa: B023 - called at once
        assert one == two, inspect.getsource(ask)


@_dataclass.dataclass(frozen=True, slots=True)
class Base:
    a: int
    loop: list[Any] = field(default_factory=list)


@_dataclass.dataclass(frozen=True, slots=True)
class Derived(Base):
    b: int = 0


def test_a_subclass_has_the_fields_of_both() -> None:
    made = Derived(1, [], 3)
    assert (made.a, made.b) == (1, 3)
    assert repr(made) == "Derived(a=1, loop=[], b=3)"
    assert made != Base(1)
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'a'"):
        made.a = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.other = 2  # type: ignore[attr-defined]


def test_what_holds_itself_can_be_shown() -> None:
    made = Base(1)
    made.loop.append(made)
    assert repr(made) == "Base(a=1, loop=[...])"


def test_what_a_class_defines_itself_stays() -> None:
    @_dataclass.dataclass(slots=True)
    class Own:
        a: int

        def __init__(self) -> None:
            self.a = 7

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = object.__hash__

    assert repr(Own()) == "own"
    assert Own() == 1
    assert hash(Own())
    assert Own().a == 7


def test_a_frozen_class_without_slots_is_refused() -> None:
    with pytest.raises(TypeError, match="needs slots"):
        make(_dataclass.dataclass, {"frozen": True})
