"""The numbers to hold, each with what was measured: a pure function of the figures of one run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.measure import Figures, Sides, halves, median_of, per_cell, total

MB, MS = 1e6, 1e-3


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table."""

    what: str
    limit: str
    found: str
    met: bool


def targets(
    sides: Mapping[str, Sides], startup: Mapping[str, list[float]], sdk: Mapping[str, Sequence[Mapping[str, float]]]
) -> list[Target]:
    """All targets that the figures can answer."""
    found: list[Target] = []
    if "trivial" in sides:
        found += _first_run(sides["trivial"], "over 200 cells")
    if "crowded" in sides:
        found += _first_run(sides["crowded"], "among 1 GB of live arrays")
    if "trivial" in sides:
        found.append(_replayed(sides["trivial"]))
    if "array" in sides:
        found += _array(sides["array"])
    if "row" in sides:
        found += _row(sides["row"])
    if "again" in sides:
        stored = median_of(sides["again"].figures["first"], lambda figures: figures["stored"])
        found.append(Target("unchanged data stored again", "0 bytes", f"{stored:,.0f} bytes", stored == 0))
    found += _sdk(sdk)
    found += _startup(startup)
    return found


def over(sides: Sides, side: str = "first") -> float:
    """What a side's median cell takes more than the plain kernel's, in seconds; the median over the rounds."""
    pairs = zip(sides.figures[side], sides.figures["plain"], strict=False)
    return statistics.median(per_cell(ours) - per_cell(plain) for ours, plain in pairs)


def processor(sides: Sides, side: str = "first") -> float:
    """Processor time of a side's cell beyond the plain kernel's, in seconds: what a busy machine does not stretch."""
    pairs = zip(sides.figures[side], sides.figures["plain"], strict=False)
    return statistics.median(ours["cpu"] - plain["cpu"] for ours, plain in pairs) / len(sides.workload.cells)


def _more(sides: Sides, side: str = "first") -> str:
    return f"plain + {over(sides, side) / MS:.2f} ms, {processor(sides, side) / MS:.2f} ms of the processor"


def growth(sides: Sides, side: str = "first") -> float:
    """What a cell of the last quarter takes more than one of the first, in seconds, beside the plain kernel's."""

    def grown(figures: Figures) -> float:
        first, last = halves(figures)
        return last - first

    pairs = zip(sides.figures[side], sides.figures["plain"], strict=False)
    return statistics.median(grown(ours) - grown(plain) for ours, plain in pairs)


def _first_run(sides: Sides, where: str) -> list[Target]:
    commit = median_of(sides.figures["machine"], lambda figures: figures["commit"])
    more, grown = over(sides), growth(sides)
    limit = commit + 2 * MS
    return [
        Target(
            f"trivial cell, first run, {where}",
            f"plain + one commit ({commit / MS:.2f} ms) + 2 ms",
            _more(sides),
            more <= limit,
        ),
        Target(
            f"the same is flat, {where}", "last quarter as the first", f"{grown / MS:+.2f} ms", grown <= 0.1 * limit
        ),
    ]


def _replayed(sides: Sides) -> Target:
    more = over(sides, "replay")
    return Target("replayed cell", "plain + 1 ms", _more(sides, "replay"), more <= 1 * MS)


def _array(sides: Sides) -> list[Target]:
    write = median_of(sides.figures["machine"], lambda figures: figures["write_fsync"])
    pairs = list(zip(sides.figures["first"], sides.figures["plain"], sides.figures["machine"], strict=False))
    ratio = statistics.median((total(first) - total(plain)) / machine["write_fsync"] for first, plain, machine in pairs)
    memory = statistics.median(first["peak"] - plain["peak"] for first, plain, _ in pairs)
    # The replay itself, and what the silent request that looks takes longer than the plain kernel's.
    restored = statistics.median(
        replay["inside"] + max(0.0, replay["looks"][0] - plain["looks"][0])
        for replay, plain in zip(sides.figures["replay"], sides.figures["plain"], strict=False)
    )
    pages = median_of(sides.figures["replay"], lambda figures: figures["peak_first_look"])
    read = statistics.median(
        replay["looks"][2] / machine["read_sum"]
        for replay, machine in zip(sides.figures["replay"], sides.figures["machine"], strict=False)
    )
    return [
        Target(
            "1 GB array: checkpoint",
            "1.3 x write + fsync of the same bytes",
            f"{ratio:.2f} x ({write:.2f} s)",
            ratio <= 1.3,
        ),
        Target("1 GB array: memory", "peak + 64 MB", f"peak + {memory / MB:.0f} MB", memory <= 64 * MB),
        Target("1 GB array: replayed, to its first element", "5 ms", f"{restored / MS:.2f} ms", restored <= 5 * MS),
        Target("the same: memory", "the pages read", f"{pages / MB:.1f} MB", pages <= 16 * MB),
        Target("the same: full read", "as reading the file", f"{read:.2f} x", read <= 1.3),
    ]


def _row(sides: Sides) -> list[Target]:
    more = over(sides)
    cells = len(sides.workload.cells)
    stored = median_of(sides.figures["first"], lambda figures: figures["stored"]) / cells
    return [
        Target("one row of a 20 MB array among 1 GB", "plain + 20 ms", _more(sides), more <= 20 * MS),
        Target("the same: stored", "1.1 MB", f"{stored / MB:.2f} MB", stored <= 1.1 * MB),
    ]


def _sdk(sdk: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Target]:
    if "ours" not in sdk or "disk" not in sdk:
        return []
    pairs = zip(sdk["ours"], sdk["disk"], strict=False)
    ratio = statistics.median(ours["steps_per_second"] / disk["steps_per_second"] for ours, disk in pairs)
    replay = statistics.median(ours["replay_seconds"] for ours in sdk["ours"])
    return [
        Target("durable SDK steps, one after the other", "0.8 x the journal's commits", f"{ratio:.2f} x", ratio >= 0.8),
        Target("10,000 completed steps replayed", "0.3 s", f"{replay:.2f} s", replay <= 0.3),
    ]


def _startup(startup: Mapping[str, list[float]]) -> list[Target]:
    limits = {"import": ("import of durable_nb", 50 * MS), "extension": ("the extension loads", 200 * MS)}
    return [
        Target(
            limits[what][0],
            f"{limits[what][1] / MS:.0f} ms",
            f"{statistics.median(seconds) / MS:.0f} ms",
            statistics.median(seconds) <= limits[what][1],
        )
        for what, seconds in startup.items()
        if seconds
    ]
