"""Versions of many small objects: quick ways of writing them write the same."""

from __future__ import annotations

from typing import Any

from durable_nb.snapshot import _digest_rules  # noqa: F401 - the rules register themselves
from durable_nb.snapshot._digest import content_digest


class Text(str):
    pass


def digest(value: Any) -> str | None:
    return content_digest([("v", value)])


def test_the_version_of_records_is_what_it_was_in_stores_that_exist() -> None:
    records: list[Any] = [{"id": n, "name": f"n{n}", "value": n / 2} for n in range(-2, 300)]
    records += [{1: "é", None: -1}, {}, {"id": 2**70}]
    assert content_digest([("records", records)]) == "9cccb2c7d0700fceeec5ea35ab621450"


def test_keys_count_with_their_order_type_and_number() -> None:
    plain = {"a": 1, "b": 2}
    others: list[Any] = [
        {"b": 2, "a": 1},
        {"a": 1},
        {"ab": 1, "": 2},
        {"a": 1, b"b": 2},
        {Text("a"): 1, Text("b"): 2},
        dict.fromkeys("abcdefghi", 1),
    ]
    versions = [digest([plain, other]) for other in [plain, {"a": 1, "b": 2}, *others]]
    assert len({version for version in versions if version is not None}) == len(versions) - versions.count(None)
    assert digest([plain, {"a": 1, "b": 2}]) == digest([dict(plain), dict(plain)])
    assert digest([plain, {Text("a"): 1, Text("b"): 2}]) != digest([plain, {"a": 1, "b": 2}])
