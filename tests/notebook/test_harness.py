"""The harness itself, against the plain kernel: what it says a front end sees is what a front end sees."""

from __future__ import annotations

import pytest

from tests.notebook.harness import Bench, Kernel, KernelDiedError, oracle, run_all

pytestmark = pytest.mark.kernel


def test_a_cell_gives_its_outputs_in_notebook_format(bench: Bench) -> None:
    with Kernel(bench, spec="python3") as kernel:
        result = kernel.run("import sys\nprint('a'); print('b')\nprint('e', file=sys.stderr)\n1 + 1").expect_ok()
    assert (result.stdout, result.stderr, result.result, result.execution_count) == ("a\nb\n", "e\n", "2", 1)
    assert result.verdict is None


def test_an_error_is_a_result_and_ends_run_all(bench: Bench) -> None:
    run = oracle(bench, ["x = 1", "1 / 0", "x = 2"], probes=["x", "y"])
    assert [c.status for c in run.cells] == ["ok", "error"]
    assert run.cells[1].ename == "ZeroDivisionError"
    assert run.probes == {"x": "1", "y": "NameError: name 'y' is not defined"}


def test_display_updates_reach_earlier_cells_and_clear_output_clears(bench: Bench) -> None:
    cells = [
        "from IPython.display import display, update_display, clear_output\ndisplay('old', display_id='d');",
        "print('gone'); clear_output(wait=True); print('kept'); update_display('new', display_id='d')",
    ]
    run = oracle(bench, cells)
    assert run.outputs[0][0]["data"]["text/plain"] == "'new'"
    assert run.stdout[1] == "kept\n"


def test_a_kernel_can_be_killed_inside_a_cell_and_started_again(bench: Bench) -> None:
    with Kernel(bench, spec="python3") as kernel:
        pending = kernel.execute("import time\nprint('inside', flush=True)\ntime.sleep(600)").wait_for("inside")
        first = kernel.pid
        kernel.kill()
        with pytest.raises(KernelDiedError):
            pending.result()
        kernel.restart()
        assert kernel.pid != first
        assert kernel.value("'time' in globals()") == "False"


def test_interrupt_is_seen_as_keyboard_interrupt(bench: Bench) -> None:
    with Kernel(bench, spec="python3") as kernel:
        pending = kernel.execute("import time\nprint('inside', flush=True)\ntime.sleep(600)").wait_for("inside")
        kernel.interrupt()
        assert pending.result().ename == "KeyboardInterrupt"


def test_input_is_answered_and_requests_other_than_cells_work(bench: Bench) -> None:
    with Kernel(bench, spec="python3") as kernel:
        assert kernel.run("name = input('who? ')", answers=["me"]).status == "ok"
        assert kernel.value("name") == "'me'"
        assert "name" in kernel.request("complete_request", {"code": "nam", "cursor_pos": 3})["matches"]


def test_a_subshell_runs_beside_a_busy_cell(bench: Bench) -> None:
    with Kernel(bench, spec="python3") as kernel:
        side = kernel.create_subshell()
        busy = kernel.execute(
            "import threading\ngo = threading.Event()\nprint('wait', flush=True)\ngo.wait()"
        ).wait_for("wait")
        kernel.run("go.set()", subshell=side).expect_ok()
        assert busy.result().result == "True"


def test_cell_ids_and_session_name_are_told_as_jupyterlab_does(bench: Bench) -> None:
    source = (
        "import os\nprint(get_ipython().get_parent()['metadata'].get('cellId'), os.environ.get('JPY_SESSION_NAME'))"
    )
    told = run_all(bench, [source], spec="python3", cell_ids="auto", notebook="a.ipynb").cells[0]
    assert told.stdout == f"cell-0 {bench.root / 'a.ipynb'}\n"
    assert oracle(bench, [source]).stdout == ["None None\n"]


def test_the_oracle_is_stopped_where_the_durable_run_is(bench: Bench) -> None:
    cells = ["x = 1", "print('in'); x = 2", "x = 3"]
    assert len(run_all(bench, cells, spec="python3", kill_after=1).cells) == 2
    inside = run_all(
        bench, ["x = 1", "import time; print('in', flush=True); time.sleep(600)"], spec="python3", kill_inside=(1, "in")
    )
    assert inside.killed
    assert len(inside.cells) == 1
