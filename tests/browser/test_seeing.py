"""What a person sees in JupyterLab and Notebook 7: the step widget and its buttons, the badge, the board.

With `DURABLE_NB_PICTURES=docs/images` the pictures of the documentation are taken anew, by the same tests.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import Lab
from tests.notebook.harness import Bench

pytestmark = [pytest.mark.browser, pytest.mark.kernel, pytest.mark.slow, pytest.mark.xdist_group("browser")]

only_lab = pytest.mark.parametrize("server", ["lab"], indirect=True)
"""What does not depend on the application is seen in one of them."""

lab_first = pytest.mark.parametrize("server", ["lab", pytest.param("notebook", marks=pytest.mark.soak)], indirect=True)
"""In both, in the long run."""

FETCH = """\
%%durable_step fetch --max-attempts 4 --initial-delay 30s --jitter none
tries = Path("tries").read_text() if Path("tries").exists() else ""
Path("tries").write_text(tries + "x")
if len(tries) < 2:
    raise ConnectionError("the service answered 503 (busy)")
table = {"rows": sum(rows), "words": len(rows)}
print(table)"""
CELLS = [
    "import time\nfrom pathlib import Path",
    "rows = [len(word) for word in 'a few words of text'.split()]\nrows",
    FETCH,
    "total = table['rows'] * 2\ntotal",
    "feed = (n for n in rows)",
    "time.sleep(0.3)\ndone = total + 1\ndone",
]
STEP = ".durable-nb-step"
FINAL = "fetch · durable step · up to 4 attempts"


def picture(lab: Lab, name: str) -> None:
    """Take a picture for the documentation, when pictures are asked for."""
    folder = os.environ.get("DURABLE_NB_PICTURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        lab.page.evaluate("() => document.activeElement?.blur?.()")
        lab.shot(Path(folder) / f"{name}.png")


def dark(lab: Lab) -> None:
    colour = "() => getComputedStyle(document.body).getPropertyValue('--jp-layout-color1')"
    before = lab.page.evaluate(colour)
    lab.command("apputils:change-theme", theme="JupyterLab Dark")
    # The theme's style sheet replaces the old one a little after the body is told.
    lab.page.wait_for_function(
        f"before => document.body.dataset.jpThemeLight === 'false' && ({colour})() !== before", arg=before
    )
    lab.page.wait_for_selector("#jupyterlab-splash", state="detached")


def states(lab: Lab) -> list[str | None]:
    """The badge of each cell, in order."""
    script = """() => [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]
        .map(cell => cell.querySelector('.durable-nb-badge')?.dataset.state ?? null)"""
    return list(lab.page.evaluate(script))


def wait_states(lab: Lab, *wanted: str | None) -> None:
    script = """wanted => JSON.stringify([...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]
        .map(cell => cell.querySelector('.durable-nb-badge')?.dataset.state ?? null)) === JSON.stringify(wanted)"""
    try:
        lab.page.wait_for_function(script, arg=list(wanted))
    except Exception as exc:
        raise AssertionError(f"badges are {states(lab)}, not {list(wanted)}") from exc


def press(lab: Lab, kind: str) -> None:
    lab.page.click(f".durable-nb-button[data-kind={kind}]")


def luminance(lab: Lab, selector: str, what: str) -> float:
    """How light a colour of an element is, 0 to 1."""
    script = """([selector, what]) => {
        const parts = getComputedStyle(document.querySelector(selector))[what].match(/[\\d.]+/g).map(Number);
        return (0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]) / 255; }"""
    return float(lab.page.evaluate(script, [selector, what]))


def opened(lab: Lab, cells: list[str] = CELLS, name: str = "report.ipynb") -> Any:
    """The page, with these cells."""
    lab.bench.notebook(name, cells)
    lab.open(name)
    if lab.app == "lab":  # the notebook by itself
        lab.command("application:toggle-left-area")
    return lab.page


def test_a_step_is_followed_through_its_attempts_and_leaves_one_line(lab: Lab) -> None:
    page = opened(lab)
    lab.command("notebook:run-all-cells", wait=False)
    page.wait_for_selector(f"{STEP}[data-tone=wait]")
    assert "attempt 1 of 4 failed" in page.inner_text(STEP)
    assert "ConnectionError: the service answered 503 (busy)" in page.inner_text(STEP)
    clock = ".durable-nb-clock"
    first = page.inner_text(clock)
    page.wait_for_function("([s, t]) => document.querySelector(s).textContent !== t", arg=[clock, first])
    picture(lab, f"step-{lab.app}-light")
    if lab.app == "lab":
        light = luminance(lab, STEP, "backgroundColor"), luminance(lab, ".durable-nb-title", "color")
        dark(lab)
        now = luminance(lab, STEP, "backgroundColor"), luminance(lab, ".durable-nb-title", "color")
        assert light[0] > 0.8 > 0.4 > light[1]
        assert now[0] < 0.3 < 0.6 < now[1]
        picture(lab, "step-lab-dark")
    page.click(f"{STEP} summary")
    assert "raise ConnectionError" in page.inner_text(f"{STEP} pre")
    press(lab, "retry")
    page.wait_for_selector(".durable-nb-button[data-kind=anew]")
    press(lab, "retry")
    lab.wait_done()
    page.wait_for_selector(STEP, state="detached")
    assert FINAL in page.inner_text(".jp-Notebook")
    assert lab.texts()[2] == "{'rows': 15, 'words': 5}\n"
    lab.save()
    saved = (lab.bench.root / "report.ipynb").read_text()
    assert "widget-view" not in saved
    assert not lab.errors()
    # Reopened by a page that has never seen the widget, with a kernel that has not either.
    lab.restart()
    lab.open("report.ipynb")
    assert FINAL in page.inner_text(".jp-Notebook")
    assert "Error displaying widget" not in page.inner_text(".jp-Notebook")
    lab.run_all()
    wait_states(lab, None, "replayed", "replayed", "replayed", "not_storable", "replayed")
    assert FINAL in page.inner_text(".jp-Notebook")
    assert not lab.errors()


def exported(bench: Bench, *names: str) -> list[Path]:
    """Pages by nbconvert."""
    argv = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", *names]
    subprocess.run(argv, cwd=bench.root, env=bench.environment(), capture_output=True, check=True)
    return [(bench.root / name).with_suffix(".html") for name in names]


def test_cancel_stops_a_cell_that_sleeps(lab: Lab) -> None:
    page = opened(lab)
    lab.edit(2, "%%durable_step slow\nimport time\ntime.sleep(600)")
    lab.command("notebook:run-all-cells", wait=False)
    page.wait_for_selector(".durable-nb-button[data-kind=cancel]")
    press(lab, "cancel")
    lab.wait_done()
    assert [output["ename"] for output in lab.cells()[2]["outputs"] if "ename" in output] == ["KeyboardInterrupt"]
    wait_states(lab, None, "durable", "failed", None, None, None)


@only_lab
def test_the_keyboard_is_enough_for_the_buttons(lab: Lab) -> None:
    page = opened(lab)
    lab.command("notebook:run-all-cells", wait=False)
    page.wait_for_selector(f"{STEP}[data-tone=wait]")
    page.focus(".durable-nb-button[data-kind=cancel]")
    page.keyboard.press("Enter")
    lab.wait_done()
    assert [output["ename"] for output in lab.cells()[2]["outputs"] if "ename" in output] == ["KeyboardInterrupt"]


def test_an_interrupted_payment_is_decided_below_its_cell(lab: Lab) -> None:
    decided(lab, "succeeded")
    lab.run_cell(2)
    assert [output["ename"] for output in lab.cells()[2]["outputs"] if "ename" in output] == []


@only_lab
def test_a_payment_that_is_marked_as_failed_fails(lab: Lab) -> None:
    decided(lab, "failed")
    lab.run_cell(2)
    assert len([output for output in lab.cells()[2]["outputs"] if "ename" in output]) == 1


def decided(lab: Lab, button: str) -> None:
    """A payment whose kernel was killed, run again and decided by this button."""
    page = opened(lab)
    pay = "%%durable_step pay --at-most-once\nPath('paid').write_text('x')\ntime.sleep(600)"
    lab.edit(2, pay)
    lab.command("notebook:run-all-cells", wait=False)
    page.wait_for_selector(".durable-nb-badge[data-state=running]")
    while not (lab.bench.root / "paid").exists():
        page.wait_for_timeout(50)
    (pid,) = lab.kernel_pids()
    os.kill(pid, signal.SIGKILL)
    page.click(".jp-Dialog .jp-mod-accept")  # the page says that the kernel has died, and will be started again
    wait_states(lab, *[None] * 6)
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
    )
    for index in range(3):
        lab.run_cell(index)
    page.wait_for_selector(".durable-nb-button[data-kind=succeeded]")
    assert "needs your decision" in page.inner_text(STEP)
    lab.save()
    saved = (lab.bench.root / "report.ipynb").read_text()
    assert "widget-view" not in saved
    assert "Durable step pay: at most once. Interrupted, and not decided yet: it may have happened." in saved
    if button == "succeeded":
        picture(lab, f"decision-{lab.app}")
    press(lab, button)
    page.wait_for_selector(STEP, state="detached")
    assert "Decided" in page.inner_text(".jp-Notebook")


def test_badges_say_what_became_of_each_cell_and_what_an_edit_makes_run(lab: Lab) -> None:
    page = opened(lab)
    (lab.bench.root / "tries").write_text("xx")
    lab.run_all()
    wait_states(lab, None, "durable", "durable", "durable", "not_storable", "durable")
    lab.edit(3, "total = table['rows'] * 3\ntotal")
    wait_states(lab, None, "durable", "durable", "stale", "not_storable", "stale")
    page.click(".durable-nb-badge[data-state=stale] >> nth=1")
    assert "it reads total, which total = table['rows'] * 2 will make anew" in page.inner_text(".durable-nb-panel")
    picture(lab, f"stale-{lab.app}")
    page.keyboard.press("Escape")
    page.wait_for_selector(".durable-nb-panel", state="detached")
    lab.edit(3, "total = table['rows'] * 2  # a comment\ntotal")
    wait_states(lab, None, "durable", "durable", "durable", "not_storable", "durable")
    lab.save()
    lab.restart()
    wait_states(lab, None, "stored", "stored", "stored", "not_storable", "stored")
    lab.run_all()
    wait_states(lab, None, "replayed", "replayed", "replayed", "not_storable", "replayed")
    page.click(".durable-nb-badge[data-state=replayed] >> nth=3")
    assert re.search(r"saved \d+ ms", page.inner_text(".durable-nb-panel"))
    if lab.app == "lab":
        dark(lab)
    picture(lab, f"badge-{lab.app}")
    page.click(".durable-nb-panel button")
    wait_states(lab, None, "replayed", "replayed", "replayed", "not_storable", "durable")
    assert not lab.errors()


@only_lab
def test_a_page_that_is_opened_later_knows_the_badges(lab: Lab) -> None:
    opened(lab)
    (lab.bench.root / "tries").write_text("xx")
    lab.run_all()
    lab.save()
    lab.open("report.ipynb")
    wait_states(lab, None, "durable", "durable", "durable", "not_storable", "durable")


def test_the_board_follows_the_cells_and_is_saved_as_it_is(lab: Lab) -> None:
    opened(lab)
    (lab.bench.root / "tries").write_text("xx")
    lab.run_cell(0)
    lab.edit(1, "%durable status")
    lab.run_cell(1)
    lab.edit(5, "rows = [1, 2]\ntime.sleep(0.5)\nlong = sum(rows)")
    lab.run_cell(5)
    board = lab.cell(1).locator(".jp-OutputArea")
    lab.page.wait_for_function("() => document.querySelector('.jp-OutputArea table')?.innerText.includes('executed')")
    assert "rows = [1, 2]" in board.inner_text()
    lab.save()
    outputs: list[Any] = json.loads((lab.bench.root / "report.ipynb").read_text())["cells"][1]["outputs"]
    assert [sorted(output["data"]) for output in outputs] == [["text/html", "text/plain"]]
    assert "rows = [1, 2]" in "".join(outputs[0]["data"]["text/plain"])
    assert not lab.errors()


ORDERS = [
    "import durable_nb\nfrom durable_nb import context, durable_execution",
    """\
