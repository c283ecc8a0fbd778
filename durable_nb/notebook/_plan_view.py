"""`%durable plan` on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from durable_nb.amounts import duration
from durable_nb.foresight import Foreseen
from durable_nb.notebook._text import table

_WORDS = {
    "replay": "replay",
    "run": "run",
    "declare": "declare",
    "ordinary": "run (no step)",
    "decide": "asks you",
    "manage": "%durable",
}


def plan_text(rows: Sequence[Foreseen]) -> str:
    """The plan as a table, with the work it spares and the work it costs."""
    if not rows:
        return "the notebook has no code cells"
    lines = [
        table(
            ("cell", "would", "last took", "source", "because"),
            [(str(row.number), word(row), duration(row.seconds), row.label, row.reason) for row in rows],
        )
    ]
    lines += [f"  {row.number}: {line}" for row in rows if row.action in ("run", "decide") for line in row.difference]
    return "\n".join([*lines, total(rows)])


def word(row: Foreseen) -> str:
    """What would become of a cell, in a word or two."""
    found = _WORDS[row.action]
    return found if row.sure else f"probably {found}"


def total(rows: Iterable[Foreseen]) -> str:
    """How much runs and how much does not."""
    listed = list(rows)
    replayed = [row for row in listed if row.action == "replay"]
    running = [row for row in listed if row.action in ("run", "ordinary")]
    known = [row.seconds for row in running if row.seconds is not None]
    cost = f"about {duration(sum(known))}" if known else "nobody knows how long"
    if known and len(known) < len(running):
        cost += f" and {len(running) - len(known)} that never ran"
    spared = duration(sum(row.seconds or 0.0 for row in replayed))
    runs = f"{len(running)} to run ({cost})" if running else "nothing to run"
    return f"{len(replayed)} to replay ({spared} spared), {runs}"


def show_plan(rows: Sequence[Foreseen]) -> None:
    """Print the plan."""
    print(plan_text(rows))
