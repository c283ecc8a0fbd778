"""A notebook that was run in one place replays in another: other home, other checkout, a third store in between."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable_nb.cli import main
from tests.fidelity.kills import Kill
from tests.fidelity.nursery import Job, Nursery, Seen
from tests.notebook.harness import Bench

pytestmark = pytest.mark.kernel

HELPER = "def double(x):\n    return x * 2\n"
CELLS = [
    "import numpy as np\nfrom helper import double\nrows = [int(line) for line in open('data.txt')]",
    "block = np.arange(200_000) * double(1)\nprint('made', block.sum())",
    "# durable: name=pay at-most-once\nwith open({ledger!r}, 'a') as file:\n    file.write('paid\\n')\nreceipt = 42",
    "from durable_nb import context\nparts = [context.step(lambda _, i=i: i * rows[0], name=f's{i}') for i in range(3)]",
    "print(sum(parts) + receipt, block[3])",
]


def checkout(root: Path, ledger: Path) -> Bench:
    """A clone of the project in a place of its own, and the home of whoever works there."""
    home = root / "home"
    home.mkdir(parents=True)
    bench = Bench(root / "clone", {"HOME": str(home), "DURABLE_NB_KEY": "the team's secret"})
    bench.write("helper.py", HELPER)
    bench.write("data.txt", "7\n8\n")
    bench.notebook("report.ipynb", [cell.replace("{ledger!r}", repr(str(ledger))) for cell in CELLS])
    return bench


def run(bench: Bench) -> list[str]:
    """Run the notebook as a person does; what became of each cell."""
    done = subprocess.run(
        [sys.executable, "-m", "durable_nb.cli", "run", "report.ipynb", "--json"],
        cwd=bench.root,
        env=bench.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return [cell["status"] for cell in json.loads(done.stdout)["cells"]]


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`durable-nb push` and `pull` of somebody; in this process, since its home is only told by the environment."""

    def command(bench: Bench, *words: str, code: int = 0, **env: str | None) -> Any:
        with monkeypatch.context() as patch:
            patch.chdir(bench.root)
            for name in [name for name in os.environ if name.startswith("DURABLE_NB_")]:
                patch.delenv(name, raising=False)
            for name, value in {**bench.environment(), **env}.items():
                if value is not None:
                    patch.setenv(name, value)
                else:
                    patch.delenv(name, raising=False)
            assert main([*words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return command


def test_a_notebook_run_on_one_machine_replays_on_another_one_from_a_shared_store(
    tmp_path: Path, copy: Callable[..., Any]
) -> None:
    ledger, hub = tmp_path / "ledger", str(tmp_path / "hub")
    one, other = checkout(tmp_path / "one", ledger), checkout(tmp_path / "other", ledger)
    assert run(one) == ["executed"] * 5
    pushed = copy(one, "push", hub)
    assert [(each["name"], each["cells"], each["markers"]) for each in pushed["executions"]] == [("report.ipynb", 5, 1)]
    shutil.rmtree(one.root)  # the laptop is gone
    shutil.rmtree(one.private)

    stranger = copy(other, "pull", hub, "report.ipynb", code=1, DURABLE_NB_KEY=None)
    assert "not signed with a key that you trust" in stranger["executions"][0]["left"][0]["why"]
    pulled = copy(other, "pull", hub, "report.ipynb")
    assert (pulled["executions"][0]["cells"], pulled["executions"][0]["left"]) == (5, [])
    assert run(other) == ["replayed"] * 5
    assert ledger.read_text() == "paid\n", "the at-most-once body ran on one machine, once"
    shown = json.loads((other.root / "report.out.ipynb").read_text())
    assert "".join(shown["cells"][-1]["outputs"][0]["text"]).split() == ["63", "6"]
    again = copy(other, "push", hub)
    assert sum(each["records"] for each in again["executions"]) == 0, "a replay has nothing new to tell"


ONCE = ("x = sum(range(20))", "# durable: name=pay at-most-once\nx += 1\nx *= 2\npaid = x", "print(paid)")


def test_a_cell_that_was_killed_half_way_elsewhere_asks_here_and_replays_once_its_end_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the question was asked before the end came: a refusal leaves nothing that would stand in its way."""
    with Nursery() as nursery:

        def live(place: str, *before: str, kill: Kill | None = None) -> Seen:
            folder = tmp_path / place
            folder.mkdir(exist_ok=True)
            return nursery.run(
                Job(cells=(*before, *ONCE), folder=folder, durable=True, kill=kill, stop_on_error=False, portrait=False)
            )

        def copy() -> None:
            stores = [str(tmp_path / place / ".durable") for place in ("one", "other")]
            assert main(["push", stores[1], "--store", stores[0]]) == 0

        monkeypatch.setenv("JUPYTER_DATA_DIR", f"{nursery._home.name}/data")
        monkeypatch.delenv("DURABLE_NB_KEY", raising=False)
        assert live("one", kill=Kill("inside", cell=1, point=2)).status == -9
        copy()
        asked = live("other")
        assert asked.statuses[0] == "replayed"
        assert asked.cells[1]["ename"] == "StepInterruptedError"
        assert live("one", "%durable resolve pay --again").cells[-1]["status"] == "ok"
        copy()
        assert live("other").statuses == ["replayed"] * 3
