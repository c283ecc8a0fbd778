"""What makes a checkpoint invalid, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.acceptance.story import DECLARED, EXECUTED, REPLAYED, Story
from tests.notebook.harness import Bench, Kernel, run_all

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]


def test_comments_blank_lines_and_layout_do_not_matter_but_a_semicolon_does(bench: Bench) -> None:
    story = Story(bench)
    story.run(["x = sum( [1,2] )\nx"])
    assert story.verdicts(["# why\nx = sum([1, 2])\n\nx  # the sum"]) == [REPLAYED]
    assert story.verdicts(["x = sum([1, 2])\nx;"]) == [EXECUTED]


def test_a_function_reached_through_others_decides(bench: Bench) -> None:
    story = Story(bench, probes=["y"])
    inner, outer = "def inner(n):\n    return n + 1", "def outer(n):\n    return inner(n) * 2"
    use, other = "y = outer(3)\ny", "z = max(1, 2)\nz"
    assert story.verdicts([inner, outer, use, other]) == [DECLARED, DECLARED, EXECUTED, EXECUTED]
    assert story.verdicts([inner, outer, use, other])[2:] == [REPLAYED, REPLAYED]
    changed = "def inner(n):\n    return n + 2"
    assert story.verdicts([changed, outer, use, other])[2:] == [EXECUTED, REPLAYED]


@pytest.mark.parametrize(
    "use",
    [
        "r = C().m()\nr",
        "r = functools.partial(f, 1)()\nr",
        "r = list(map(f, [1]))\nr",
        "r = deco(f)(1)\nr",
        "fs = {'f': f}\nr = fs['f'](1)\nr",
    ],
)
def test_code_is_followed_through_methods_partials_containers_and_decorators(bench: Bench, use: str) -> None:
    story = Story(bench, probes=["r"])
    fixed = [
        "import functools",
        "def deco(g):\n    @functools.wraps(g)\n    def wrapper(*a):\n        return g(*a)\n    return wrapper",
        "class C:\n    def m(self):\n        return f(1)",
    ]
    before, after = "def f(n):\n    return n + 1", "def f(n):\n    return n + 2"
    story.run([*fixed, before, use])
    assert story.verdicts([*fixed, before, use])[-1] == REPLAYED
    assert story.verdicts([*fixed, after, use])[-1] == EXECUTED


def test_an_edited_local_module_runs_its_users(bench: Bench) -> None:
    story = Story(bench, probes=["x"])
    cells = ["import helper", "x = helper.f(1)\nx", "y = max(1, 2)\ny"]
    bench.write("helper.py", "import deeper\ndef f(n):\n    return deeper.g(n)\n")
    bench.write("deeper.py", "def g(n):\n    return n + 1\n")
    story.run(cells)
    assert story.verdicts(cells)[1:] == [REPLAYED, REPLAYED]
    bench.write("deeper.py", "def g(n):\n    return n + 100\n")
    assert story.verdicts(cells)[1:] == [EXECUTED, REPLAYED]


@pytest.mark.parametrize(
    "read",
    [
        "x = open('data.txt').read()\nx",
        "x = Path('data.txt').read_text()\nx",
        "x = pd.read_csv('data.txt').shape\nx",
        "name = 'data.txt'\nx = subprocess.run(['cat', name], capture_output=True, text=True).stdout\nx",
    ],
)
def test_a_file_that_was_read_decides_by_its_content(bench: Bench, read: str) -> None:
    story = Story(bench, probes=["x"])
    cells = ["import subprocess\nfrom pathlib import Path\nimport pandas as pd", read]
    data = bench.write("data.txt", "a,b\n1,2\n")
    story.run(cells)
    data.touch()
    assert story.verdicts(cells)[1] == REPLAYED
    data.write_text("a,b\n1,2\n3,4\n")
    assert story.verdicts(cells)[1] == EXECUTED


def test_a_missing_file_and_a_listing_count(bench: Bench) -> None:
    story = Story(bench, probes=["there", "names"])
    bench.write("in/a.txt", "")
    cells = ["import os", "there = os.path.exists('flag')\nthere", "names = sorted(os.listdir('in'))\nnames"]
    story.run(cells)
    assert story.verdicts(cells)[1:] == [REPLAYED, REPLAYED]
    bench.write("flag", "")
    assert story.verdicts(cells)[1:] == [EXECUTED, REPLAYED]
    bench.write("in/b.txt", "")
    assert story.verdicts(cells)[1:] == [REPLAYED, EXECUTED]


def test_an_environment_variable_that_was_read_counts_and_others_do_not(bench: Bench) -> None:
    cells = ["import os", "mode = os.environ.get('MODE', 'none')\nmode"]
    bench.env["MODE"] = "one"
    story = Story(bench)
    story.run(cells)
    bench.env["UNRELATED"] = "x"
    assert story.verdicts(cells)[1] == REPLAYED
    bench.env["MODE"] = "two"
    assert story.verdicts(cells)[1] == EXECUTED


def test_another_seed_runs_the_draws_after_it(bench: Bench) -> None:
    story = Story(bench, probes=["a", "b"])
    cells = [
        "import random",
        "random.seed(1)",
        "a = random.random()\na",
        "b = [random.random(), a]\nb",
        "c = max(1, 2)\nc",
    ]
    story.run(cells)
    assert set(story.verdicts(cells)[2:]) == {REPLAYED}
    cells[1] = "random.seed(2)"
    verdicts = story.verdicts(cells)
    assert verdicts[2:] == [EXECUTED, EXECUTED, REPLAYED]


def test_the_first_cell_that_runs_draws_what_an_unbroken_run_draws(bench: Bench) -> None:
    story = Story(bench, probes=["a", "b", "c"])
    cells = [
        "import random\nimport numpy as np",
        "random.seed(1)\nnp.random.seed(1)",
        "a = random.random(), np.random.rand()",
    ]
    story.run(cells)
    more = [*cells, "b = random.random(), np.random.rand()\nb", "rng = np.random.default_rng(3)\nc = rng.normal()\nc"]
    assert story.verdicts(more)[2:] == [REPLAYED, EXECUTED, EXECUTED]
    assert story.verdicts([*more, "d = rng.normal(), random.random()\nd"])[3:] == [REPLAYED, REPLAYED, EXECUTED]


def test_unseeded_draws_keep_their_first_value(bench: Bench) -> None:
    cells = ["import random", "a = random.random()\nprint(a)", "b = random.random()\nprint(b)"]
    first = run_all(bench, cells, notebook="a.ipynb")
    second = run_all(bench, cells, notebook="a.ipynb")
    assert second.stdout == first.stdout


def test_a_set_up_cell_always_runs_and_decides_for_those_who_reach_the_module(bench: Bench) -> None:
    bench.write("cfg.py", "X = 1\n")
    story = Story(bench, probes=["y", "cfg.X"])
    cells = ["import cfg", "cfg.X = 5", "y = cfg.X + 1\ny"]
    story.run(cells)
    verdicts = story.verdicts(cells)
    assert verdicts[1] != REPLAYED
    assert verdicts[2] == REPLAYED
    cells[1] = "cfg.X = 6"
    assert story.verdicts(cells)[2] == EXECUTED


def test_dynamic_names_are_found(bench: Bench) -> None:
    story = Story(bench, probes=["x", "y", "z", "k1"])
    cells = [
        "def setter():\n    global x\n    x = [1]",
        "setter()",
        "exec('y = x + [2]')",
        "globals()['k1'] = sum(y)",
        "z = eval('k1 * 2')\nz",
    ]
    story.run(cells)
    assert story.verdicts(cells)[1:] == [REPLAYED] * 4


def test_ids_folders_and_checkouts_do_not_matter(bench: Bench, tmp_path: Path) -> None:
    cells = ["import uuid", "a = uuid.uuid4().hex\nprint(a)", "text = open('data.txt').read() + a\nprint(text)"]
    bench.write("data.txt", "data")
    bench.notebook("a.ipynb", cells)
    first = run_all(bench, cells, notebook="a.ipynb", cell_ids="auto").stdout
    assert run_all(bench, cells, notebook="a.ipynb").stdout == first
    assert run_all(bench, cells, notebook="a.ipynb", cell_ids=["x", "y", "z"]).stdout == first
    other = Bench(tmp_path / "elsewhere" / "work")
    shutil.copytree(bench.root, other.root, dirs_exist_ok=True)
    shutil.copytree(bench.private, other.private, dirs_exist_ok=True)
    assert run_all(other, cells, notebook="a.ipynb").stdout == first


def test_a_renamed_notebook_keeps_its_history_and_a_copied_one_gets_its_own(bench: Bench) -> None:
    cells = ["import uuid", "a = uuid.uuid4().hex\nprint(a)", "b = a[::-1]\nprint(b)"]
    book = bench.notebook("a.ipynb", cells)
    first = run_all(bench, cells, notebook="a.ipynb").stdout
    book.rename(book.with_name("b.ipynb"))
    assert run_all(bench, cells, notebook="b.ipynb").stdout == first
    shutil.copy(book.with_name("b.ipynb"), book.with_name("c.ipynb"))
    assert run_all(bench, cells, notebook="c.ipynb").stdout != first


def test_cells_may_be_moved(bench: Bench) -> None:
    story = Story(bench, probes=["a", "b"])
    story.run(["a = max(1, 2)\na", "b = max(3, 4)\nb"])
    assert story.verdicts(["b = max(3, 4)\nb", "a = max(1, 2)\na"]) == [REPLAYED, REPLAYED]


def test_files_that_the_notebook_writes_are_versioned_like_names(bench: Bench) -> None:
    """Cell 2 reads what cell 1 wrote and cell 3 overwrites it: the next Run All still replays cell 2."""
    story = Story(bench, probes=["a", "b"])
    cells = [
        "open('f.txt', 'w').write('one')",
        "a = open('f.txt').read()\na",
        "open('f.txt', 'w').write('three')",
        "b = open('f.txt').read()\nb",
    ]
    story.run(cells)
    assert story.verdicts(cells) == [REPLAYED] * 4
    assert (bench.root / "f.txt").read_text() == "three"
    (bench.root / "f.txt").write_text("a stranger")
    run = story.run(cells)
    assert (bench.root / "f.txt").read_text() == "three"
    assert run.probes == {"a": "'one'", "b": "'three'"}


def test_out_of_order_execution_is_what_it_would_be_in_the_plain_kernel(bench: Bench) -> None:
    cells = ["x = [1]", "x.append(2)", "x.append(3)", "y = list(x)\ny"]
    order = [0, 2, 1, 3, 1, 3]
    bench.notebook("a.ipynb", cells)
    shown = []
    for spec in ("durable_nb", "durable_nb", "python3"):
        with Kernel(bench, spec=spec, notebook="a.ipynb") as kernel:
            shown.append([kernel.run(cells[n], cell_id=f"cell-{n}").result for n in order] + [kernel.value("(x, y)")])
    assert shown[0] == shown[2]
    assert shown[1] == shown[2]
