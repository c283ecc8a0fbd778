"""A handler that passes every kind of write, and what must hold whatever happens to its process."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from durable_nb.exceptions import BackgroundThreadError, DurableExecutionsError
from durable_nb.sdk import DurableContext, StepError, _keeper, durable_execution
from durable_nb.sdk.config import MapConfig, StepConfig, StepSemantics
from durable_nb.sdk.retries import RetryPresets
from durable_nb.testing.faults_store import Fault, StoreFaults, faults_at

ONCE = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)
ORDER = ("load", "charge", "child", "item 0", "end")
EXPECTED = [1, "charged", 3, [0, 10, 20], "end"]
LIMIT = 60.0

_ledger = Path()


def note(word: str, value: Any) -> Any:
    """The body of a step: tells that it began."""

    def body(_: Any) -> Any:
        with _ledger.open("a") as file:
            file.write(word + "\n")
        return value

    return body


@durable_execution
def story(event: Any, context: DurableContext) -> Any:
    found: list[Any] = [context.step(note("load", event))]
    try:
        found.append(context.step(note("charge", "charged"), config=ONCE))
    except StepError:
        found.append("interrupted")
    context.wait(1)
    found.append(context.run_in_child_context(lambda c: c.step(note("child", 2)) + 1))

    def item(c: DurableContext, x: int, i: int, every: Any) -> int:
        return c.step(note(f"item {x}", x * 10))

    found.append(context.map([0, 1, 2], item, config=MapConfig(max_concurrency=1)).get_results())
    found.append(context.step(note("end", "end")))
    return found


def live(folder: str, faults: StoreFaults | None) -> None:
    """One process's life; its end is told in a file."""
    global _ledger
    place = Path(folder)
    _ledger = place / "ledger"
    os.environ["JUPYTER_DATA_DIR"] = str(place / "data")
    told: dict[str, Any] = {}
    # The keeper writes by the clock: on a busy machine that would be a commit more, and the points of two runs would
    # not be the same ones.
    _keeper._TICK_SECONDS = LIMIT
    if faults is not None:
        faults.install()
    try:
        told["result"] = story.run(1, name="a", store=place / "store")
    except (DurableExecutionsError, BackgroundThreadError, OSError) as exc:
        told["error"] = f"{type(exc).__name__}: {exc}"
    except BaseException:
        told["fault"] = traceback.format_exc()
    if faults is not None:
        told |= {"points": faults.names, "fired": faults.fired}
    (place / "told").write_text(json.dumps(told))
    os._exit(0)


def server() -> ForkServerContext:
    """A server that forks processes with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.crash.test_owners", "tests.crash.handler_story", "durable_nb.sdk._driver"])
    return context


class HandlerCase:
    """One fault in one process, and the processes after it."""

    def __init__(self, context: ForkServerContext, folder: Path) -> None:
        self.context, self.folder = context, folder
        folder.mkdir(parents=True)
        self.broken: list[str] = []

    def live(self, faults: StoreFaults | None = None) -> dict[str, Any]:
        (self.folder / "told").unlink(missing_ok=True)
        process = self.context.Process(target=live, args=(str(self.folder), faults))
        process.start()
        process.join(LIMIT)
        if process.exitcode is None:
            process.kill()
            process.join()
            return {"fault": "it hangs"}
        if process.exitcode == -signal.SIGKILL:
            return {"killed": True}
        if process.exitcode != 0:
            return {"fault": f"exit code {process.exitcode}"}
        return dict(json.loads((self.folder / "told").read_text()))

    def begun(self) -> Counter[str]:
        ledger = self.folder / "ledger"
        return Counter(ledger.read_text().splitlines()) if ledger.exists() else Counter()

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken.append(what)

    def run(self, fault: Fault) -> list[str]:
        first = self.live(StoreFaults(fault))
        self.require(first.get("killed") or first.get("fired") is True, f"the fault did not happen: {first}")
        self.require("fault" not in first, f"the first process failed: {first.get('fault')}")
        reached = [name for name in ORDER if self.begun()[name]]
        second = self.live()
        expected = [EXPECTED, [EXPECTED[0], "interrupted", *EXPECTED[2:]]]
        self.require(second.get("result") in expected, f"the second process ended with {second}")
        begun = self.begun()
        self.require(begun["charge"] <= 1, "the at-most-once body began twice")
        for name in reached[:-1]:
            self.require(begun[name] == 1, f"{name} was committed, and began {begun[name]} times")
        self.require(all(count <= 2 for count in begun.values()), f"bodies began too often: {begun}")
        third = self.live()
        self.require(third.get("result") == second.get("result"), f"the third process found {third}")
        self.require(self.begun() == begun, "a body began again at last")
        return self.broken


def every_fault(context: ForkServerContext, folder: Path) -> Iterator[tuple[str, Fault]]:
    """Each point that a whole run passes, with each fault that makes sense there."""
    seen = HandlerCase(context, folder).live(StoreFaults())
    assert seen.get("result") == EXPECTED, seen
    for place, name in enumerate(seen["points"], start=1):
        for kind in faults_at(name):
            yield name, Fault(kind, place)
    shutil.rmtree(folder)


def broken_by(context: ForkServerContext, root: Path, name: str, fault: Fault) -> list[str]:
    """Which promises a fault breaks; the folder goes again."""
    folder = root / f"{fault.point:03d}-{fault.kind}"
    try:
        return [f"{name}, {fault}: {what}" for what in HandlerCase(context, folder).run(fault)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
