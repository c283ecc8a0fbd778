"""A notebook in real kernels whose store is on a server: killed on one machine, replayed on another.

The other machine is another home, another checkout and another folder of copies; only the server and the team's key are
shared.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from durable_nb.cli import main
from tests.notebook.harness import Bench, Kernel
from tests.notebook.runners import durable_nb
from tests.servers import s3
from tests.servers.disk import small_disk
from tests.servers.postgres import Cluster

pytestmark = pytest.mark.kernel

CELLS = [
    "import uuid, numpy as np",
    "mark = uuid.uuid4().hex\nprint(mark)",
    "block = np.arange(300_000.0)\nblock[7] = np.random.random()\nprint(block.sum())",
    "# durable: name=pay at-most-once\nprint('paid', uuid.uuid4())",
    "print(mark[:4], block[7])\nimport time\nif not open('go').read(): print('here', flush=True); time.sleep(600)",
]


def machine(tmp_path: Path, name: str, url: str) -> Bench:
    """A computer with a checkout of the project."""
    home = tmp_path / name
    bench = Bench(home / "project", env={"DURABLE_NB_STORE": url, "DURABLE_NB_KEY": "of the team", "HOME": str(home)})
    bench.write("pyproject.toml", "")
    bench.write("go", "")
    bench.notebook("report.ipynb", CELLS)
    return bench


def test_what_was_killed_on_a_laptop_goes_on_on_another_machine(postgres: Cluster, tmp_path: Path) -> None:
    url = postgres.new_store()
    laptop, server = machine(tmp_path, "laptop", url), machine(tmp_path, "server", url)
    with Kernel(laptop, notebook="report.ipynb") as kernel:
        before = kernel.run_all(CELLS[:4])
        assert [cell.verdict for cell in before] == ["declared", "executed", "executed", "executed"]
        kernel.execute(CELLS[4]).wait_for("here")
        kernel.kill()
    server.write("go", "yes")
    with Kernel(server, notebook="report.ipynb") as kernel:
        after = kernel.run_all(CELLS)
    assert [cell.verdict for cell in after] == ["declared", "replayed", "replayed", "replayed", "executed"]
    assert [cell.stdout for cell in after[:4]] == [cell.stdout for cell in before]
    assert list((tmp_path / "server").rglob("*/blobs/??/*")), "the array came over as a file of the cache"
    laptop.write("go", "yes")
    with Kernel(laptop, notebook="report.ipynb") as kernel:
        again = kernel.run_all(CELLS)
    assert {cell.verdict for cell in again[1:]} == {"replayed"}
    assert [cell.stdout for cell in again] == [cell.stdout for cell in after]
    assert not (laptop.root / ".durable").exists()


@pytest.mark.sampled(2)
def test_a_copy_on_another_machine_does_not_take_a_history_away_as_a_renamed_notebook_does(
    postgres: Cluster, tmp_path: Path
) -> None:
    url = postgres.new_store()
    laptop, other = machine(tmp_path, "laptop", url), machine(tmp_path, "other", url)
    with Kernel(laptop, notebook="report.ipynb") as kernel:
        kernel.run_all(CELLS[:2])
    (laptop.root / "report.ipynb").rename(laptop.root / "renamed.ipynb")
    (other.root / "report.ipynb").rename(other.root / "copy.ipynb")
    with Kernel(other, notebook="copy.ipynb") as kernel:
        assert kernel.run_all(CELLS[:2])[1].verdict == "executed"
    with Kernel(laptop, notebook="renamed.ipynb") as kernel:
        assert kernel.run_all(CELLS[:2])[1].verdict == "replayed"


@pytest.mark.sampled(2)
def test_without_the_key_of_the_team_nothing_is_loaded(postgres: Cluster, tmp_path: Path) -> None:
    url = postgres.new_store()
    team, stranger = machine(tmp_path, "team", url), machine(tmp_path, "stranger", url)
    with Kernel(team, notebook="report.ipynb") as kernel:
        before = kernel.run_all(CELLS[:2])
    stranger.env["DURABLE_NB_KEY"] = "another"
    with Kernel(stranger, notebook="report.ipynb") as kernel:
        after = kernel.run_all(CELLS[:2])
    assert after[1].verdict == "executed"
    assert after[1].stdout != before[1].stdout


@pytest.mark.sampled(2)
def test_two_kernels_on_one_notebook_do_not_both_write(postgres: Cluster, tmp_path: Path) -> None:
    url = postgres.new_store()
    one, two = machine(tmp_path, "one", url), machine(tmp_path, "two", url)
    with Kernel(one, notebook="report.ipynb") as first, Kernel(two, notebook="report.ipynb") as second:
        assert first.run(CELLS[0]).expect_ok().verdict == "declared"
        assert first.run(CELLS[1]).verdict == "executed"
        assert second.run_all(CELLS[:3])[2].verdict == "not_durable"
        first.kill()
        assert second.run("fresh = uuid.uuid4()").verdict == "executed"


@pytest.mark.sampled(3)
def test_the_command_line_knows_a_store_on_a_server(
    postgres: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = machine(tmp_path, "laptop", postgres.new_store())
    bench.write("go", "yes")
    out = bench.root / "out.ipynb"
    for name, value in bench.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(bench.root)

    def say(*words: str) -> str:
        assert main(list(words)) == 0, capsys.readouterr()
        return capsys.readouterr().out

    assert "there is no store at postgresql:" in say("plan", "report.ipynb")
    assert main(["ls"]) == 2, "a plan makes no store"
    assert "there is no store" in capsys.readouterr().err
    ran = durable_nb(bench, "run", "report.ipynb", "-o", str(out), out=out)
    assert ran.code == 0, ran.stderr
    shutil.rmtree(tmp_path / "laptop" / ".cache")
    again = durable_nb(bench, "run", "report.ipynb", "-o", str(out), "--json", out=out)
    assert [cell["status"] for cell in json.loads(again.stdout)["cells"]] == ["declared", *["replayed"] * 4]
    assert "report.ipynb" in say("ls")
    assert "there is no checkpoint of it yet" in say("why", "report.ipynb", "2")
    assert json.loads(say("verify", "--json"))["ok"]
    assert "the store has" in say("gc")
    assert "pay" in say("show", "report.ipynb")
    say("forget", "report.ipynb", "2")
    monkeypatch.setenv("DURABLE_NB_KEY", "another")
    assert main(["verify"]) == 1
    assert "not signed with your key" in capsys.readouterr().out
    assert "records are signed with your key now" in say("trust", "--yes", "report.ipynb")
    say("verify")


# --- faults under a real kernel --------------------------------------------------------------------------------------

PAYS = [
    "import numpy as np",
    "block = np.arange(300_000.0)\nblock[7] = np.random.random()\nprint(block.sum())",
    "# durable: name=pay at-most-once\nopen('payments', 'a').write('paid\\n')\nreceipt = np.random.random(300_000)",
]


@pytest.mark.sampled(2)
def test_a_kernel_whose_disk_of_copies_is_full_stores_and_replays_as_ever(postgres: Cluster, tmp_path: Path) -> None:
    url = postgres.new_store()
    laptop = machine(tmp_path, "laptop", url)
    with small_disk(tmp_path / "disk", 1_000_000) as disk:
        if not disk.real:
            pytest.skip("a disk of its own takes root: the limit of files is that of this process, not of a kernel")
        laptop.env["DURABLE_NB_CACHE"] = str(disk.folder / "cache")
        verdicts = []
        for names in (False, True):
            disk.fill(names=names)
            with Kernel(laptop, notebook="report.ipynb") as kernel:
                cells = kernel.run_all(PAYS)
            verdicts.append([cell.verdict for cell in cells])
        assert not list(disk.folder.rglob("cache/*/blobs/??/*"))
    assert verdicts == [["declared", "executed", "executed"], ["declared", "replayed", "replayed"]]
    assert (laptop.root / "payments").read_text() == "paid\n"


@pytest.mark.soak
def test_an_at_most_once_cell_whose_result_the_bucket_refuses_is_asked_about_and_not_run_again(
    postgres: Cluster, tmp_path: Path
) -> None:
    with s3.started() as bucket:
        laptop = machine(tmp_path, "laptop", postgres.new_store())
        laptop.env |= {"DURABLE_NB_BLOBS": bucket.url, **bucket.environment}
        with Kernel(laptop, notebook="report.ipynb") as kernel:
            before = kernel.run_all(PAYS[:2])
            bucket.draw = lambda _: "500"
            assert kernel.run(PAYS[2]).verdict == "not_durable"
        bucket.draw = lambda _: None
        shutil.rmtree(tmp_path / "laptop" / ".cache")
        with Kernel(laptop, notebook="report.ipynb") as kernel:
            after = kernel.run_all(PAYS)
    assert [cell.verdict for cell in before] == ["declared", "executed"]
    assert [cell.verdict for cell in after[:2]] == ["declared", "replayed"]
    assert after[2].durable["decision"] is True
    assert (laptop.root / "payments").read_text() == "paid\n"
