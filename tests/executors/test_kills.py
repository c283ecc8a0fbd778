"""Workers killed at random under batches of both kinds of steps: nothing lost, nothing at-most-once begun twice.

Each seed is a batch of `ITEMS` cases. `DURABLE_NB_SEED` chooses other ones.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from durable_nb.journal import MemoryJournal
from durable_nb.sdk import DurableContext, StepContext, durable_execution
from durable_nb.sdk.concurrency.models import BatchItemStatus
from durable_nb.sdk.config import CompletionConfig, MapConfig, StepConfig, StepSemantics
from tests.crash.evidence import Toll
from tests.executors.cluster import Cluster

pytestmark = pytest.mark.xdist_group("dask")

ITEMS = 12
ONCE = StepConfig(step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY)
SEED = os.environ.get("DURABLE_NB_SEED", "1")
INTERRUPTED = "its end is not known"


@pytest.mark.parametrize(
    "number", [*range(2), *(pytest.param(number, marks=pytest.mark.soak) for number in range(2, 60))]
)
def test_nothing_is_lost_and_nothing_begins_twice(cluster: Cluster, begun: Path, number: int) -> None:
    chance = random.Random(f"{SEED} {number}")
    seconds = [chance.uniform(0.0, 0.15) for _ in range(ITEMS)]
    once = [chance.random() < 0.5 for _ in range(ITEMS)]
    kills = sorted(chance.uniform(0.0, 0.6) for _ in range(chance.randint(1, 3)))
    limit = chance.choice([None, 3, 6])

    @durable_execution(name=f"killed-{number}")
    def handler(event: Any, context: DurableContext) -> Any:
        def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
            def body(step: StepContext) -> int:
                (begun / f"{x}.begin.{os.getpid()}.{time.monotonic_ns()}").touch()
                time.sleep(seconds[x])
                (begun / f"{x}.end.{os.getpid()}.{time.monotonic_ns()}").touch()
                return x * x

            return c.step(body, f"item{x}", ONCE if once[x] else None)

        config = MapConfig(limit, CompletionConfig.all_completed(), executor=cluster.place)
        result = context.map(list(range(ITEMS)), branch, config=config)
        return [[one.status.value, one.result, one.error.message if one.error else None] for one in result.all]

    def kill() -> None:
        start = time.monotonic()
        for at in kills:
            time.sleep(max(0.0, at - (time.monotonic() - start)))
            cluster.kill_worker(chance.choice(cluster.workers).pid)
            cluster.add_worker()

    journal = MemoryJournal()
    killer = threading.Thread(target=kill)
    killer.start()
    found = handler.run(store=journal, name="killed")
    killer.join()
    words = Counter(tuple(path.name.split(".")[:2]) for path in begun.iterdir())
    toll = Toll()
    for x, (status, value, error) in enumerate(found):
        begins, ends = words[str(x), "begin"], words[str(x), "end"]
        if once[x] and begins > 1:
            toll.doubled.append(f"item {x} began {begins} times")
        if status == BatchItemStatus.SUCCEEDED.value:
            if value != x * x:
                toll.wrong.append(f"item {x}: {value}")
            assert ends >= 1
        elif not (once[x] and INTERRUPTED in error):
            toll.lost.append(f"item {x}: {error}")
    assert len(found) == ITEMS
    toll.require_none("Dask workers killed", cases=len(kills), seed=number, steps=ITEMS)
    assert handler.run(store=journal, name="killed") == found
    assert Counter(tuple(path.name.split(".")[:2]) for path in begun.iterdir()) == words, "a replay begins nothing"
