"""What a step shows: a widget that acts while a person looks, and one plain line that depends on the source only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.notebook.harness import Bench, Kernel, Pending
from tests.notebook.runners import jupyter_execute, nbval
from tests.notebook.stores import events

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]

WIDGET = "application/vnd.jupyter.widget-view+json"
FLAKY = """\
%%durable_step flaky --max-attempts 3 --initial-delay {delay} --jitter none
from pathlib import Path
tries = Path("tries").read_text() if Path("tries").exists() else ""
Path("tries").write_text(tries + "x")
print("try", len(tries) + 1, flush=True)
if len(tries) < {failures}:
    raise ConnectionError("refused <b>now</b>")
"""


def flaky(delay: str = "10ms", failures: int = 1) -> str:
    return FLAKY.format(delay=delay, failures=failures)


class Page:
    """The front end's side of one live step: its widget's state, and presses of its buttons."""

    def __init__(self, kernel: Kernel, pending: Pending) -> None:
        self.kernel, self.pending = kernel, pending

    def states(self) -> list[dict[str, Any]]:
        found = [comm["content"]["data"].get("state", {}).get("state") for comm in self.pending.comms]
        return [state for state in found if state]

    def wait_for(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        self.kernel._until(lambda: any(condition(state) for state in self.states()) or self.pending.done, "a state")
        return next(state for state in reversed(self.states()) if condition(state))

    def press(self, kind: str, *, run: int | None = None) -> None:
        opened = [c["content"] for c in self.pending.comms if c["header"]["msg_type"] == "comm_open"]
        widget = next(c for c in opened if "_esm" in c["data"].get("state", {}))
        number = self.states()[-1]["run"] if run is None else run
        content = {"method": "custom", "content": {"kind": kind, "run": number}}
        self.kernel.send_comm(widget["comm_id"], content)


def live(kernel: Kernel, source: str, cell_id: str = "cell-0") -> Page:
    return Page(kernel, kernel.execute(source, cell_id=cell_id))


def kinds(outputs: list[dict[str, Any]]) -> list[list[str]]:
    return [sorted(output["data"]) for output in outputs if "data" in output]


@pytest.fixture
def kernel(bench: Bench) -> Any:
    with Kernel(bench, notebook="a.ipynb") as started:
        yield started


# --- the line that stays --------------------------------------------------------------------------------------------


def test_live_replayed_and_without_a_person_the_same_outputs_stay(bench: Bench, kernel: Kernel) -> None:
    source = "%%durable_step load --max-attempts 4 --timeout 10m\nn = len('abc')\nprint(n)"
    first = kernel.run(source, cell_id="cell-0").expect_ok()
    again = kernel.run(source, cell_id="cell-0").expect_ok()
    kernel.restart()
    replayed = kernel.run(source).expect_ok()
    other = jupyter_execute(bench, bench.notebook("b.ipynb", [source])).outputs()[0]
    assert again.verdict == replayed.verdict == "replayed"
    assert first.outputs == again.outputs == replayed.outputs == other
    assert first.outputs[0]["data"]["text/plain"] == "Durable step load: up to 4 attempts, at most 10 min each."
    assert kinds(first.outputs) == [["text/html", "text/plain"]]


def test_a_step_that_needed_attempts_leaves_the_same_line_as_one_that_did_not(bench: Bench, kernel: Kernel) -> None:
    failed_once = kernel.run(flaky(failures=1), cell_id="cell-0").expect_ok()
    (bench.root / "tries").write_text("xx")
    at_once = kernel.run(flaky(failures=1).replace("print(", "print(0 or "), cell_id="cell-1").expect_ok()
    assert failed_once.durable["attempt"] == 2
    assert failed_once.outputs[0] == at_once.outputs[0]
    assert failed_once.stdout == "try 2\n"


def test_a_failing_step_leaves_its_line_before_the_error(kernel: Kernel) -> None:
    seen = kernel.run("%%durable_step load\n1 / 0", cell_id="cell-0")
    assert [output["output_type"] for output in seen.outputs] == ["display_data", "error"]
    assert kinds(seen.outputs) == [["text/html", "text/plain"]]


def test_quiet_and_unmarked_cells_show_nothing(kernel: Kernel) -> None:
    for source in ("%%durable_step load --quiet --max-attempts 2\nn = len('a')", "m = len('ab')"):
        assert kernel.run(source, cell_id="cell-0").expect_ok().outputs == []
        assert kernel.run(source).expect_ok().outputs == []


def test_an_unmarked_cell_that_may_be_tried_again_shows_its_line(kernel: Kernel) -> None:
    seen = kernel.run("# durable: name=load max-attempts=2\nn = len('abc')").expect_ok()
    assert [output["data"]["text/plain"] for output in seen.outputs] == ["Durable step load: up to 2 attempts."]


def test_a_cell_that_takes_its_outputs_away_takes_the_line_with_them_in_a_replay_too(kernel: Kernel) -> None:
    source = "%%durable_step\nfrom IPython.display import clear_output\nprint('a')\nclear_output()\nprint(len('b'))"
    first = kernel.run(source).expect_ok()
    kernel.restart()
    again = kernel.run(source).expect_ok()
    assert (again.verdict, again.outputs) == ("replayed", first.outputs)
    assert kinds(first.outputs) == []


def test_what_the_source_says_is_escaped(kernel: Kernel) -> None:
    seen = kernel.run("%%durable_step\nx = '<script>alert(1)</script>'").expect_ok()
    html = seen.outputs[0]["data"]["text/html"]
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_nbval_agrees_with_what_a_person_saved(bench: Bench, kernel: Kernel) -> None:
    source = "%%durable_step load --max-attempts 2\nn = len('abc')\nprint(n)"
    outputs = kernel.run(source, cell_id="cell-0").expect_ok().outputs
    kernel.close()
    book = bench.notebook("a.ipynb", [{"source": source, "outputs": outputs, "execution_count": 1}])
    assert nbval(bench, book).code == 0


def test_nothing_of_ipywidgets_is_loaded_while_nothing_is_shown_live(kernel: Kernel) -> None:
    kernel.run("n = len('abc')", cell_id="cell-0")
    kernel.run("%%durable_step\nm = len('abc')")
    assert kernel.value("[name for name in ('ipywidgets', 'anywidget') if name in __import__('sys').modules]") == "[]"


# --- the widget -----------------------------------------------------------------------------------------------------


def test_the_widget_tells_what_has_been_written(kernel: Kernel) -> None:
    source = "%%durable_step load\nimport numpy, time\ntime.sleep(0.5)\ntable = numpy.random.default_rng().random(40_000_000)"
    page = live(kernel, source)
    page.wait_for(lambda state: state["phase"] == "saving" and state["written"] > 1_000_000)
    seen = page.pending.result().expect_ok()
    written = [state["written"] for state in page.states()]
    assert written == sorted(written)
    assert written[0] == 0
    assert kinds(seen.outputs) == [["text/html", "text/plain"]]
    assert seen.durable["bytes"] > 320_000_000


def test_the_widget_counts_down_with_the_error_of_the_last_attempt(kernel: Kernel) -> None:
    page = live(kernel, flaky(delay="30s"))
    state = page.wait_for(lambda state: state["phase"] == "waiting")
    assert (state["attempt"], state["attempts"], state["delay"] > 25) == (1, 3, True)
    assert state["error"]["line"] == "ConnectionError: refused <b>now</b>"
    assert "raise ConnectionError" in state["error"]["traceback"]
    assert "durable_nb" not in state["error"]["traceback"]
    kernel._until(lambda: WIDGET in page.pending.area.outputs[0]["data"], "the widget")
    page.press("retry")
    assert page.pending.result().expect_ok().durable["attempt"] == 2


def test_run_anew_forgets_the_attempts_made(kernel: Kernel) -> None:
    page = live(kernel, flaky(delay="30s", failures=3))
    page.wait_for(lambda state: state["phase"] == "waiting" and state["attempt"] == 1)
    page.press("retry")
    state = page.wait_for(lambda state: state["phase"] == "waiting" and state["attempt"] == 2)
    assert "anew" in state["actions"]
    page.press("anew")
    page.kernel._until(lambda: [s["attempt"] for s in page.states() if s["phase"] == "waiting"] == [1, 2, 1], "anew")
    page.press("retry")
    assert page.pending.result().expect_ok().durable["attempt"] == 2


@pytest.mark.parametrize(
    "body",
    ["import time\nprint('go', flush=True)\ntime.sleep(600)", "import asyncio\nprint('go')\nawait asyncio.sleep(600)"],
    ids=["blocked", "awaiting"],
)
def test_cancel_stops_a_running_body(kernel: Kernel, body: str) -> None:
    page = live(kernel, f"%%durable_step slow --max-attempts 3\n{body}")
    page.pending.wait_for("go")
    page.wait_for(lambda state: state["phase"] == "running")
    page.press("cancel")
    ended = page.pending.result()
    assert ended.ename in ("KeyboardInterrupt", "CancelledError")
    assert kernel.run("1 + 1", cell_id="cell-1").expect_ok().result == "2"


def test_cancel_stops_a_count_down(kernel: Kernel) -> None:
    page = live(kernel, flaky(delay="10m"))
    page.wait_for(lambda state: state["phase"] == "waiting")
    page.press("cancel")
    assert page.pending.result().ename == "KeyboardInterrupt"


def test_a_press_for_another_run_does_nothing(kernel: Kernel) -> None:
    page = live(kernel, flaky(delay="500ms"))
    page.wait_for(lambda state: state["phase"] == "waiting")
    page.press("cancel", run=10**6)
    page.pending.result().expect_ok()


def test_presses_do_not_count_as_code_beside_the_cell(kernel: Kernel) -> None:
    page = live(kernel, flaky(delay="10m"))
    page.wait_for(lambda state: state["phase"] == "waiting")
    page.press("retry")
    assert page.pending.result().expect_ok().verdict == "executed"


# --- a step that waits for a person ---------------------------------------------------------------------------------

PAY = "%%durable_step pay --at-most-once\nprint('paid')\nimport time\ntime.sleep({seconds})"


def interrupted(kernel: Kernel) -> Page:
    kernel.execute(PAY.format(seconds=600), cell_id="cell-0").wait_for("paid")
    kernel.restart(kill=True)
    return live(kernel, PAY.format(seconds=600))


@pytest.mark.parametrize(("decision", "status"), [("succeeded", "ok"), ("failed", "error")])
def test_an_interrupted_step_is_decided_by_a_button(kernel: Kernel, decision: str, status: str) -> None:
    page = interrupted(kernel)
    assert page.pending.result().ename == "StepInterruptedError"
    assert page.states()[-1]["actions"] == ["succeeded", "again", "failed"]
    page.press(decision)
    kernel._until(lambda: "Decided" in page.pending.area.outputs[0]["data"]["text/plain"], "the decision")
    assert kernel.run(PAY.format(seconds=600), cell_id="cell-0").status == status


def test_a_decision_that_nobody_takes_leaves_no_widget_behind(kernel: Kernel) -> None:
    page = interrupted(kernel)
    page.pending.result()
    assert WIDGET in page.pending.area.outputs[0]["data"]
    kernel.run("1", cell_id="cell-1")
    assert kinds(page.pending.area.outputs) == [["text/html", "text/plain"]]


# --- a cell without a mark that waits ---------------------------------------------------------------------------------

PAUSE = "from durable_nb import context\nprint('before')\ncontext.wait({seconds}, name='pause')\nprint(len('after'))"


def lines(outputs: list[dict[str, Any]]) -> list[str]:
    """Displays and texts, in order."""
    return [output.get("text") or output["data"]["text/plain"] for output in outputs]


def test_an_unmarked_cell_that_waits_shows_a_widget_that_ends_the_wait(kernel: Kernel) -> None:
    page = live(kernel, PAUSE.format(seconds=600))
    state = page.wait_for(lambda state: state["phase"] == "sleeping" and state["left"])
    assert (state["waits"], state["actions"]) == ("waiting: pause", ["go", "cancel"])
    assert 590 < state["left"] <= 600
    kernel._until(lambda: any(WIDGET in output.get("data", {}) for output in page.pending.area.outputs), "the widget")
    page.press("go")
    ended = page.pending.result().expect_ok()
    assert lines(ended.outputs) == ["before\n", "Durable step from durable_nb import context: waits.", "5\n"]


def test_what_a_waiting_cell_leaves_is_the_same_live_replayed_and_without_a_person(
    bench: Bench, kernel: Kernel
) -> None:
    source = PAUSE.format(seconds=1)
    first = kernel.run(source, cell_id="cell-0").expect_ok()
    assert (first.verdict, kinds(first.outputs)) == ("executed", [["text/html", "text/plain"]])
    inputs = [s.event.details.get("inputs") for s in events(bench) if s.event.kind.value == "SUCCEEDED"]
    assert "steps." not in str(inputs), "what the widget needs is no input of the cell"
    kernel.restart()
    replayed = kernel.run(source).expect_ok()
    assert replayed.verdict == "replayed"
    other = jupyter_execute(bench, bench.notebook("b.ipynb", [source])).outputs()[0]
    assert first.outputs == replayed.outputs == other


def test_cancel_stops_a_wait(kernel: Kernel) -> None:
    page = live(kernel, PAUSE.format(seconds=600))
    page.wait_for(lambda state: state["phase"] == "sleeping" and state["left"])
    page.press("cancel")
    assert page.pending.result().ename == "KeyboardInterrupt"
    assert kernel.run("1 + 1", cell_id="cell-1").expect_ok().result == "2"


def test_a_wait_whose_time_passed_while_no_kernel_ran_leaves_the_same_line(kernel: Kernel) -> None:
    source = PAUSE.format(seconds=1)
    page = live(kernel, source)
    page.wait_for(lambda state: state["phase"] == "sleeping" and state["left"])
    kernel.kill()
    (due,) = [s.event.due for s in events(kernel.bench) if s.event.type.value == "WAIT"]
    while time.time() < due:
        time.sleep(0.05)
    kernel.restart()
    ended = kernel.run(source, cell_id="cell-0").expect_ok()
    assert lines(ended.outputs) == ["before\n", "Durable step from durable_nb import context: waits.", "5\n"]


def test_a_callback_is_waited_for_with_a_widget_and_no_promise_of_an_end(kernel: Kernel) -> None:
    kernel.run("from durable_nb import context").expect_ok()
    page = live(kernel, "answer = context.create_callback('approval')\nprint(answer.callback_id)\nanswer.result()")
    state = page.wait_for(lambda state: state["phase"] == "sleeping")
    assert (state["waits"], state["left"]) == ("waiting for approval, an answer from outside", None)
    assert state["actions"] == ["cancel"]
    page.press("cancel")
    assert page.pending.result().ename == "KeyboardInterrupt"


def test_an_unmarked_cell_whose_steps_are_tried_again_leaves_no_line(bench: Bench, kernel: Kernel) -> None:
    kernel.run("from durable_nb import Duration, context\nfrom durable_nb.sdk.config import StepConfig").expect_ok()
    kernel.run("from durable_nb.sdk.retries import RetryDecision").expect_ok()
    source = (
        "def once(_):\n    if len(calls) < 1:\n        calls.append(1)\n        raise ConnectionError('no')\n    return 7\n"
        "calls = []\n"
        "config = StepConfig(retry_strategy=lambda error, n: RetryDecision.retry(Duration.from_seconds(1)))\n"
        "print(context.step(once, name='fetch', config=config))"
    )
    seen = kernel.run(source, cell_id="cell-0").expect_ok()
    assert lines(seen.outputs) == ["7\n"]


def test_a_cell_that_does_not_wait_shows_nothing(kernel: Kernel) -> None:
    kernel.run("from durable_nb import context").expect_ok()
    seen = kernel.run("a = context.step(lambda _: 1, name='one')", cell_id="cell-0").expect_ok()
    assert seen.outputs == []
    assert not [comm for comm in seen.comms if "_esm" in comm["content"].get("data", {}).get("state", {})]


# --- code that never looks for signals ----------------------------------------------------------------------------------


# The second lock waits in C, and no signal ends that; a thread unlocks when it is told to.
DEAF = """\
%%durable_step busy
import ctypes, threading, time
from pathlib import Path
mutex, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
def free():
    while not Path("free").exists():
        time.sleep(0.05)
    c.pthread_mutex_unlock(mutex)
c.pthread_mutex_lock(mutex)
threading.Thread(target=free).start()
print("go", flush=True)
c.pthread_mutex_lock(mutex)
"""


def test_code_that_never_looks_for_signals_is_said_not_to_react(bench: Bench, kernel: Kernel) -> None:
    page = live(kernel, DEAF)
    page.pending.wait_for("go")
    page.wait_for(lambda state: state["phase"] == "running")
    page.press("cancel")
    page.wait_for(lambda state: state["phase"] == "stopping")
    page.wait_for(lambda state: state["phase"] == "stuck")
    bench.write("free", "")
    assert page.pending.result().ename == "KeyboardInterrupt"
