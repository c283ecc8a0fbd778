"""`docs/fidelity.md`, made from a run: `python -m tests.fidelity.report [--sample SEED [--points COUNT]] [--machine COUNT]`.

Without `--sample` every edit and kill point of every notebook is run: about an hour on two cores.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from tests.fidelity.case import MODES
from tests.fidelity.classes import IMPORTS, INSIDE, VALUES
from tests.fidelity.corpus import all_cases
from tests.fidelity.judge import outcome
from tests.fidelity.known import ELSEWHERE, KNOWN
from tests.fidelity.nursery import ROOT, Job, Nursery
from tests.fidelity.run import Nurseries, fast_folder, verdicts

PAGE = ROOT / "docs" / "fidelity.md"

HEAD = """\
# Is a replay what a run would have been?

This page is made by `python -m tests.fidelity.report`; it says what was run, and what came out.

The oracle is the plain kernel. Each row of the table is a small notebook that holds one thing that is hard to bring
back. It is run in five ways, and then once more with *Run All* on a fresh kernel:

- **fresh**: nothing happened before;
- **killed**: SIGKILL after each cell, and between any two statements of each cell;
- **writes**: SIGKILL before and after each write to the store: journal rows, blobs, renames, markers;
- **edited**: a cell, a file or a variable is changed, and changed back;
- **twice**: replayed, and replayed again.

