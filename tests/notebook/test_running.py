"""Attempts, time-outs, interrupts, at most once: what happens while a cell runs, and what a kill leaves."""

from __future__ import annotations

import time

import pytest

from durable_nb.events import CELL, EventKind
from tests.notebook.harness import Bench, Kernel, kernels, run_all
from tests.notebook.stores import events

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]

FLAKY = """\
from pathlib import Path
def attempt_number():
    path = Path(COUNTER)
    n = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(n))
    return n
"""


@pytest.fixture
def counter(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cell that defines `attempt_number()`; its file is outside every rule about inputs of the notebook."""
    bench.write("counting.py", FLAKY.replace("COUNTER", repr(str(bench.private / "count"))))
    return "import counting"


def test_a_flaky_cell_is_tried_again_from_a_clean_start(bench: Bench, counter: str) -> None:
    step = (
        "%%durable_step flaky --max-attempts 3 --initial-delay 10ms --jitter none\n"
        "n = counting.attempt_number(); items.append(n); print('try', n)\n"
        "if n < 3: raise ConnectionError('not yet')"
    )
    run = run_all(bench, [counter, "items = list('a')", step], probes=["items", "n"])
    assert run.cells[2].expect_ok().durable["attempt"] == 3
    assert run.probes == {"items": "['a', 3]", "n": "3"}
    assert run.cells[2].stdout == "try 3\n"
    again = run_all(bench, [counter, "items = list('a')", step], probes=["items", "n"])
    assert again.verdicts[2] == "replayed"
    assert again.probes == run.probes


def test_other_errors_and_exhausted_attempts_fail_the_cell(bench: Bench, counter: str) -> None:
    by_type = (
        "%%durable_step a --max-attempts 5 --initial-delay 1ms --retry-on ConnectionError\n"
        "counting.attempt_number(); raise KeyError('k')"
    )
    run = run_all(bench, [counter, by_type], probes=["counting.attempt_number()"])
    assert run.cells[1].ename == "KeyError"
    assert run.probes == {"counting.attempt_number()": "2"}
    by_message = (
        "%%durable_step b --max-attempts 2 --initial-delay 1ms --retry-if-message time.*out\n"
        "counting.attempt_number(); raise OSError('timed out')"
    )
    run = run_all(bench, [counter, by_message], probes=["counting.attempt_number()"])
    assert (run.cells[1].ename, run.cells[1].durable["attempt"]) == ("OSError", 2)
    assert run.probes == {"counting.attempt_number()": "5"}


def test_attempts_and_the_remaining_delay_survive_a_kill(bench: Bench, counter: str) -> None:
    step = (
        "%%durable_step flaky --max-attempts 3 --initial-delay {delay} --jitter none\n"
        "n = counting.attempt_number(); print('try', n, flush=True)\nif n < 2: raise ConnectionError('not yet')"
    )
    with Kernel(bench) as kernel:
        kernel.run(counter)
        pending = kernel.execute(step.format(delay="2s"))
        pending.wait_for("next in", stream="stderr")
        kernel.kill()
    run = run_all(bench, [counter, step.format(delay="2s")], probes=["n"])
    assert run.cells[1].durable["attempt"] == 2
    assert run.probes == {"n": "2"}


def test_an_interrupt_ends_a_run_and_a_countdown(bench: Bench) -> None:
    with Kernel(bench) as kernel:
        pending = kernel.execute("import time\nprint('inside', flush=True)\ntime.sleep(600)").wait_for("inside")
        kernel.interrupt()
        assert pending.result().ename == "KeyboardInterrupt"
        pending = kernel.execute("%%durable_step s --max-attempts 2 --initial-delay 10m --jitter none\n1 / 0")
        pending.wait_for("next in", stream="stderr")
        kernel.interrupt()
        assert pending.result().ename == "KeyboardInterrupt"
        assert kernel.run("1 + 1").result == "2"


def test_a_step_ends_at_its_timeout_sync_and_async(bench: Bench) -> None:
    with Kernel(bench) as kernel:
        kernel.run("import time, asyncio")
        slow = kernel.run("%%durable_step slow --timeout 200ms\ntime.sleep(600)")
        assert (slow.ename, slow.verdict) == ("StepTimeoutError", "failed")
        slow = kernel.run("%%durable_step aslow --timeout 200ms\nawait asyncio.sleep(600)")
        assert "Timeout" in (slow.ename or "")
        assert kernel.run("2 + 2").result == "4"


def test_a_payment_happens_once_whatever_happens(bench: Bench, counter: str) -> None:
    pay = "%%durable_step pay --at-most-once\nn = counting.attempt_number(); print('paid', flush=True)"
    notebook = {"execution": "shop"}
    env = {"DURABLE_NB_EXECUTION": notebook["execution"]}
    first = run_all(bench, [counter, pay], env=env)
    assert first.verdicts[1] == "executed"
    again = run_all(bench, [counter, pay], env=env, probes=["n", "counting.attempt_number()"])
    assert again.verdicts[1] == "replayed"
    assert again.probes == {"n": "1", "counting.attempt_number()": "2"}


def test_an_interrupted_payment_is_not_started_again_until_somebody_decides(bench: Bench, counter: str) -> None:
    env = {"DURABLE_NB_EXECUTION": "shop"}
    pay = (
        "%%durable_step pay --at-most-once\n"
        "n = counting.attempt_number(); print('inside', flush=True)\nimport time; time.sleep({wait})"
    )
    run_all(bench, [counter, pay.format(wait=600)], env=env, kill_inside=(1, "inside"))
    with Kernel(bench, env=env) as kernel:
        kernel.run(counter)
        refused = kernel.run(pay.format(wait=0))
        assert refused.status == "error"
        assert refused.durable["decision"] is True
        assert "resolve pay --again" in "\n".join(refused.traceback)
        assert kernel.run("%durable resolve nothing --again").status == "error"
        kernel.run("%durable resolve pay --again").expect_ok()
        assert kernel.run(pay.format(wait=0)).expect_ok().verdict == "executed"
        assert kernel.value("n") == "2"
        assert kernel.run(pay.format(wait=0)).verdict == "replayed"


def test_the_marker_refuses_when_the_journal_is_lost(bench: Bench, counter: str) -> None:
    env = {"DURABLE_NB_EXECUTION": "shop"}
    pay = "%%durable_step pay --at-most-once\nn = counting.attempt_number()"
    run_all(bench, [counter, pay], env=env)
    for path in bench.store.glob("journal.db*"):
        path.unlink()
    run = run_all(bench, [counter, pay], env=env, probes=["counting.attempt_number()"])
    assert run.cells[1].status == "error"
    assert run.cells[1].durable["decision"] is True
    assert run.probes == {"counting.attempt_number()": "2"}, "the body has run once"


def test_a_payment_with_other_inputs_is_refused_with_the_difference(bench: Bench, counter: str) -> None:
    env = {"DURABLE_NB_EXECUTION": "shop"}
    pay = "%%durable_step pay --at-most-once\nn = counting.attempt_number(), amount"
    run_all(bench, [counter, "amount = 5", pay], env=env)
    with Kernel(bench, env=env) as kernel:
        kernel.run(counter)
        kernel.run("amount = 6")
        refused = kernel.run(pay)
        assert refused.status == "error"
        assert "amount" in (refused.evalue or "")
        kernel.run("%durable resolve pay --keep").expect_ok()
        assert kernel.run(pay).expect_ok().verdict == "replayed"
        assert kernel.value("n") == "(1, 5)"


def test_at_most_once_needs_to_know_the_notebook(bench: Bench, counter: str) -> None:
    run = run_all(bench, [counter, "%%durable_step pay --at-most-once\nn = counting.attempt_number()"])
    assert run.cells[1].status == "error"
    assert "%durable use" in (run.cells[1].evalue or "")


def test_a_second_kernel_replays_and_runs_unsaved(bench: Bench) -> None:
    env = {"DURABLE_NB_EXECUTION": "shared"}
    with kernels(bench, 2, env=env) as (one, two):
        one.run("x = len('abc')")
        assert two.run("x = len('abc')").verdict == "replayed"
        unsaved = two.run("y = x + 1")
        assert unsaved.verdict == "not_durable"
        assert str(one.pid) in unsaved.durable["reason"]
        assert str(one.pid) in unsaved.stderr
        assert two.run("%%durable_step pay --at-most-once\n1").status == "error"
        one.kill()
        assert two.run("z = x + 2").verdict == "executed"


def test_bad_options_are_one_line_and_nothing_runs(bench: Bench) -> None:
    with Kernel(bench) as kernel:
        for line, word in (
            ("--max-atempts 3", "max-attempts"),
            ("--max-attempts many", "--max-attempts"),
            ("s --retry-on NoSuchError --max-attempts 2", "NoSuchError"),
            ("--at-most-once", "NAME"),
            ("s --timeout soon", "--timeout"),
        ):
            bad = kernel.run(f"%%durable_step {line}\nran = True")
            assert bad.status == "error"
            assert bad.ename == "UsageError"
            assert word in bad.stderr, bad.stderr
            assert len(bad.stderr.strip().splitlines()) == 1
        assert kernel.value("'ran' in globals()") == "False"


def test_ordinary_things_work_as_in_the_plain_kernel(bench: Bench) -> None:
    with Kernel(bench) as kernel:
        assert kernel.run("name = input('who? ')", answers=["me"]).status == "ok"
        assert kernel.value("name") == "'me'"
        assert "name" in kernel.request("complete_request", {"code": "nam", "cursor_pos": 3})["matches"]
        assert kernel.request("inspect_request", {"code": "name", "cursor_pos": 2, "detail_level": 0})["found"]
        assert kernel.run("!echo shell").stdout.strip() == "shell"
        assert "loop" in kernel.run("%timeit -n1 -r1 len('a')").stdout
        assert kernel.run("1 / 0").ename == "ZeroDivisionError"
        assert kernel.run("def broken(:").ename == "SyntaxError"
        assert kernel.run("%%time\nx = 3\nx").result == "3"
        assert kernel.run("import ipywidgets\nipywidgets.IntSlider(value=3)").status == "ok"


def test_a_nameless_runner_replays_a_payment_that_exactly_one_notebook_made(bench: Bench, counter: str) -> None:
    pay = "%%durable_step pay --at-most-once\nn = counting.attempt_number()"
    run_all(bench, [counter, pay], env={"DURABLE_NB_EXECUTION": "shop"})
    run = run_all(bench, [counter, pay], probes=["n"])
    assert run.verdicts[1] == "replayed"
    assert run.probes == {"n": "1"}


def test_a_cell_that_takes_a_moment_is_seen_to_run_and_a_quick_one_is_recorded_by_its_end(bench: Bench) -> None:
    quick, slow = "x = sum([1, 2])", "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    with Kernel(bench) as kernel:
        kernel.run(quick)
        assert [stored.event.kind for stored in events(bench)] == [EventKind.SUCCEEDED]
        pending = kernel.execute(slow)
        deadline = time.monotonic() + 60
        while len(events(bench)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        begun = events(bench)[-1].event
        assert (begun.kind, begun.details["source"]) == (EventKind.STARTED, slow)
        bench.write("go", "")
        assert pending.result().status == "ok"
        assert [stored.event.kind for stored in events(bench)][2:] == [EventKind.SUCCEEDED]
        assert events(bench)[2].event.at > begun.at


def test_what_a_dead_kernel_was_at_is_known(bench: Bench) -> None:
    with Kernel(bench) as kernel:
        kernel.execute("import time\nprint('inside', flush=True)\ntime.sleep(600)").wait_for("inside")
        while not events(bench):
            time.sleep(0.01)
        kernel.kill()
    assert [stored.event.kind for stored in events(bench)] == [EventKind.STARTED]


def test_a_cell_around_a_durable_line_is_recorded_before_it(bench: Bench) -> None:
    cell = "%durable_step y = sum([1, 2])\nfrom durable_nb import context\nz = context.step(lambda _: 5, name='inner')"
    with Kernel(bench) as kernel:
        kernel.run(cell).expect_ok()
    names = [(stored.event.sub_type, stored.event.kind) for stored in events(bench)]
    assert names[0] == (CELL, EventKind.STARTED), "the parent of what is recorded inside is there before it"
    assert names[-1] == (CELL, EventKind.SUCCEEDED)


def test_a_cell_that_changes_the_execution_is_seen_to_have_begun_in_the_first_one_and_later_cells_too(
    bench: Bench,
) -> None:
    slow = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    with Kernel(bench, notebook="first.ipynb") as kernel:
        kernel.run("%durable use second\nx = sum([1, 2])").expect_ok()
        before = len(events(bench))
        pending = kernel.execute(slow)
        deadline = time.monotonic() + 60
        while len(events(bench)) <= before and time.monotonic() < deadline:
            time.sleep(0.01)
        found = events(bench)
        bench.write("go", "")
        assert pending.result().status == "ok"
    began = [stored for stored in found if stored.event.kind is EventKind.STARTED]
    assert [stored.event.details["source"].partition("\n")[0] for stored in began] == [
        "%durable use second",
        "import pathlib, time",
    ]
    assert began[0].execution_id != began[1].execution_id


def test_the_pause_before_a_reply_begins_at_the_last_output(bench: Bench) -> None:
    """ipykernel sleeps before each reply, so that outputs are at the front end first; a commit is no reason for more."""
    quiet, shown, failing = "x = sum([1, 2])", "print(x)", "1 / 0"

    def seconds(kernel: Kernel, source: str) -> float:
        start = time.monotonic()
        kernel.run(source)
        return time.monotonic() - start

    def set_pause(kernel: Kernel, to: float) -> None:
        kernel.run(f"get_ipython()._durable_nb_hooks._pause = {to}", silent=True).expect_ok()

    for life in ("executed", "replayed"):
        with Kernel(bench) as kernel:
            set_pause(kernel, 60.0)
            assert seconds(kernel, quiet) < 60.0, f"nothing was sent, and yet the {life} cell waited for it"
        with Kernel(bench) as kernel:
            set_pause(kernel, 0.3)
            kernel.run(quiet).expect_ok()
            assert seconds(kernel, shown) >= 0.3, "it would tell of the end of a cell before what it shows"
            assert seconds(kernel, failing) >= 0.3, "an error is an output"
            assert seconds(kernel, "%durable off") >= 0.3, "what is no step pauses as ever"


def test_builtins_are_the_same_between_cells_as_in_them_until_the_extension_is_taken_out(bench: Bench) -> None:
    look = "import asyncio, builtins\nseen = []\nasyncio.get_event_loop().call_soon(lambda: seen.append('get_ipython' in vars(builtins)));"
    with Kernel(bench, spec="python3") as kernel:
        for given, expected in (("pass", False), ("%load_ext durable_nb", True), ("%unload_ext durable_nb", False)):
            kernel.run(given).expect_ok()
            kernel.run(look).expect_ok()
            assert kernel.run("print(seen)").stdout == f"[{expected}]\n", given
            assert (
                kernel.run("print('get_ipython' in vars(builtins), 'exit' in vars(builtins))").stdout == "True False\n"
            )
