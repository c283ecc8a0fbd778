"""A small notebook that passes every kind of write, and what must hold whatever happens to it."""

from __future__ import annotations

import random
import shutil
import traceback
from ast import literal_eval
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from durable_nb.testing.faults_store import Fault, StoreFaults, faults_at
from tests.fidelity.nursery import Job, Nursery, Seen

ONCE = 3
"""Which cell runs at most once."""

STEPS = 5
"""Which cell has durable steps inside."""


def cells(ledger: Path) -> tuple[str, ...]:
    """The notebook. Bodies tell the ledger that they began; it lies in the store's folder, which is never an input."""
    return (
        (
            "import os\ndef note(word):\n"
            f"    os.makedirs({str(ledger.parent)!r}, exist_ok=True)\n"
            f"    with open({str(ledger)!r}, 'a') as file:\n        file.write(word + '\\n')"
        ),
        "note('a')\nx = list(range(10))\nprint('made', len(x))",
        "note('b')\nblock = bytes(range(256)) * 400\nlen(block)",
        "# durable: name=pay at-most-once\nnote('pay')\npaid = 42",
        "note('d')\nx.append(paid)\nwords = {'sum': sum(x), 'alias': x}\nprint(words['sum'])",
        "note('e')\nfrom durable_nb import context\nparts = [context.step(lambda _, i=i: i * i, name=f's{i}') for i in range(3)]",
        "note('f')\ntext = 'z' * 40_000 + str(parts)\nblock = block[::-1]",
    )


PROBES = {
    "x": "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 42]",
    "words['alias'] is x": "True",
    "block[:3]": "b'\\xff\\xfe\\xfd'",
    "(paid, parts, len(text))": "(42, [0, 1, 4], 40009)",
}
SAVED = ("executed", "replayed")