@durable_execution
def orders(event, context):
    context.step(lambda _: None, name="open")
    context.map([1, 2, 3], lambda inner, n, *_: inner.step(lambda _: n * n, name=f"pack {n}"), name="pack")
    context.parallel([lambda inner: inner.step(lambda _: "sent", name="send")], name="ship")""",
    "orders.run({}, name='order-1')",
    "squares = context.map([1, 2], lambda inner, n, *_: inner.step(lambda _: n * n, name=f'square {n}'), name='squares')",
    "%durable status",
    "%durable status order-1",
]


@only_lab
def test_children_of_a_cell_and_branches_of_a_handler_are_rows_of_the_board(lab: Lab) -> None:
    page = opened(lab, ORDERS)
    lab.run_all()
    page.wait_for_function("() => document.querySelectorAll('.jp-OutputArea table').length === 2")
    cells, handler = (page.locator(".jp-OutputArea table").nth(n).inner_text() for n in range(2))
    assert [cells.count(f"square {n}") for n in (1, 2)] == [1, 1]
    assert [name for name in ("open", "pack 1", "pack 2", "pack 3", "send") if name not in handler] == []
    scroll = "() => [...document.querySelectorAll('.jp-OutputArea table')].pop().parentElement.scrollIntoView()"
    page.evaluate(scroll)
    picture(lab, "board-handler-light")
    dark(lab)
    page.evaluate(scroll)
    picture(lab, "board-handler-dark")
    assert not lab.errors()


@lab_first
def test_an_unmarked_cell_that_waits_shows_a_widget_while_it_does(lab: Lab) -> None:
    cells = ["from durable_nb import context", "context.wait(600, name='cool down')\nwarm = len('yes')", "warm + 1"]
    page = opened(lab, cells)
    lab.command("notebook:run-all-cells", wait=False)
    page.wait_for_selector(".durable-nb-button[data-kind=go]")
    assert "waiting: cool down" in page.inner_text(STEP)
    wait_states(lab, None, "waiting", None)
    # A notebook that is saved now, and never again because its kernel dies, reads well.
    lab.save()
    saved = (lab.bench.root / "report.ipynb").read_text()
    assert "widget-view" not in saved
    assert "Durable step context.wait(600, name='cool down'): waits." in saved
    page.wait_for_selector(STEP)
    picture(lab, f"waiting-{lab.app}")
    press(lab, "go")
    lab.wait_done()
    page.wait_for_selector(STEP, state="detached")
    wait_states(lab, None, "durable", "durable")
    assert not lab.errors()


@only_lab
def test_a_press_that_the_kernel_cannot_take_is_said_to_wait(lab: Lab) -> None:
    """As when C code holds the interpreter: no thread of the kernel sees the press."""
    page = opened(lab, ["import time", "%%durable_step held\ntime.sleep(600)"])
    lab.command("notebook:run-all-cells", wait=False)
    page.wait_for_selector(".durable-nb-button[data-kind=cancel]")
    (pid,) = lab.kernel_pids()
    os.kill(pid, signal.SIGSTOP)
    press(lab, "cancel")
    page.wait_for_function(
        "() => document.querySelector('.durable-nb-status')?.textContent.startsWith('no answer yet')"
    )
    os.kill(pid, signal.SIGCONT)
    lab.wait_done()
    assert [output["ename"] for output in lab.cells()[1]["outputs"] if "ename" in output] == ["KeyboardInterrupt"]
    assert not lab.errors()


@only_lab
def test_a_page_by_nbconvert_asks_the_network_for_nothing_of_ours(lab: Lab) -> None:
    """With the network cut: what a page with our outputs asks for is what the same page asks for without them."""
    page = opened(lab, [*CELLS, "%durable status"])
    (lab.bench.root / "tries").write_text("xx")
    lab.run_all()
    lab.save()
    page.goto("about:blank")
    for cell in (book := json.loads((lab.bench.root / "report.ipynb").read_text()))["cells"]:
        cell["outputs"] = []
    (lab.bench.root / "bare.ipynb").write_text(json.dumps(book))
    ours, bare = exported(lab.bench, "report.ipynb", "bare.ipynb")
    assert "widget-view" not in ours.read_text()
    bare_asks = offline(lab, bare)
    assert offline(lab, ours) == bare_asks
    assert FINAL in page.inner_text("body")
    assert "executed" in page.inner_text("table >> nth=-1")
    picture(lab, "exported")


def offline(lab: Lab, html: Path) -> list[str]:
    """The addresses that a page asks for in vain."""
    asked: list[str] = []

    def refuse(route: Any) -> None:
        asked.append(route.request.url)
        route.abort()

    lab.page.route("http*://**", refuse)
    lab.page.goto(html.as_uri(), wait_until="load")
    lab.page.unroute("http*://**", refuse)
    return sorted(asked)


@pytest.mark.soak
@only_lab
def test_pictures_of_the_board(lab: Lab) -> None:
    """A longer notebook, part of which was run before, in light and dark."""
    cells = [
        "import time\nimport numpy as np\nimport durable_nb",
        "raw = np.random.default_rng(1).normal(size=200_000)\ntime.sleep(1.2)",
        "clean = raw[abs(raw) < 3]\ntime.sleep(0.8)",
        "# durable: name=upload max-attempts=4 initial-delay=300ms jitter=none retry-on=ConnectionError\n"
        "from pathlib import Path\ntries = Path('t').read_text() if Path('t').exists() else ''\n"
        "Path('t').write_text(tries + 'x')\ntime.sleep(0.3)\n"
        "if len(tries) < 2:\n    raise ConnectionError('503')",
        "parts = [durable_nb.context.step(lambda _: n * n, name=f'part {n}') for n in range(3)]\ntime.sleep(0.6)",
        "stream = (n for n in range(3))",
        "model = clean.mean(), clean.std()\ntime.sleep(0.7)\nmodel",
        "%durable status",
    ]
    opened(lab, cells, "board.ipynb")
    lab.run_all()
    lab.edit(6, cells[6].replace("clean.std()", "clean.var()"))
    lab.restart()
    lab.run_all()
    table = lab.page.locator(".jp-OutputArea table")
    table.scroll_into_view_if_needed()
    text = table.inner_text()
    assert "replayed" in text
    assert "part 2" in text
    table.locator("summary").nth(2).click()
    lab.page.evaluate("() => document.querySelector('.jp-OutputArea table').parentElement.scrollIntoView()")
    picture(lab, "board-light")
    dark(lab)
    lab.page.evaluate("() => document.querySelector('.jp-OutputArea table').parentElement.scrollIntoView()")
    picture(lab, "board-dark")
    assert not lab.errors()
