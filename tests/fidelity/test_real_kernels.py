"""The corpus once through real kernels: run, SIGKILL, run again, beside the plain kernel.

The forked kernels of `test_corpus.py` have no sockets, no threads and packages imported beforehand; here is the whole
thing, once per notebook. `make test` takes a sample that the seed chooses, `make soak` all.
"""

from __future__ import annotations

import ast
import os
import random
from pathlib import Path

import pytest

from durable_nb.testing import _portrait
from tests.fidelity import probing
from tests.fidelity.case import Case
from tests.fidelity.corpus import all_cases
from tests.fidelity.judge import Outcome, differences, outcome
from tests.fidelity.known import KNOWN
from tests.fidelity.nursery import Seen
from tests.notebook.harness import Bench, Kernel

CASES = tuple(case for case in all_cases() if case.real)
SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
SAMPLE = random.Random(SEED).sample([case for case in CASES if case.id not in KNOWN], 5)

pytestmark = pytest.mark.kernel


def live(bench: Bench, case: Case, *, spec: str, kill: bool = False) -> Outcome:
    """All cells in one kernel process, then the picture and the probes; or SIGKILL after the last cell."""
    env = {**case.env, "PYTHONHASHSEED": "0", "DURABLE_NB_STORE": str(bench.root.parent / "store")}
    seen = Seen(finished=True)
    answers = list(case.answers)
    with Kernel(bench, spec=spec, env=env, notebook="notebook.ipynb") as kernel:
        for source in case.cells:
            result = kernel.run(source, answers=answers if "input(" in source else ())
            seen.cells.append(
                {
                    "source": source,
                    "status": result.status,
                    "count": result.execution_count,
                    "ename": result.ename,
                    "evalue": result.evalue,
                    "outputs": result.outputs,
                    "durable": result.durable,
                }
            )
            if result.status != "ok" and case.stop_on_error:
                break
        if kill:
            kernel.kill()
            return outcome(seen, bench.root)
        seen.state = ast.literal_eval(kernel.value(f"{loaded(_portrait.__file__, 'whole')}(globals())"))
        seen.probes = {
            code: kernel.value(f"{loaded(probing.__file__, 'probe_in')}(globals(), {code!r})") for code in case.probes
        }
    return outcome(seen, bench.root)


def loaded(path: str | None, name: str) -> str:
    """An expression that gives a function of a file, without importing it."""
    return f"__import__('runpy').run_path({path!r})[{name!r}]"


def place(root: Path, case: Case) -> Bench:
    bench = Bench(root / "work")
    for name, text in case.files.items():
        bench.write(name, text)
    bench.notebook("notebook.ipynb", list(case.cells))
    return bench


def check(case: Case, tmp_path: Path) -> None:
    durable = place(tmp_path / "one", case)
    first = live(durable, case, spec="durable_nb", kill=True)
    again = live(durable, case, spec="durable_nb")
    # Seeds of unseeded generators and what packages do when they are first imported are a process's own.
    ignore = (*case.ignore, "process.random", "process.numpy.random", "process.warnings", "process.environ")
    if case.first:
        shown = [cell["outputs"] for cell in first.cells]
        found = [] if shown == [cell["outputs"] for cell in again.cells] else [f"{first.cells} then {again.cells}"]
    elif case.name.startswith("unseeded"):
        found = [] if first.cells == again.cells else [f"{first.cells} then {again.cells}"]
    else:
        plain = live(place(tmp_path / "two", case), case, spec="python3")
        found = differences(plain, again, ignore=ignore)
    if found and case.refusal and again.told:
        return
    if found and case.id in KNOWN:
        pytest.xfail(KNOWN[case.id])
    assert not found, "\n".join([case.id, str(again.statuses), *found])


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.id)
def test_a_killed_kernel_is_followed_by_one_that_is_as_a_fresh_plain_one(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_notebook_comes_back_in_a_real_kernel(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
