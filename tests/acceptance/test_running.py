"""How a cell runs: attempts, roll-back, at most once, time-outs, interrupts, two owners."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.story import DECLARED, EXECUTED, FAILED, NOT_DURABLE, REPLAYED, Story
from tests.notebook.harness import Bench, CellResult, Kernel, Pending, kernels, run_all
from tests.notebook.runners import durable_nb

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]

# Counts outside the notebook's files and variables: what happened, whatever is rolled back. The journal of a test.
COUNT = "import os\ndef count(what):\n    fd = os.open(os.environ['COUNT_FILE'], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n    os.write(fd, (what + chr(10)).encode())\n    os.close(fd)\n    return open(os.environ['COUNT_FILE']).read().split().count(what)"


@pytest.fixture
def counted(bench: Bench, tmp_path: Path) -> Path:
    """A file outside the project that cells write to; its path is in the environment."""
    # In a cache directory, which is no input of any cell.
    path = tmp_path / "work-user" / "cache" / "count"
    path.parent.mkdir(parents=True)
    bench.env |= {"COUNT_FILE": str(path), "XDG_CACHE_HOME": str(path.parent)}
    return path


def counts(path: Path) -> Counter[str]:
    return Counter(path.read_text().split()) if path.exists() else Counter()


RETRY = "# durable: max-attempts=3 initial-delay=10ms jitter=none retry-on=OSError\n"


def test_a_cell_is_tried_again_and_its_names_are_rolled_back_in_between(bench: Bench, counted: Path) -> None:
    cells = [
        COUNT,
        "rows = sorted([1])",
        f"{RETRY}rows.append(2)\nextra = 1\nif count('try') < 3:\n    raise OSError('flaky')\nprint(rows)",
    ]
    bench.notebook("a.ipynb", cells)
    run = run_all(bench, cells, notebook="a.ipynb", probes=["rows", "extra"])
    assert run.cells[2].durable["attempt"] == 3
    assert run.stdout[2] == "[1, 2]\n"
    assert run.probes == {"rows": "[1, 2]", "extra": "1"}
    assert counts(counted)["try"] == 3
    again = run_all(bench, cells, notebook="a.ipynb", probes=["rows"])
    assert again.verdicts[2] == REPLAYED
    assert counts(counted)["try"] == 3


def test_the_last_failure_is_the_cells_failure_and_other_errors_are_not_retried(bench: Bench, counted: Path) -> None:
    bench.notebook("a.ipynb", [COUNT])
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run(COUNT).expect_ok()
        last = kernel.run(f"{RETRY}count('a')\nraise OSError('always')")
        assert (last.ename, last.verdict, last.durable["attempt"]) == ("OSError", FAILED, 3)
        other = kernel.run(f"{RETRY}count('b')\nraise KeyError('no')")
        assert (other.ename, other.durable["attempt"]) == ("KeyError", 1)
        message = kernel.run(
            "# durable: max-attempts=2 initial-delay=10ms retry-if-message=busy\ncount('c')\nraise ValueError('it is busy')"
        )
        assert message.durable["attempt"] == 2
    assert counts(counted) == {"a": 3, "b": 1, "c": 2}


def test_attempts_and_delay_survive_a_kill_during_the_count_down(bench: Bench, counted: Path) -> None:
    slow = "# durable: max-attempts=3 initial-delay=600s jitter=none\nn = count('try')\nprint('attempt', n, flush=True)\nraise OSError('flaky')"
    bench.notebook("a.ipynb", [COUNT, slow])
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run(COUNT).expect_ok()
        kernel.execute(slow)
        wait_for_event(bench, "RETRY_SCHEDULED", kernel)
        kernel.kill()
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run(COUNT).expect_ok()
        assert interrupted(kernel, kernel.execute(slow)).status == "error"
    assert counts(counted)["try"] == 1, "the second kernel waits for the time that the first one set"


def interrupted(kernel: Kernel, pending: Pending) -> CellResult:
    """The end of a cell under a stop button that is pressed until it works: a press before it has begun is lost."""
    for _ in range(60):
        if pending.ended_within(1.0):
            break
        kernel.interrupt()
    return pending.result()


def wait_for_event(bench: Bench, kind: str, kernel: Kernel) -> None:
    """Until the journal has an event of a kind."""
    import sqlite3
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and kernel.alive:
        database = bench.store / "journal.db"
        if database.exists():
            db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
            try:
                if db.execute("SELECT count(*) FROM events WHERE kind = ?", (kind,)).fetchone()[0]:
                    return
            except sqlite3.OperationalError:
                pass  # the tables are being made
            finally:
                db.close()
        time.sleep(0.05)
    raise AssertionError(f"no {kind} was recorded\n{kernel.log}")


ONCE = "# durable: name=pay at-most-once\ncount('pay')\nprint('in', flush=True)\nwhile not os.path.exists(os.environ['COUNT_FILE'] + '.go'): pass\nreceipt = max(1, 2)"


def test_an_at_most_once_cell_that_was_killed_is_refused_until_somebody_decides(bench: Bench, counted: Path) -> None:
    bench.notebook("a.ipynb", [COUNT, ONCE])
    run_all(bench, [COUNT, ONCE], notebook="a.ipynb", kill_inside=(1, "in"))
    Path(f"{counted}.go").touch()
    refused = run_all(bench, [COUNT, ONCE], notebook="a.ipynb").cells[1]
    assert (refused.status, refused.durable["decision"]) == ("error", True)
    assert counts(counted)["pay"] == 1
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run(COUNT)
        kernel.run("%durable resolve pay --again").expect_ok()
        done = kernel.run(ONCE).expect_ok()
        assert done.verdict == EXECUTED
    assert counts(counted)["pay"] == 2
    assert run_all(bench, [COUNT, ONCE], notebook="a.ipynb").verdicts[1] == REPLAYED
    assert counts(counted)["pay"] == 2


def test_a_lost_journal_does_not_start_an_at_most_once_body_again(bench: Bench, counted: Path) -> None:
    Path(f"{counted}.go").touch()
    bench.notebook("a.ipynb", [COUNT, ONCE])
    assert run_all(bench, [COUNT, ONCE], notebook="a.ipynb").verdicts[1] == EXECUTED
    for path in bench.store.glob("journal.db*"):
        path.unlink()
    refused = run_all(bench, [COUNT, ONCE], notebook="a.ipynb").cells[1]
    assert refused.status == "error"
    assert counts(counted)["pay"] == 1


def test_a_completed_at_most_once_cell_with_other_inputs_is_refused_with_the_difference(
    bench: Bench, counted: Path
) -> None:
    Path(f"{counted}.go").touch()
    bench.notebook("a.ipynb", [COUNT, ONCE])
    run_all(bench, [COUNT, ONCE], notebook="a.ipynb")
    edited = ONCE.replace("max(1, 2)", "max(1, 3)")
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run(COUNT)
        refused = kernel.run(edited)
        assert (refused.status, refused.ename) == ("error", "StepChangedError")
        kernel.run("%durable resolve pay --keep").expect_ok()
        assert kernel.run(edited).verdict == REPLAYED
        assert kernel.value("receipt") == "2"
    assert counts(counted)["pay"] == 1


def test_durable_nb_run_exits_3_until_the_decision_is_made_from_outside(bench: Bench, counted: Path) -> None:
    die = "# durable: name=pay at-most-once\nimport os, signal\nif not os.path.exists(os.environ['COUNT_FILE']):\n    count('pay')\n    os.kill(os.getpid(), signal.SIGKILL)\nreceipt = 5"
    bench.notebook("a.ipynb", [COUNT, die])
    assert durable_nb(bench, "run", "a.ipynb").code == 1
    refused = durable_nb(bench, "run", "a.ipynb")
    assert refused.code == 3, refused.stderr
    assert "needs a decision" in refused.stderr
    shown = json.loads(durable_nb(bench, "show", "a.ipynb", "pay", "--json").stdout)
    assert shown["operations"][0]["needs_decision"] is True
    assert durable_nb(bench, "resolve", "a.ipynb", "pay", "--again").code == 0
    done = durable_nb(bench, "run", "a.ipynb")
    assert done.code == 0, done.stderr
    assert durable_nb(bench, "resolve", "a.ipynb", "pay", "--failed").code == 2


def test_an_interrupt_stops_a_cell_and_a_count_down_and_commits_nothing(bench: Bench, counted: Path) -> None:
    bench.notebook("a.ipynb", [COUNT])
    loop = "count('loop')\nprint('in', flush=True)\nwhile True: pass"
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run(COUNT).expect_ok()
        pending = kernel.execute(loop).wait_for("in")
        kernel.interrupt()
        assert pending.result().ename == "KeyboardInterrupt"
        waiting = kernel.execute("# durable: max-attempts=5 initial-delay=600s\ncount('retry')\nraise OSError('x')")
        wait_for_event(bench, "RETRY_SCHEDULED", kernel)
        kernel.interrupt()
        assert waiting.result().status == "error"
        assert kernel.run("1 + 1").result == "2"
    assert counts(counted) == {"loop": 1, "retry": 1}


def test_an_attempt_over_its_time_out_fails_with_step_timeout_error(bench: Bench) -> None:
    bench.notebook("a.ipynb", ["x"])
    with Kernel(bench, notebook="a.ipynb") as kernel:
        result = kernel.run("# durable: timeout=300ms\nimport time\ntime.sleep(600)")
        assert (result.status, result.ename) == ("error", "StepTimeoutError")
        assert kernel.run("max(1, 2)").verdict == EXECUTED


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("max-attempts=0", "max-attempts"),
        ("max-attemps=3", "max-attempts"),
        ("initial-delay=soon", "initial-delay"),
        ("retry-on=NoSuchError", "nosucherror"),
        ("at-most-once", "name"),
        ("name=pay at-most-once max-attempts=3", "retry-on"),
        ("jitter=some", "jitter"),
    ],
)
def test_bad_options_are_told_before_anything_runs(bench: Bench, options: str, says: str) -> None:
    bench.notebook("a.ipynb", ["x"])
    with Kernel(bench, notebook="a.ipynb") as kernel:
        for source in (f"# durable: {options}\nran = True", _as_magic(options)):
            result = kernel.run(source)
            assert result.status == "error", source
            assert says in (result.stderr + str(result.evalue)).lower(), source
        assert kernel.value("'ran' in globals()") == "False"


def _as_magic(options: str) -> str:
    words = []
    for word in options.split():
        key, equals, value = word.partition("=")
        words.append(value if key == "name" else f"--{key} {value}" if equals else f"--{key}")
    return f"%%durable_step {' '.join(words)}\nran = True"


def test_two_names_for_at_most_once_in_one_notebook_are_refused(bench: Bench, counted: Path) -> None:
    Path(f"{counted}.go").touch()
    bench.notebook("a.ipynb", [COUNT, ONCE])
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run(COUNT)
        kernel.run(ONCE, cell_id="one").expect_ok()
        twin = "# durable: name=pay at-most-once\ncount('other')"
        assert kernel.run(twin, cell_id="two").status == "error"
    assert counts(counted) == {"pay": 1}


def test_a_second_kernel_replays_and_runs_unsaved_and_says_who_holds_the_notebook(bench: Bench, counted: Path) -> None:
    Path(f"{counted}.go").touch()
    bench.notebook("a.ipynb", ["x"])
    with kernels(bench, 2, notebook="a.ipynb") as (one, two):
        assert one.run("x = max(1, 2)").verdict == EXECUTED
        assert two.run("x = max(1, 2)").verdict == REPLAYED
        unsaved = two.run("y = max(3, 4)")
        assert unsaved.verdict == NOT_DURABLE
        assert "in use by" in unsaved.stderr
        two.run(COUNT)
        assert two.run(ONCE).status == "error"
        one.kill()
        assert two.run("z = max(5, 6)").verdict == EXECUTED
    assert counts(counted)["pay"] == 0


def test_off_always_and_rerun(bench: Bench) -> None:
    cells = [
        "import uuid",
        "# durable: off\na = uuid.uuid4().hex\nprint(a)",
        "# durable: always\nb = uuid.uuid4().hex\nprint(b)",
        "c = uuid.uuid4().hex\nprint(c)",
    ]
    bench.notebook("a.ipynb", cells)
    first = run_all(bench, cells, notebook="a.ipynb")
    second = run_all(bench, cells, notebook="a.ipynb")
    same = [now == then for now, then in zip(second.stdout, first.stdout, strict=True)]
    assert same == [True, False, False, True]
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run_all(cells)
        kernel.run("%durable rerun c = uuid.uuid4().hex").expect_ok()
        assert kernel.run(cells[3], cell_id=None).stdout != first.stdout[3]


def test_tags_set_what_the_first_line_sets(bench: Bench) -> None:
    bench.notebook("a.ipynb", ["x"])
    source = "import uuid\nprint(uuid.uuid4())\nx = 1"
    with Kernel(bench, notebook="a.ipynb") as kernel:
        assert kernel.run(source, cell_meta={"tags": ["durable: off"]}).verdict in (None, NOT_DURABLE)


def test_why_shows_the_cause_as_a_diff(bench: Bench) -> None:
    bench.notebook("a.ipynb", ["x"])
    cells = ["a = max(1, 2)\na", "b = a + 1\nb"]
    run_all(bench, cells, notebook="a.ipynb", cell_ids="auto")
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run("a = max(1, 5)\na", cell_id="cell-0")
        edited = kernel.run("%durable why").expect_ok().stdout
        kernel.run(cells[1], cell_id="cell-1")
        dependant = kernel.run("%durable why").expect_ok().stdout
    assert "-a = max(1, 2)" in edited
    assert "+a = max(1, 5)" in edited
    assert "a" in dependant.partition("because")[2]


@pytest.mark.parametrize("verb", ["status", "why", "history", "help"])
def test_every_reading_verb_answers(bench: Bench, verb: str) -> None:
    bench.notebook("a.ipynb", ["x"])
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run("x = max(1, 2)").expect_ok()
        assert kernel.run(f"%durable {verb}").expect_ok().outputs


def test_forget_and_use(bench: Bench) -> None:
    cells = ["import uuid", "a = uuid.uuid4().hex\nprint(a)"]
    bench.notebook("a.ipynb", cells)
    first = run_all(bench, cells, notebook="a.ipynb").stdout
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run("%durable forget --all").expect_ok()
        assert kernel.run_all(cells)[1].stdout != first[1]
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run("%durable use other").expect_ok()
        used = kernel.run_all(cells)[1].stdout
    named = run_all(bench, cells, env={"DURABLE_NB_EXECUTION": "other"})
    assert named.stdout[1] == used


def test_declarations_are_run_every_time(bench: Bench) -> None:
    story = Story(bench)
    assert story.verdicts(["def f():\n    return 1", "import math"]) == [DECLARED, DECLARED]
    assert story.verdicts(["def f():\n    return 1", "import math"]) == [DECLARED, DECLARED]
