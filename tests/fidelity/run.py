"""Run the corpus in process and print what is not equal: `python -m tests.fidelity.run [--case TEXT] [--mode MODE]`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.fidelity.case import MODES, Case
from tests.fidelity.corpus import all_cases
from tests.fidelity.judge import Verdict
from tests.fidelity.modes import Bench
from tests.fidelity.nursery import Nursery


class Nurseries:
    """One nursery for each set of imported modules, started when first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: dict[tuple[str, ...], Nursery] = {}

    def of(self, needs: tuple[str, ...]) -> Nursery:
        if needs not in self._open:
            self._open[needs] = self._stack.enter_context(Nursery(needs))
        return self._open[needs]

    def close(self) -> None:
        self._stack.close()
        self._open.clear()


def fast_folder() -> str | None:
    """A folder in memory, where a synced write costs nothing, when there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def verdicts(
    case: Case, modes: tuple[str, ...], nursery: Nursery, sample: random.Random | None, *, points: int = 2
) -> Iterator[Verdict]:
    """All verdicts of a case; with `sample`, of so many kill points in each mode that kills."""
    with tempfile.TemporaryDirectory(prefix="dnb-", dir=fast_folder(), ignore_cleanup_errors=True) as root:
        bench = Bench(case, nursery, Path(root), points=points)
        for mode in modes:
            yield from bench.verdicts(mode, sample=sample)


def main() -> int:
    """Run, print, and return how many were wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--mode", action="append", default=[], choices=MODES)
    parser.add_argument("--sample", type=int, help="seed of a random part of the kill points")
    parser.add_argument("--quiet", action="store_true")
    chosen = parser.parse_args()
    counts: Counter[str] = Counter()
    nurseries = Nurseries()
    try:
        for case in all_cases():
            if chosen.case and not any(text == case.id or case.id.startswith(text) for text in chosen.case):
                continue
            sample = random.Random(chosen.sample) if chosen.sample is not None else None
            clock = time.perf_counter()
            found: Counter[str] = Counter()
            for verdict in verdicts(case, tuple(chosen.mode) or MODES, nurseries.of(case.needs), sample):
                found[verdict.verdict] += 1
                if (
                    verdict.verdict == "wrong"
                    and found["wrong"] <= 6
                    or verdict.verdict == "refused"
                    and not chosen.quiet
                ):
                    print(f"  {verdict.verdict.upper()} {case.id} [{verdict.mode} {verdict.detail}] {verdict.statuses}")
                    for line in verdict.differences[:6]:
                        print("      ", line[:1200] if not line.startswith("the kernel died") else line[-900:])
                    for line in verdict.told[:4]:
                        print("       told:", line[:300])
                elif verdict.needless:
                    print(f"  needless {case.id} [{verdict.mode} {verdict.detail}] cells {verdict.needless}")
            counts += found
            print(f"{case.id}: {dict(found)} {time.perf_counter() - clock:.1f} s", flush=True)
    finally:
        nurseries.close()
    print(dict(counts))
    return counts["wrong"]


if __name__ == "__main__":
    sys.exit(min(main(), 99))
