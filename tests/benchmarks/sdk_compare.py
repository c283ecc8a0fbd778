"""Durable steps, replay and maps, beside the disk's own commit rate, the AWS test runner and DBOS on SQLite.

    python -m tests.benchmarks.sdk_compare [--steps N] [--replay N] [--items N] [--dbos-python PATH]

Each side runs in a process of its own, one after the other, in a folder on the same disk. Only ours and DBOS are durable:
the AWS runner keeps everything in memory. What is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, float]


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- The disk ----------------------------------------------------------------------------------------------------------


def disk(folder: Path, options: argparse.Namespace) -> Figures:
    """The journal's own commit rate: one event an fsynced commit, nothing around it."""
    from durable_nb.events import Event, EventKind, OperationType
    from durable_nb.journal import SqliteJournal

    journal = SqliteJournal(folder / "raw.db")
    record = journal.create("raw", kind="handler", at=0.0, details={})
    lease = journal.acquire(record.execution_id, ttl=60)

    def commit(number: int) -> None:
        event = Event(
            operation_id=f"{number:064d}",
            kind=EventKind.SUCCEEDED,
            type=OperationType.STEP,
            at=time.time(),
            sub_type="Step",
            name="add",
            payload=b"5",
            details={"started": time.time()},
        )
        journal.append(record.execution_id, [event], lease=lease)

    seconds = timed(lambda: [commit(number) for number in range(options.steps)])
    journal.close()
    return {"steps_per_second": options.steps / seconds}


# --- Ours --------------------------------------------------------------------------------------------------------------


