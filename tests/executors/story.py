"""A handler that kills its process in the middle of a batch: `python -m tests.executors.story STORE PLACE FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from durable_nb.sdk import DurableContext, StepContext, durable_execution
from durable_nb.sdk.config import MapConfig

ITEMS = 6
KILLED_AT = 3


@durable_execution(name="executors-story")
def handler(event: Any, context: DurableContext) -> Any:
    folder = Path(event["folder"])

    def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
        def body(step: StepContext) -> int:
            (folder / f"item{x}.{os.getpid()}.0").touch()
            return x * x

        value = c.step(body)
        if x == KILLED_AT and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    config = MapConfig(executor=event["place"], max_concurrency=1)
    return context.map(list(range(ITEMS)), branch, config=config).get_results()


if __name__ == "__main__":
    handler.run({"place": sys.argv[2], "folder": sys.argv[3]}, name="story", store=sys.argv[1])