@dataclass
class Case:
    """One fault in one run, and the runs after it."""

    nursery: Nursery
    folder: Path
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = self.folder / "store"
        self.folder.mkdir(parents=True)
        self.ledger = self.folder / "store" / "ledger"
        (self.folder / "notebook.ipynb").write_text("{}")

    def live(self, faults: StoreFaults | None = None, *, before: tuple[str, ...] = ()) -> Seen:
        job = Job(
            cells=(*before, *cells(self.ledger)),
            folder=self.folder,
            store=self.store,
            durable=True,
            faults=faults,
            probes=tuple(PROBES),
            stop_on_error=False,
            portrait=False,
        )
        seen = self.nursery.run(job)
        seen.probes = {code: literal_eval(text) for code, text in seen.probes.items()}
        return seen

    def begun(self) -> Counter[str]:
        return Counter(self.ledger.read_text().split()) if self.ledger.exists() else Counter()

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken.append(what)

    def run(self, fault: Fault) -> list[str]:
        """Live the fault, recover, and return which promises are broken."""
        first = self.live(StoreFaults(fault))
        if fault.kind in ("enospc", "eio", "busy"):
            self.require(first.points_failed == 1, "the fault did not happen")
            self._after_an_error(first)
        else:
            self.require(first.status == -9, f"the fault did not happen: {first.status} {first.log[-600:]}")
        once = self.begun()["pay"]
        self.require(once <= 1, f"the at-most-once body began {once} times in one run")
        second = self.live()
        self._recovered(first, second)
        third = self.live()
        self._settled(third)
        return self.broken

    def _after_an_error(self, seen: Seen) -> None:
        """A store that fails never fails an ordinary cell, and the kernel lives."""
        self.require(seen.finished, f"the kernel died: {seen.log[-600:]}")
        for number, cell in enumerate(seen.cells):
            if number < ONCE:
                self.require(cell["status"] == "ok", f"cell {number} failed with {cell['ename']}: {cell['evalue']}")
        # A durable step inside a cell does fail when it cannot be recorded: that is what it promises.
        if len(seen.cells) > STEPS and seen.cells[ONCE]["status"] == seen.cells[STEPS]["status"] == "ok":
            for code, value in PROBES.items():
                self.require(seen.probes.get(code) == value, f"{code} was {seen.probes.get(code)}")

    def _recovered(self, first: Seen, second: Seen) -> None:
        """What was committed is there, what was not runs, and the rest asks."""
        self.require(second.finished, f"the kernel after it died: {second.log[-600:]}")
        if not second.finished:
            return
        refused = second.cells[ONCE]["status"] != "ok"
        for number, (was, now) in enumerate(zip(first.cells, second.cells, strict=False)):
            if refused and number >= ONCE:  # what it makes is missing for those after it, until a person decides
                break
            if was["durable"].get("status") in SAVED and number > 0:
                status = now["durable"].get("status")
                self.require(status == "replayed", f"cell {number} was committed, and then {status}: {now['durable']}")
        pay = second.cells[ONCE]
        self.require(self.begun()["pay"] <= 1, f"the at-most-once body began {self.begun()['pay']} times")
        if pay["status"] == "ok":
            for code, value in PROBES.items():
                self.require(second.probes.get(code) == value, f"{code} is {second.probes.get(code)}")
            for number, cell in enumerate(second.cells):
                self.require(cell["status"] == "ok", f"cell {number} then failed: {cell['ename']}: {cell['evalue']}")
        else:
            asks = pay["durable"].get("decision") or "resolve" in str(pay["evalue"])
            self.require(bool(asks), f"the at-most-once cell failed with {pay['ename']}: {pay['evalue']}")
            marked = any((self.store / "started").glob("*.json"))
            self.require(marked, "the at-most-once cell was refused, and no marker says why")
            decided = self.live(before=("%durable resolve pay --again",))
            self.require(decided.finished, f"the kernel after the decision died: {decided.log[-600:]}")
            for code, value in PROBES.items():
                self.require(
                    decided.probes.get(code) == value, f"{code} is {decided.probes.get(code)} after the decision"
                )

    def _settled(self, third: Seen) -> None:
        before = self.begun()
        self.require(third.finished, f"the third kernel died: {third.log[-600:]}")
        for number, cell in enumerate(third.cells[1:], start=1):
            status = cell["durable"].get("status")
            self.require(status == "replayed", f"cell {number} was {status} at last: {cell['durable']}")
        for code, value in PROBES.items():
            self.require(third.probes.get(code) == value, f"{code} is {third.probes.get(code)} at last")
        self.require(self.begun() == before, "a body began again at last")


def every_fault(nursery: Nursery, folder: Path) -> Iterator[tuple[str, Fault]]:
    """Each point that a whole run passes, with each fault that makes sense there."""
    case = Case(nursery, folder)
    seen = case.live(StoreFaults())
    assert seen.finished, seen.log
    replies = [place for place, name in enumerate(seen.point_names) if name == "message reply"]
    last = replies[len(cells(case.ledger)) - 1]
    for place, name in enumerate(seen.point_names[: last + 1], start=1):
        for kind in faults_at(name):
            yield name, Fault(kind, place)
    shutil.rmtree(folder)


def sampled(faults: list[tuple[str, Fault]], count: int, seed: int) -> list[tuple[str, Fault]]:
    """Some of them: each name of a point with each kind of fault at least once, as far as `count` allows."""
    rng = random.Random(seed)
    shuffled = rng.sample(faults, len(faults))
    first: dict[tuple[str, str], tuple[str, Fault]] = {}
    for name, fault in shuffled:
        first.setdefault((name, fault.kind), (name, fault))
    chosen = list(first.values())
    rng.shuffle(chosen)
    chosen = chosen[:count]
    taken = set(chosen)
    return chosen + [each for each in shuffled if each not in taken][: max(count - len(chosen), 0)]


def broken_by(nursery: Nursery, root: Path, name: str, fault: Fault) -> list[str]:
    """Which promises a fault breaks; the folder goes again."""
    folder = root / f"{fault.point:03d}-{fault.kind}"
    try:
        return [f"{name}, {fault}: {what}" for what in Case(nursery, folder).run(fault)]
    except Exception:
        return [f"{name}, {fault}: the driver itself failed\n{traceback.format_exc()}"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
