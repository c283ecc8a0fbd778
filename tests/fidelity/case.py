"""What a row of the corpus is: a small notebook, an edit, and probes of what the names do later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MODES = ("fresh", "killed", "writes", "edited", "twice")


@dataclass(frozen=True, slots=True)
class Edit:
    """A change between two runs: of cells (by index; None deletes), of files (None deletes), of the environment."""

    cells: Mapping[int, str | None] = field(default_factory=dict)
    files: Mapping[str, str | None] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    order: Sequence[int] | None = None
    """The cells that the edited notebook has, as indices of the old ones; an index may come twice."""

    def of(self, cells: Sequence[str]) -> tuple[str, ...]:
        """The notebook after the edit."""
        changed = [self.cells.get(index, source) for index, source in enumerate(cells)]
        order = self.order if self.order is not None else range(len(cells))
        return tuple(source for index in order if (source := changed[index]) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One notebook of the corpus.

    Args:
        row: of the list of hard cases.
        name: short, unique within the row.
        cells: the notebook.
        edits: changes after which a Run All must be as fresh.
        probes: code whose last expression's `repr` must be equal at the end.
        files: in the notebook's folder before the first run.
        needs: modules that the nursery has already imported.
        refusal: the row lets us say that it cannot come back, instead of bringing it back.
        first: a completed cell gives its first result, which no other run gives again (clock, uuid).
        repeats: names of files that a killed and repeated cell may change once more (at-least-once).
        replays: cells that a second Run All must not run again.
        state: compare names and process state too (False where they hold a clock or an id).
        answers: for `input()`.
        real: run it once through a real kernel.
    """

    row: str
    name: str
    cells: tuple[str, ...]
    edits: tuple[Edit, ...] = ()
    probes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    refusal: bool = False
    first: bool = False
    repeats: bool = False
    replays: tuple[int, ...] = ()
    ignore: tuple[str, ...] = ()
    """Parts of the picture that this notebook makes differ by itself, such as `names.now` or `process.cwd`."""
    answers: tuple[str, ...] = ()
    stop_on_error: bool = True
    real: bool = True

    @property
    def id(self) -> str:
        return f"{self.row}-{self.name}"


def cells(text: str) -> tuple[str, ...]:
    """The cells of a notebook written as one text, parted by lines of `---`."""
    parts = text.strip("\n").split("\n---\n")
    return tuple(part.strip("\n") for part in parts)
