"""The five modes: what is done to a notebook before its last Run All, which must be as a fresh plain one."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.fidelity.case import Case, Edit
from tests.fidelity.judge import Outcome, Verdict, differences, outcome
from tests.fidelity.kills import Kill
from tests.fidelity.nursery import Job, Nursery, Seen

_RAN = ("executed", "not_durable", "failed")


class Bench:
    """Runs one case in folders of its own.

    Args:
        points: how many kill points a sample takes, in each of the two modes that kill.
    """

    def __init__(self, case: Case, nursery: Nursery, root: Path, *, points: int = 2) -> None:
        self.case, self._nursery, self._root, self._points = case, nursery, root, points
        self._count = 0
        self._plain: dict[tuple[object, ...], Outcome] = {}
        self._ran: tuple[Path, Outcome] | None = None

    def place(self) -> Path:
        """A new folder with the case's files; all have paths of one length."""
        self._count += 1
        folder = self._root / f"{self._count:04d}" / "work"
        folder.mkdir(parents=True)
        self.write(folder, self.case.files)
        return folder

    def ran(self) -> tuple[Path, Outcome]:
        """A folder in which the notebook has been run once, and what that gave. The next call takes it back to that."""
        if self._ran is None:
            folder = self.place()
            self._ran = folder, self.run(folder)[1]
            subprocess.run(["cp", "-a", folder.parent, self._root / "kept"], check=True)
        else:
            folder = self._ran[0]
            shutil.rmtree(folder.parent)
            subprocess.run(["cp", "-a", self._root / "kept", folder.parent], check=True)
        return self._ran

    def write(self, folder: Path, files: Mapping[str, str | None]) -> None:
        """Make, change or delete files."""
        for name, text in files.items():
            path = folder / name
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")

    def run(
        self,
        folder: Path,
        *,
        cells: tuple[str, ...] | None = None,
        durable: bool = True,
        kill: Kill | None = None,
        env: Mapping[str, str] | None = None,
    ) -> tuple[Seen, Outcome]:
        """One Run All on a fresh kernel."""
        case = self.case
        sources = cells if cells is not None else case.cells
        book = {"cells": [{"cell_type": "code", "source": each} for each in sources], "metadata": {}, "nbformat": 4}
        (folder / "notebook.ipynb").write_text(json.dumps(book), encoding="utf-8")
        job = Job(
            cells=sources,
            folder=folder,
            store=folder.parent / "store",
            durable=durable,
            kill=kill,
            probes=case.probes,
            env=tuple({**case.env, **(env or {})}.items()),
            answers=case.answers,
            stop_on_error=case.stop_on_error,
        )
        seen = self._nursery.run(job)
        return seen, outcome(seen, folder)

    def plain(self, edit: Edit | None = None) -> Outcome:
        """What one fresh run of the plain kernel gives."""
        key = (edit.of(self.case.cells), tuple(edit.files.items()), tuple(edit.env.items())) if edit else ()
        if key not in self._plain:
            folder = self.place()
            if edit is not None:
                self.write(folder, edit.files)
            cells = edit.of(self.case.cells) if edit else None
            self._plain[key] = self.run(folder, cells=cells, durable=False, env=edit.env if edit else None)[1]
        return self._plain[key]

    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    # --- verdicts ---------------------------------------------------------------------------------------------------

    def judge(self, mode: str, detail: str, plain: Outcome, durable: Outcome, *, replays: bool = False) -> Verdict:
        case = self.case
        ignore = case.ignore
        if case.repeats and mode in ("killed", "writes"):
            ignore = (*ignore, "files")
        found = differences(plain, durable, ignore=ignore)
        needless = ()
        if replays:
            needless = tuple(n for n in case.replays if n < len(durable.statuses) and durable.statuses[n] in _RAN)
        verdict = "equal" if not found else "refused" if case.refusal and durable.told else "wrong"
        return Verdict(
            case.id, mode, detail, verdict, tuple(found), tuple(durable.told), needless, tuple(durable.statuses)
        )

    def verdicts(self, mode: str, *, sample: random.Random | None = None) -> Iterator[Verdict]:
        """All verdicts of one mode, or of a random part of its points."""
        if self.case.first:
            yield from getattr(self, f"_first_{mode}")(sample)
        else:
            yield from getattr(self, f"_{mode}")(sample)

    def _fresh(self, sample: random.Random | None) -> Iterator[Verdict]:
        yield self.judge("fresh", "", self.plain(), self.ran()[1])

    def _twice(self, sample: random.Random | None) -> Iterator[Verdict]:
        folder, _ = self.ran()
        for number in (1, 2):
            yield self.judge("twice", f"replay {number}", self.plain(), self.run(folder)[1], replays=True)

    def _edited(self, sample: random.Random | None) -> Iterator[Verdict]:
        for number, edit in enumerate(self.case.edits):
            folder, _ = self.ran()
            self.write(folder, edit.files)
            cells = edit.of(self.case.cells)
            yield self.judge(
                "edited", f"edit {number}", self.plain(edit), self.run(folder, cells=cells, env=edit.env)[1]
            )
            self.write(folder, {name: self.case.files.get(name) for name in edit.files})
            yield self.judge("edited", f"edit {number} undone", self.plain(), self.run(folder)[1])

    def kill_points(self) -> list[Kill]:
        """After each cell and inside each cell."""
        seen, _ = self.run(self.place(), kill=Kill("count"))
        points = [Kill("after", number) for number in range(len(seen.cells))]
        for number in range(len(seen.cells)):
            points += [Kill("inside", number, point) for point in range(seen.statements.get(number, 0))]
        return points

    def write_points(self) -> list[Kill]:
        """At each store write."""
        seen, _ = self.run(self.place(), kill=Kill("count"))
        return [Kill("write", point=point) for point in range(1, seen.points + 1)]

    def _killed(self, sample: random.Random | None) -> Iterator[Verdict]:
        yield from self._with_kills("killed", self.kill_points(), sample)

    def _writes(self, sample: random.Random | None) -> Iterator[Verdict]:
        yield from self._with_kills("writes", self.write_points(), sample)

    def _sampled(self, points: list[Kill], sample: random.Random | None) -> list[Kill]:
        return points if sample is None or len(points) <= self._points else sample.sample(points, self._points)

    def _with_kills(self, mode: str, points: list[Kill], sample: random.Random | None) -> Iterator[Verdict]:
        points = self._sampled(points, sample)
        for kill in points:
            folder = self.place()
            seen, _ = self.run(folder, kill=kill)
            if seen.status != -9:
                yield Verdict(
                    self.case.id, mode, str(kill), "wrong", (f"it did not die at {kill}: {seen.status} {seen.log}",)
                )
                continue
            yield self.judge(mode, str(kill), self.plain(), self.run(folder)[1])

    # --- cells that give their first result ---------------------------------------------------------------------------

    def _first_fresh(self, sample: random.Random | None) -> Iterator[Verdict]:
        """The plain kernel gives other values, so only the course is compared."""
        _, first = self.ran()
        found = [f"cell {n}: {cell['ename']}" for n, cell in enumerate(first.cells) if cell["status"] != "ok"]
        yield Verdict(self.case.id, "fresh", "", "wrong" if found else "equal", tuple(found), tuple(first.told))

    def _first_twice(self, sample: random.Random | None) -> Iterator[Verdict]:
        folder, first = self.ran()
        for number in (1, 2):
            yield self.judge("twice", f"replay {number}", first, self.run(folder)[1], replays=True)

    def _first_edited(self, sample: random.Random | None) -> Iterator[Verdict]:
        """An edit of a later cell leaves the first results of the earlier ones."""
        for number, edit in enumerate(self.case.edits):
            folder, first = self.ran()
            cells = edit.of(self.case.cells)
            again = self.run(folder, cells=cells, env=edit.env)[1]
            kept = [n for n, (old, new) in enumerate(zip(self.case.cells, cells, strict=False)) if old == new]
            found = [
                f"cell {n}: first {first.cells[n]['outputs']!r}, then {again.cells[n]['outputs']!r}"
                for n in kept
                if first.cells[n]["outputs"] != again.cells[n]["outputs"]
            ]
            yield Verdict(self.case.id, "edited", f"edit {number}", "wrong" if found else "equal", tuple(found))

    def _first_killed(self, sample: random.Random | None) -> Iterator[Verdict]:
        points = [Kill("after", n) for n in range(len(self.case.cells))]
        yield from self._first_kills("killed", points, sample)

    def _first_writes(self, sample: random.Random | None) -> Iterator[Verdict]:
        yield from self._first_kills("writes", self.write_points(), sample)

    def _first_kills(self, mode: str, points: list[Kill], sample: random.Random | None) -> Iterator[Verdict]:
        """What was shown before the kill is shown again."""
        points = self._sampled(points, sample)
        for kill in points:
            folder = self.place()
            before = self.run(folder, kill=kill)[1]
            after = self.run(folder)[1]
            found = [
                f"cell {n}: first {old['outputs']!r}, then {new['outputs']!r}"
                for n, (old, new) in enumerate(zip(before.cells, after.cells, strict=False))
                if old["outputs"] != new["outputs"]
            ]
            if not after.finished:
                found.append(f"it did not finish: {after.log}")
            yield Verdict(self.case.id, mode, str(kill), "wrong" if found else "equal", tuple(found), tuple(after.told))
