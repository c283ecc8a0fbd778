"""Groups of names that travel to another namespace and back, without a process or a cluster."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from durable_nb.exceptions import NotStorableError
from durable_nb.snapshot import Luggage, StoredBuffers, pack, unpack
from tests.unit.snapshot.namespace import Namespace

MIB = 1 << 20


def groups(space: Namespace, *names: str) -> list[Any]:
    space.tracker.before(names)
    return [space.tracker.group_of(name) for name in names]


def bind(space: Namespace, values: dict[str, Any]) -> None:
    for name, value in values.items():
        space.tracker.bind(name, value)


def moved(space: Namespace, *names: str) -> tuple[Namespace, StoredBuffers, Luggage]:
    """Another namespace with these names, and what is known of their buffers there."""
    luggage = Luggage()
    manifest = pickle.loads(pickle.dumps(pack(space.tracker, groups(space, *names), luggage)))
    there, buffers = Namespace(), StoredBuffers()
    bind(there, unpack(manifest, there.tracker, Luggage(luggage.packed), buffers))
    return there, buffers, luggage


def test_names_that_share_an_object_arrive_and_come_back_sharing_it() -> None:
    here = Namespace()
    here.run("class P:\n    pass\na = [1]\nb = {'a': a}\np = P()\np.a = a\nalone = [2]")
    there, buffers, luggage = moved(here, "a", "alone")
    assert there["b"]["a"] is there["a"]
    assert there["p"].a is there["a"]
    delta = there.run("a.append(5)\nnew = (a, p)")
    assert {name for group in delta.groups for name in group.names} == {"a", "b", "p", "new"}
    back = Luggage(luggage.packed)
    bind(here, unpack(pack(there.tracker, delta.groups, back, buffers=buffers), here.tracker, back))
    assert here["a"] == [1, 5]
    assert here["b"]["a"] is here["a"] is here["p"].a is here["new"][0]
    assert type(here["new"][1]) is here["P"]
    assert here["alone"] == [2]


def test_of_a_large_array_only_what_changed_comes_back() -> None:
    here = Namespace()
    here.run("import numpy as np\nbig = np.zeros(2 << 20)\nview = big[10:20]")
    there, buffers, luggage = moved(here, "big")
    assert sum(memoryview(data).nbytes for data in luggage.packed.values()) >= 16 * MIB
    delta = there.run("view[0] = 3")
    back = Luggage(luggage.packed)
    values = unpack(pack(there.tracker, delta.groups, back, buffers=buffers), here.tracker, back)
    assert sum(memoryview(data).nbytes for data in back.packed.values()) <= MIB
    assert values["big"][10] == 3
    assert np.shares_memory(values["big"], values["view"])
    assert here["big"][10] == 0


def test_what_travels_tells_the_session_nothing_about_its_store() -> None:
    """A store has none of the blobs that travel: what is stored afterwards is stored whole."""
    here = Namespace()
    here.run("import numpy as np\nbig = np.zeros(1 << 20)")
    there, buffers, luggage = moved(here, "big")
    delta = there.run("big[0] = 1")
    back = Luggage(luggage.packed)
    bind(here, unpack(pack(there.tracker, delta.groups, back, buffers=buffers), here.tracker, back))
    here.run("big[1] = 2")
    again = here.reborn()
    assert again["big"][:3].tolist() == [1, 2, 0]


def test_what_cannot_travel_is_named() -> None:
    here = Namespace()
    here.run("import threading\nlock = threading.Lock()")
    manifest = pack(here.tracker, groups(here, "lock"), Luggage())
    assert [problem["path"] for problem in manifest["problems"]] == ["lock"]
    with pytest.raises(NotStorableError, match="lock"):
        unpack(manifest, Namespace().tracker, Luggage())
