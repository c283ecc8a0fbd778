"""A replay shows what the run showed: every message, in its final state, with its number."""

from __future__ import annotations

import pytest

from tests.acceptance.story import EXECUTED, NOT_DURABLE, REPLAYED, Story, comparable
from tests.notebook.harness import Bench, Kernel

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]

SHOWN: dict[str, list[str]] = {
    "streams in their order": [
        "import sys\nfor n in range(3):\n    print('out', n)\n    print('err', n, file=sys.stderr)"
    ],
    "a result": ["max(1, 2)"],
    "rich results": ["import pandas as pd", "pd.DataFrame({'a': [1, 2]})"],
    "displays and a result": [
        "from IPython.display import HTML, display",
        "display(HTML('<b>x</b>'), {'text/plain': 'p'}, raw=False)\nprint('t')\n7",
    ],
    "a display that is updated in its own cell": [
        "from IPython.display import display, update_display",
        "h = display('first', display_id='mine')\nfor n in range(3):\n    update_display(f'step {n}', display_id='mine')\nprint('end')",
    ],
    "an earlier cell's display that a later one updates": [
        "from IPython.display import display, update_display",
        "display('old', display_id='there')\nx = max(1, 2)",
        "update_display('new', display_id='there')\ny = max(1, 2)",
    ],
    "cleared output": ["from IPython.display import clear_output", "print('gone')\nclear_output()\nprint('kept')"],
    "output cleared at the next one": [
        "from IPython.display import clear_output",
        "for n in range(4):\n    clear_output(wait=True)\n    print('frame', n)",
    ],
    "a thread's output": [
        "import threading",
        "t = threading.Thread(target=lambda: print('from a thread'))\nt.start()\nt.join()\ndel t",
    ],
    "a shell command": ["!echo hello from the shell"],
    "a figure": [
        "%matplotlib inline\nimport matplotlib.pyplot as plt",
        "fig, ax = plt.subplots(figsize=(1, 1))\nax.plot([1, 2])\nplt.show()",
    ],
    "a figure that shows itself": [
        "%matplotlib inline\nimport matplotlib.pyplot as plt",
        "plt.figure(figsize=(1, 1))\nplt.plot([1, 2]);",
    ],
    "a figure without a magic": ["import matplotlib.pyplot as plt", "plt.figure(figsize=(1, 1))\nplt.plot([1, 2]);"],
    "a warning": ["import warnings", "warnings.warn('careful', UserWarning)\nx = max(1, 2)"],
    "logging": ["import logging", "logging.getLogger('x').warning('noted')\ny = max(1, 2)"],
    "nothing": ["x = max(1, 2)"],
    "a progress bar": [
        "import sys, time",
        "for n in range(5):\n    sys.stdout.write(f'\\r{n}')\n    sys.stdout.flush()",
    ],
}


@pytest.mark.parametrize("what", SHOWN)
def test_a_replay_shows_what_the_run_showed(bench: Bench, what: str) -> None:
    story = Story(bench)
    first = story.run(SHOWN[what])
    second = story.run(SHOWN[what])
    assert comparable(second)[0] == comparable(first)[0]
    assert second.verdicts[-1] == REPLAYED, (second.verdicts, second.cells[-1].durable)


def test_a_subprocesss_output_is_shown_again_where_it_was_shown(bench: Bench) -> None:
    """Not compared with the plain kernel: where a child's text lands among the messages is a race there too."""
    story = Story(bench)
    cells = [
        "import subprocess, sys",
        "subprocess.run([sys.executable, '-c', 'print(\"child\")'], check=True).returncode",
    ]
    first = story.run(cells)
    second = story.run(cells, compare=False)
    assert second.verdicts[1] == REPLAYED
    assert second.outputs == first.outputs


def test_what_c_code_prints_in_the_cells_last_moment_is_kept(bench: Bench) -> None:
    """60,000 bytes at once: ipykernel's reader takes them a thousand at a time and is not done when the cell is."""
    story = Story(bench)
    cells = ["import os", "os.write(1, '\u00e9'.encode() * 30_000)"]
    first = story.run(cells, compare=False)
    second = story.run(cells, compare=False)
    assert second.verdicts[1] == REPLAYED
    assert first.stdout[1] == second.stdout[1] == "\u00e9" * 30_000


def test_counts_and_history_are_those_of_an_unbroken_run(bench: Bench) -> None:
    story = Story(bench, probes=["sorted(Out.items())", "In[1:4]", "_", "__", "_1", "_i1"])
    cells = ["max(1, 2)  # with a comment", "x = 5", "[x, 2]"]
    story.run(cells)
    run = story.run(cells)
    assert run.verdicts[2] == REPLAYED
    assert [cell.execution_count for cell in run.cells] == [1, 2, 3]


def test_a_live_update_reaches_a_replayed_display(bench: Bench) -> None:
    story = Story(bench)
    cells = ["from IPython.display import display, update_display", "display('old', display_id='d')\nx = max(1, 2)"]
    story.run(cells)
    run = story.run([*cells, "update_display('live', display_id='d')"])
    assert run.verdicts[1:] == [REPLAYED, EXECUTED]
    assert run.outputs[1][0]["data"]["text/plain"] == "'live'"


def test_endless_output_is_capped_with_a_note_and_the_cell_still_shows_it_all(bench: Bench) -> None:
    story = Story(bench)
    cells = ["line = 'x' * 1023\nfor _ in range(20_000):\n    print(line)"]
    first = story.run(cells)
    assert len(first.stdout[0]) == 20_000 * 1024
    second = story.run(cells, compare=False)
    assert second.verdicts == [REPLAYED] or second.verdicts == [NOT_DURABLE] or len(second.stdout[0]) == 20_000 * 1024
    size = sum(path.stat().st_size for path in bench.store.rglob("*") if path.is_file())
    assert size < 40_000_000


def test_a_failed_cell_shows_the_users_lines_only(bench: Bench) -> None:
    cells = ["def f():\n    raise ValueError('mine')", "f()"]
    bench.notebook("a.ipynb", cells)
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run(cells[0]).expect_ok()
        durable = kernel.run(cells[1])
    with Kernel(bench, spec="python3") as kernel:
        kernel.run(cells[0])
        plain = kernel.run(cells[1])
    assert durable.traceback == plain.traceback
    assert (durable.ename, durable.evalue) == ("ValueError", "mine")


def test_widgets_do_not_break_a_cell(bench: Bench) -> None:
    story = Story(bench, probes=["w.value"])
    cells = ["import ipywidgets", "w = ipywidgets.IntSlider(value=3)\nx = max(1, 2)\nw.value"]
    story.run(cells)
    story.run(cells)