def ours(folder: Path, options: argparse.Namespace) -> Figures:
    """On SQLite, every step fsynced."""
    from durable_nb.journal import SqliteJournal
    from durable_nb.sdk import DurableContext, StepContext, durable_execution, durable_step
    from durable_nb.sdk._driver import Driver
    from durable_nb.sdk.config import MapConfig

    @durable_step
    def add(_: StepContext, a: int, b: int) -> int:
        return a + b

    @durable_execution
    def steps(event: Any, context: DurableContext) -> int:
        return sum(context.step(add(number, 1)) for number in range(event["n"]))

    replays: list[float] = []
    began: list[float] = []

    @durable_execution
    def replay(event: Any, context: DurableContext) -> None:
        for number in range(event["n"]):
            context.step(add(number, 1))
        replays.append(time.perf_counter() - began[-1])
        context.wait(1)

    @durable_execution
    def mapped(event: Any, context: DurableContext) -> int:
        config = MapConfig(max_concurrency=50)
        return context.map(range(event["n"]), lambda c, x, i, _: c.step(add(x, 1)), config=config).success_count

    journal = SqliteJournal(folder / "ours.db")
    driver = Driver(journal)
    # The clock starts before the history is read: reading it is part of a replay. Looking for news is not: that happens
    # every second, also in the middle of one.
    original = journal.read

    def read(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("after"):
            began.append(time.perf_counter())
        return original(*args, **kwargs)

    steps.start_on(driver, {"n": 50}).result()
    seconds = timed(lambda: steps.start_on(driver, {"n": options.steps}).result())
    items = timed(lambda: mapped.start_on(driver, {"n": options.items}).result())
    journal.read = read  # type: ignore[method-assign]
    replay.start_on(driver, {"n": options.replay}).result()
    return {
        "steps_per_second": options.steps / seconds,
        "replay_ms_per_1000": replays[-1] * 1000 / options.replay * 1000,
        "replay_seconds": replays[-1],
        "items_per_second": options.items / items,
    }


# --- AWS ---------------------------------------------------------------------------------------------------------------


def aws(folder: Path, options: argparse.Namespace) -> Figures:  # noqa: ARG001
    """The AWS SDK over its test runner: in memory."""
    from aws_durable_execution_sdk_python import durable_execution, durable_step
    from aws_durable_execution_sdk_python.config import Duration, MapConfig
    from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner

    logging.disable(logging.CRITICAL)

    @durable_step
    def add(_: Any, a: int, b: int) -> int:
        return a + b

    replays: list[float] = []

    @durable_execution
    def steps(event: Any, context: Any) -> int:
        start = time.perf_counter()
        total = sum(context.step(add(number, 1)) for number in range(event["n"]))
        replays.append(time.perf_counter() - start)
        if event.get("wait"):
            context.wait(Duration(1))
        return total

    @durable_execution
    def mapped(event: Any, context: Any) -> int:
        config = MapConfig(max_concurrency=50)
        return context.map(list(range(event["n"])), lambda c, x, i, _: c.step(add(x, 1)), config=config).success_count

    def run(handler: Any, **event: Any) -> None:
        with DurableFunctionTestRunner(handler) as runner:
            result = runner.run(json.dumps(event), execution_timeout=900)
            assert result.status.value == "SUCCEEDED", result

    run(steps, n=20)
    seconds = timed(lambda: run(steps, n=options.steps))
    items = timed(lambda: run(mapped, n=options.items))
    run(steps, n=options.replay, wait=True)
    return {
        "steps_per_second": options.steps / seconds,
        "replay_ms_per_1000": replays[-1] * 1000 / options.replay * 1000,
        "replay_seconds": replays[-1],
        "items_per_second": options.items / items,
    }


# --- DBOS --------------------------------------------------------------------------------------------------------------


def dbos(folder: Path, options: argparse.Namespace) -> Figures:
    """DBOS on SQLite. It is slow enough there that fewer steps tell as much."""
    import asyncio

    from dbos import DBOS, SetWorkflowID

    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{folder}/dbos.sqlite", "log_level": "ERROR"})

    @DBOS.step()  # type: ignore[misc, unused-ignore]
    def add(a: int, b: int) -> int:
        return a + b

    @DBOS.step()  # type: ignore[misc, unused-ignore]
    async def add_async(a: int, b: int) -> int:
        return a + b

    @DBOS.workflow()  # type: ignore[misc, unused-ignore]
    def steps(count: int) -> int:
        return sum(add(number, 1) for number in range(count))

    @DBOS.workflow()  # type: ignore[misc, unused-ignore]
    async def mapped(count: int) -> int:
        slots = asyncio.Semaphore(50)

        async def one(number: int) -> int:
            async with slots:
                return int(await add_async(number, 1))

        return len(await asyncio.gather(*(one(number) for number in range(count))))

    DBOS.launch()
    count = max(50, options.steps // 10)
    steps(20)
    with SetWorkflowID("replayed"):
        seconds = timed(lambda: steps(count))
    items = timed(lambda: asyncio.run(mapped(options.items)))
    replay = timed(lambda: DBOS.fork_workflow("replayed", count + 1).get_result())
    DBOS.destroy()
    return {
        "steps_per_second": count / seconds,
        "replay_ms_per_1000": replay * 1000 / count * 1000,
        "items_per_second": options.items / items,
    }


SIDES: dict[str, Callable[[Path, argparse.Namespace], Figures]] = {"disk": disk, "ours": ours, "aws": aws, "dbos": dbos}


# --- The table ---------------------------------------------------------------------------------------------------------


def run_side(side: str, options: argparse.Namespace) -> Figures | None:
    """One side in its own process; None when it is not installed."""
    python = options.dbos_python if side == "dbos" else sys.executable
    command = [python, "-W", "ignore", "-m", "tests.benchmarks.sdk_compare", "--side", side]
    command += ["--steps", str(options.steps), "--replay", str(options.replay), "--items", str(options.items)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    if done.returncode:
        missing = "ModuleNotFoundError" in done.stderr
        sys.stderr.write(f"{side}: {'not installed' if missing else done.stderr[-2000:]}\n")
        return None
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(results: dict[str, Figures]) -> str:
    """The figures, side by side."""
    columns = ("steps_per_second", "replay_ms_per_1000", "items_per_second")
    lines = [f"{'':6}" + "".join(f"{column:>22}" for column in columns)]
    for side, figures in results.items():
        cells = (f"{figures[column]:>22,.1f}" if column in figures else f"{'':>22}" for column in columns)
        lines.append(f"{side:6}" + "".join(cells))
    if "disk" in results and "ours" in results:
        ratio = results["ours"]["steps_per_second"] / results["disk"]["steps_per_second"]
        lines.append(f"durable steps at {ratio:.2f} of the journal's own commit rate")
    if "replay_seconds" in results.get("ours", {}):
        lines.append(f"replay of the long history: {results['ours']['replay_seconds']:.3f} s")
    return "\n".join(lines)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=sorted(SIDES))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--replay", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--dbos-python", default=sys.executable, help="an interpreter that has dbos")
    options = parser.parse_args()
    if options.side:
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
            sys.stdout.write(json.dumps(SIDES[options.side](Path(folder), options)) + "\n")
        return
    results = {side: figures for side in SIDES if (figures := run_side(side, options)) is not None}
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
