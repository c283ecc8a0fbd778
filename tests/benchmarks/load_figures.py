"""What the rounds of `load.py` measured, and the part of `docs/scale.md` that is made of it: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

BEGIN = "<!-- made by `make load`, from scale.json -->"
END = "<!-- until here -->"


@dataclass(frozen=True, slots=True)
class Round:
    """What one side did in one round."""

    side: str
    workers: int
    level: int
    """Finished executions that were asked for."""
    finished: int
    """Executions that had ended before it began: in a timed round as many, in a counted one those of the timed too."""
    executions: int
    steps: int
    """Of all executions together."""
    seconds: float
    commits: int
    """Transactions that the server has committed, of those that watch too."""
    syncs: int
    """How often the server waited for the disk of its log."""
    wal: int
    """Bytes of its log."""
    pages: int
    """Whole pages among them."""
    processor: float
    """Seconds that its workers and the server have used of the processors, while the clock ran."""
    others: float
    """Share of the machine's processors that others used meanwhile, other virtual machines among them."""
    stored: int
    """Bytes of tables and indexes before it began."""
    round_trips: int | None = None
    """Counted in rounds whose time does not count."""

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds


@dataclass(slots=True)
class Load:
    """A run."""

    machine: dict[str, str] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)

    def raw(self) -> dict[str, Any]:
        """Every figure of every round, as JSON."""
        return {"machine": self.machine, "rounds": [asdict(one) for one in self.rounds]}

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Load:
        """The run that `raw` told."""
        return cls(dict(raw["machine"]), [Round(**one) for one in raw["rounds"]])

    def sides(self) -> list[str]:
        """In the order of the first round of each."""
        return list(dict.fromkeys(one.side for one in self.rounds))

    def workers(self) -> list[int]:
        """How many there were, in the different rounds."""
        return sorted({one.workers for one in self.rounds})

    def levels(self) -> list[int]:
        """How many executions had ended before the timed rounds."""
        return sorted({one.level for one in self.rounds})

    def timed(self, side: str, workers: int, level: int) -> list[Round]:
        """The rounds whose time counts."""
        return [one for one in self._of(side, workers, level) if one.round_trips is None]

    def rate(self, side: str, workers: int, level: int) -> float:
        """Steps a second over all its timed rounds; 0 when there is none."""
        return _share(self.timed(side, workers, level), "steps", "seconds")

    def a_step(self, what: str, side: str, workers: int, level: int) -> float:
        """One of the counts, per step, over all its timed rounds."""
        return _share(self.timed(side, workers, level), what, "steps")

    def trips(self, side: str, workers: int, level: int) -> float:
        """Round trips a step."""
        counted = [one for one in self._of(side, workers, level) if one.round_trips is not None]
        return _share(counted, "round_trips", "steps")

    def _of(self, side: str, workers: int, level: int) -> list[Round]:
        return [one for one in self.rounds if (one.side, one.workers, one.level) == (side, workers, level)]


def _share(rounds: Sequence[Round], above: str, below: str) -> float:
    total = sum(getattr(one, below) for one in rounds)
    return sum(getattr(one, above) for one in rounds) / total if total else 0.0


def table(load: Load) -> str:
    """All figures."""
    head = ["finished before", "workers"]
    for side in load.sides():
        head += [f"{side}: steps a second", "ms of the processor a step", "round trips a step", "commits a step"]
        head += ["syncs a step", "KB of log a step"]
    rows = []
    for level in load.levels():
        for workers in load.workers():
            cells = [f"{level:,}", str(workers)]
            for side in load.sides():
                key = (side, workers, level)
                if not load.timed(*key):
                    cells += ["not run"] * 6
                    continue
                trips = load.trips(*key)
                cells += [f"{load.rate(*key):,.0f}", f"{1000 * load.a_step('processor', *key):.2f}"]
                cells += [f"{trips:.2f}" if trips else "not run"]
                cells += [f"{load.a_step('commits', *key):.2f}", f"{load.a_step('syncs', *key):.2f}"]
                cells += [f"{load.a_step('wal', *key) / 1000:.2f}"]
            rows.append(cells)
    return _markdown(head, rows)


def growth(load: Load) -> str:
    """The figures with the most finished executions, divided by those with the fewest."""
    least, most = load.levels()[0], load.levels()[-1]
    head = ["workers"]
    for side in load.sides():
        head += [f"{side}: steps a second", "processor a step", "round trips a step", "KB of log a step"]
        head += ["tables and indexes"]
    rows = []
    for workers in load.workers():
        cells = [str(workers)]
        for side in load.sides():
            few, many = (side, workers, least), (side, workers, most)
            stored = max((one.stored for one in load.timed(*many)), default=0)
            cells += [
                _times(load.rate(*many), load.rate(*few)),
                _times(load.a_step("processor", *many), load.a_step("processor", *few)),
                _times(load.trips(*many), load.trips(*few)),
                _times(load.a_step("wal", *many), load.a_step("wal", *few)),
                f"{stored / 1e9:.2f} GB" if stored else "not run",
            ]
        rows.append(cells)
    return f"With {most:,} finished executions, divided by the same with {least:,}:\n\n{_markdown(head, rows)}"


def _times(many: float, few: float) -> str:
    return f"{many / few:.2f}" if few and many else "not run"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' ---: |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


def rounds_told(load: Load) -> str:
    """How many executions the rounds had."""
    timed = [one for one in load.rounds if one.round_trips is None]
    counted = [one for one in load.rounds if one.round_trips is not None]
    usual = max((one.executions for one in timed), default=0)
    shorter = [one for one in timed if one.executions < usual]
    steps = timed[0].steps // timed[0].executions if timed else 0
    text = (
        f"{len(timed)} timed rounds of {usual:,} executions of {steps} steps; round trips are from {len(counted)} rounds"
        f" of {max((one.executions for one in counted), default=0)} executions."
    )
    if timed:
        shares = [100 * one.others for one in timed]
        text += f" Meanwhile others used {min(shares):.0f} to {max(shares):.0f} % of the processors."
    if shorter:
        told = ", ".join(f"{one.side} with {one.workers} at {one.level:,}: {one.executions:,}" for one in shorter)
        text += f" Shorter, to keep within the time of the run: {told}."
    return text


def region(load: Load) -> str:
    """What stands between the two marks of `docs/scale.md`."""
    facts = "\n".join(f"- {name}: {value}" for name, value in load.machine.items())
    return f"{BEGIN}\n\n{rounds_told(load)}\n\n{table(load)}\n\n{growth(load)}\n\nThe machine:\n\n{facts}\n\n{END}"


def put(text: str, load: Load) -> str:
    """The page with the new figures in the place of the old ones.

    Raises:
        ValueError: it has no such place.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the figures: put {BEGIN} and {END} on lines of their own")
    return f"{before}{region(load)}{after}"
