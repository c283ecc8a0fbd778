"""The badge's channel: what pages are told about cells, and what their presses do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.notebook.harness import Bench, Kernel

pytestmark = pytest.mark.kernel


@pytest.fixture
def kernel(bench: Bench) -> Any:
    bench.notebook("a.ipynb", ["a = len('abc')", "b = a + 1"])
    with Kernel(bench, notebook="a.ipynb") as started:
        yield started


def told(comms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What messages to the page say of cells."""
    found = []
    for comm in comms:
        data = comm["content"].get("data", {})
        if data.get("kind") == "cells":
            found += data["cells"]
    return found


def channel(comms: list[dict[str, Any]]) -> str:
    opened = [comm["content"] for comm in comms if comm["header"]["msg_type"] == "comm_open"]
    return next(content["comm_id"] for content in opened if content["target_name"] == "durable_nb")


def test_a_page_is_told_how_each_cell_went(kernel: Kernel) -> None:
    first = kernel.run("a = len('abc')", cell_id="one")
    ran = told(first.comms)
    assert [info["state"] for info in ran] == ["running", "durable"]
    assert (ran[-1]["id"], ran[-1]["writes"], ran[-1]["actions"]) == ("one", ["a"], ["rerun"])
    second = told(kernel.run("b = a + 1", cell_id="two").comms)[-1]
    assert "a" in second["reads"]
    again = told(kernel.run("b = a + 1", cell_id="two").comms)
    assert [info["state"] for info in again] == ["replayed"]
    assert (again[0]["reads"], again[0]["writes"]) == (["a"], ["b"])


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("import os", "declared"),
        ("g = (n for n in range(3))", "not_storable"),
        ("1 / 0", "failed"),
    ],
)
def test_what_is_not_stored_is_told_as_such(kernel: Kernel, source: str, state: str) -> None:
    assert told(kernel.run(source, cell_id="one").comms)[-1]["state"] == state


def test_without_a_cell_id_no_channel_is_opened(kernel: Kernel) -> None:
    assert kernel.run("a = len('abc')").comms == []


def test_run_anew_makes_a_completed_cell_run(kernel: Kernel) -> None:
    comms = kernel.run("a = len('abc')", cell_id="one").comms
    kernel.send_comm(channel(comms), {"kind": "rerun", "id": "one", "request": 1})
    seen = kernel.run("a = len('abc')", cell_id="one")
    while seen.verdict == "replayed":  # the press is answered from another thread
        seen = kernel.run("a = len('abc')", cell_id="one")
    assert seen.verdict == "executed"


def test_an_interrupted_step_is_decided_from_its_badge(kernel: Kernel) -> None:
    pay = "%%durable_step pay --at-most-once\nprint('paid', flush=True)\nimport time\ntime.sleep(600)"
    kernel.execute(pay, cell_id="one").wait_for("paid")
    kernel.restart(kill=True)
    refused = kernel.execute(pay, cell_id="one")
    seen = refused.result()
    info = told(seen.comms)[-1]
    assert (info["state"], info["actions"]) == ("refused", ["succeeded", "again", "failed"])
    kernel.send_comm(channel(seen.comms), {"kind": "decide", "id": "one", "decision": "succeeded", "request": 1})
    kernel._until(lambda: "Decided" in refused.area.outputs[0]["data"]["text/plain"], "the decision")
    assert kernel.run(pay, cell_id="one").expect_ok().verdict == "replayed"


def test_a_channel_of_ours_leaves_cells_storable(kernel: Kernel) -> None:
    comms = kernel.run("a = len('abc')", cell_id="one").comms
    pending = kernel.execute("import time\nprint('go', flush=True)\ntime.sleep(0.5)\nb = a + 1", cell_id="two")
    pending.wait_for("go")
    kernel.send_comm(channel(comms), {"kind": "rerun", "id": "unknown", "request": 1})
    assert pending.result().expect_ok().verdict == "executed"