Compared are all outputs, prompts and counts, the content, types and sharing of all names, process state, the files that
the notebook leaves, and probes: code that uses the names later on. *Equal* means that nothing differs; *refused* that
durable_nb said which cell and name it cannot bring back, where that is an answer; *wrong* is a defect.
"""


def corpus(sample: int | None, points: int) -> tuple[list[str], Counter[str], int]:
    """The table of rows by mode, the counts, and how many cells could have been replayed and ran."""
    lines = ["| row | notebook | " + " | ".join(MODES) + " |", "| --- | --- |" + " --- |" * len(MODES)]
    total: Counter[str] = Counter()
    needless = 0
    nurseries = Nurseries()
    try:
        for case in all_cases():
            chosen = None if sample is None else random.Random(f"{sample} {case.id}")
            found: dict[str, Counter[str]] = defaultdict(Counter)
            for verdict in verdicts(case, MODES, nurseries.of(case.needs), chosen, points=points):
                found[verdict.mode][verdict.verdict] += 1
                needless += len(verdict.needless)
            for counts in found.values():
                total += counts
            lines.append(f"| {case.row} | {case.name} | " + " | ".join(shown(found[mode]) for mode in MODES) + " |")
            print(lines[-1], flush=True)
    finally:
        nurseries.close()
    return lines, total, needless


def shown(counts: Counter[str]) -> str:
    """`12 equal`, `3 equal, 1 refused`; a dash where there is nothing to run."""
    return ", ".join(f"{counts[each]} {each}" for each in ("equal", "refused", "wrong") if counts[each]) or "–"


def classes() -> tuple[list[str], Counter[str]]:
    """How a value of each class comes back from a killed kernel, package by package."""
    lines = ["| package | equal | other inside | run again | wrong |", "| --- | --- | --- | --- | --- |"]
    total: Counter[str] = Counter()
    remarks: list[str] = []
    for package, values in VALUES.items():
        found: Counter[str] = Counter()
        odd: dict[str, list[str]] = defaultdict(list)
        with Nursery() as nursery, tempfile.TemporaryDirectory(dir=fast_folder()) as root:
            cells = (IMPORTS[package], *(f"value_{n} = {value}" for n, value in enumerate(values)))
            folder = Path(root) / "work"
            folder.mkdir(parents=True)
            job = Job(
                cells=cells, folder=folder, store=Path(root) / "store", durable=True, stop_on_error=False, each=True
            )
            # What comes back is compared with what was there: some classes are never made twice alike.
            before = outcome(nursery.run(job), folder)
            seen = nursery.run(job)
            after = outcome(seen, folder)
            one, other = before.state["each"], after.state["each"]
            for n, value in enumerate(values):
                status = seen.statuses[n + 1] if n + 1 < len(seen.statuses) else "absent"
                name = f"value_{n}"
                verdict = "equal" if status in ("replayed", "declared") else "run again"
                if one.get(name, "absent") != other.get(name, "absent"):
                    verdict = "other inside" if value in INSIDE else "wrong"
                if verdict == "wrong":
                    print(value, *apart(one.get(name, "absent"), other.get(name, "absent")), sep="\n    ")
                found[verdict] += 1
                if verdict != "equal":
                    odd[verdict].append(value)
        counts = " | ".join(str(found[each]) for each in ("equal", "other inside", "run again", "wrong"))
        lines.append(f"| {package} | {counts} |")
        remarks += [f"- {verdict}: {', '.join(f'`{each}`' for each in values)}" for verdict, values in odd.items()]
        total += found
        print(lines[-1], flush=True)
    inside = [f"- `{value}`: {why}." for value, why in INSIDE.items()]
    return [*lines, "", *remarks, "", "Other inside, and why:", "", *inside], total


def apart(one: str, other: str) -> tuple[str, str]:
    """Two texts from where they begin to differ."""
    place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, place - 100)
    return one[start : start + 300], other[start : start + 300]


def main() -> int:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="seed of a random part of the kill points")
    parser.add_argument("--points", type=int, default=2, help="how many of them, per notebook and mode")
    parser.add_argument("--machine", default="", help="what to say of the random notebooks that were run")
    parser.add_argument("--classes", action="store_true", help="only the classes")
    chosen = parser.parse_args()
    class_lines, class_total = classes()
    if chosen.classes:
        print("\n".join(class_lines), class_total)
        return class_total["wrong"]
    lines, total, needless = corpus(chosen.sample, chosen.points)
    part = (
        "all kill points"
        if chosen.sample is None
        else f"at most {chosen.points} kill points per notebook and mode, seed {chosen.sample}"
    )
    count = sum(total.values())
    text = [
        HEAD,
        f"Run on {time.strftime('%Y-%m-%d')} ({part}): **{count} comparisons, {total['equal']} equal, "
        f"{total['refused']} refused, {total['wrong']} wrong** (false hits: {total['wrong'] / count:.2%}).",
        "",
        *lines,
        "",
        f"Of the cells that had to be replayed, {needless} ran instead: slower, never wrong.",
        "",
        "## Known to be wrong",
        "",
        *([f"- `{case}`: {why}." for case, why in sorted(KNOWN.items())] or ["Nothing."]),
        "",
        "## Published limits",
        "",
        "- An array that is alone comes back owning its memory, or as a map: `x.base` and `x.resize` may differ.",
        "- Caches (`lru_cache`) start cold; results are the same.",
        "- Immutable values are equal, not identical: `pickle.dumps` of what came back may differ by some bytes.",
        "- A package that patches another one inside its functions (seaborn's colour maps) does so when it is called again.",
        "- A list or dict of a package that one and the same cell imports, binds to a name and changes through that name is "
        "not seen to change (`import p; t = p.TABLE; t['x'] = 1`); `p.TABLE['x'] = 1` is, and so is each of them apart.",
        "- Objects that hold something outside, or that are used up by use, are made again by running their cell, and so "
        "is every cell that changes them.",
        "",
        "## Rows that are proved elsewhere",
        "",
        "| row | test |",
        "| --- | --- |",
        *[f"| {row} | {', '.join(f'`{place}`' for place in places)} |" for row, places in ELSEWHERE.items()],
        "",
        "## Classes",
        "",
        f"A value of each of {sum(class_total.values())} classes, made in a cell of a kernel that was killed: "
        f"{class_total['equal']} came back equal, {class_total['other inside']} behave the same and look different inside, "
        f"the cells of {class_total['run again']} ran again and said so, "
        f"{class_total['wrong']} came back as something else.",
        "",
        *class_lines,
        "",
        "## Random notebooks",
        "",
        chosen.machine
        or "`make soak` runs 5,000 random notebooks against the plain kernel (`tests/fidelity/test_machine.py`).",
        "",
    ]
    PAGE.write_text("\n".join(text), encoding="utf-8")
    print(PAGE, dict(total))
    return total["wrong"]


if __name__ == "__main__":
    raise SystemExit(min(main(), 99))
