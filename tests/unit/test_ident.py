"""Objects told apart by a number that costs no audit event."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from durable_nb._ident import ident


class Equal:
    """Equal to everything, and without a hash."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Meta(type):
    def __hash__(cls) -> int:
        return 0


class One(metaclass=Meta):
    pass


@pytest.mark.parametrize("kind", [list, dict, set, Equal, object, type("Two", (One,), {}), lambda: type("T", (), {})])
def test_live_objects_have_numbers_of_their_own(kind: Any) -> None:
    alive = [kind() for _ in range(2000)]
    assert len(set(map(ident, alive))) == 2000
    assert [ident(one) for one in alive] == list(map(ident, alive))


def test_classes_with_a_hash_of_their_own_are_told_apart() -> None:
    classes = [One, type("Other", (One,), {})]
    assert hash(classes[0]) == hash(classes[1])
    assert ident(classes[0]) != ident(classes[1])


def test_no_audit_event_is_raised() -> None:
    program = """
import sys
from durable_nb._ident import ident
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event) if event == "builtins.id" else None)
value = object()
ident(value)
told = len(seen)
id(value)
print(told, len(seen))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]
