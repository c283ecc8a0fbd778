"""Replayed values wait until something can reach them; whoever looks finds them in place, whatever way it looks.

A module of the test's own in each kernel notes which names were loaded, and every read of a blob.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.notebook.harness import Bench, Kernel, run_all

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]

SPY = """
import os
from durable_nb.snapshot import FileBlobStore, Tracker

log = os.open(os.environ["SPY_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
load, get, view = Tracker.materialise, FileBlobStore.get, FileBlobStore.map


def note(line):
    os.write(log, (line + chr(10)).encode())


def materialise(self, names):
    bound = load(self, names)
    for name in bound:
        note("load " + name)
    return bound


def read(self, address):
    note("read " + address)
    return get(self, address)


def mapped(self, address):
    note("read " + address)
    return view(self, address)


Tracker.materialise, FileBlobStore.get, FileBlobStore.map = materialise, read, mapped
"""

HUB = """
calls = []


def register(call):
    calls.append(call)


def fire():
    return [call() for call in calls]
"""

CELLS = [
    "import spy",
    "import numpy as np, pandas as pd",
    "a = np.arange(100_000.0)",
    "b = {'k': list(range(20_000))}",
    "frame = pd.DataFrame({'x': np.arange(20_000)})",
    "limit = max(3, 19_990)",
    "word = '-'.join(['limit', 'x'])[:5]",
    "pair = [b['k']]; other = {'one': pair}",
]
NAMES = {"a", "b", "frame", "limit", "word", "pair", "other"}
GROUP = {"b", "pair", "other"}


class Spied:
    """A store with one completed run of the cells, and kernels that resume it."""

    def __init__(self, bench: Bench, log: Path) -> None:
        self.bench, self.log = bench, log
        self.before: list[str] = []

    def resumed(self, kernel: Kernel, cells: list[str] | None = None) -> Kernel:
        """Replay the cells; what is noted until then is kept apart."""
        self.log.write_text("")
        for number, source in enumerate(cells or CELLS):
            result = kernel.run(source, cell_id=f"cell-{number}").expect_ok()
            assert result.verdict in ("replayed", "declared"), (source, result.durable)
        self.before = self.lines()
        self.log.write_text("")
        return kernel

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def loaded(self) -> set[str]:
        return {line.partition(" ")[2] for line in self.lines() if line.startswith("load ")}


def made(bench: Bench, log: Path, cells: list[str] | None = None) -> Spied:
    bench.env["SPY_LOG"] = str(log)
    log.touch()
    bench.write("spy.py", SPY)
    bench.write("hub.py", HUB)
    bench.write("shout.py", "print('shout', limit)\n")
    run = run_all(bench, cells or CELLS, kill_after=len(cells or CELLS) - 1)
    assert all(cell.status == "ok" for cell in run.cells)
    return Spied(bench, log)


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> Spied:
    folder = tmp_path_factory.mktemp("waiting")
    return made(Bench(folder / "work"), folder / "log")


def test_a_replay_reads_no_blob_and_loads_nothing(spied: Spied) -> None:
    with Kernel(spied.bench) as kernel:
        spied.resumed(kernel)
        assert spied.before == []


NARROW: list[tuple[str, str, set[str]]] = [
    ("print(a[1])", "1.0", {"a"}),
    ("def f():\n    return g()\ndef g():\n    return LIMIT\nprint(f())", "19990", {"LIMIT"}),
    ("print(len(frame.query('x > @LIMIT')))", "9", {"frame", "LIMIT"}),
    ("print(pd.eval('LIMIT + 1'))", "19991", {"LIMIT"}),
    ("!echo $LIMIT", "19990", {"LIMIT"}),
    ("!echo {LIMIT + 1}", "19991", {"LIMIT"}),
    ("%timeit -n1 -r1 print(LIMIT)", "19990", {"LIMIT"}),
    ("%%capture out\nprint(LIMIT)", "", {"LIMIT"}),
    ("print(f'{LIMIT:,}')", "19,990", {"LIMIT"}),
    ("try:\n    LIMIT\nexcept NameError:\n    print('lost')\nelse:\n    print('there')", "there", {"LIMIT"}),
    ("import os\npid = os.fork()\nif not pid:\n    os._exit(LIMIT % 100)\n"
     "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))", "90", {"LIMIT"}),
    ("import asyncio\nawait asyncio.sleep(0)\nprint(LIMIT)", "19990", {"LIMIT"}),
    ("del LIMIT; print('deleted')", "deleted", {"LIMIT"}),
    ("other = 1; print(b['k'] is pair[0])", "True", GROUP),
    ("import pickle\nprint(len(pickle.loads(pickle.dumps(b))['k']))", "20000", set()),
]  # fmt: skip
"""Cells, what they print, and what is loaded for them; `LIMIT` stands for a name of each one's own."""


def test_a_cell_that_runs_has_what_it_can_reach_loaded_and_no_more(bench: Bench, tmp_path: Path) -> None:
    cells = [*CELLS, *(f"limit{number} = max(3, 19_990)" for number in range(len(NARROW)))]
    spied = made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        spied.resumed(kernel, cells)
        for number, (source, printed, names) in enumerate(NARROW):
            own = f"limit{number}"
            spied.log.write_text("")
            result = kernel.run(source.replace("LIMIT", own)).expect_ok()
            assert result.verdict in ("executed", "not_durable"), result.durable
            assert printed in result.stdout.replace("\r", ""), source
            assert spied.loaded() == {name.replace("LIMIT", own) for name in names}, source


WIDE: list[tuple[str, str]] = [
    ("text = 'x > @limit'\nprint(len(frame.query(text)))", "9"),
    ("exec('print(limit)')", "19990"),
    ("print(globals()[word])", "19990"),
    ("print('limit' in vars(), 'a' in dir())", "True True"),
    ("import __main__; print(__main__.limit)", "19990"),
    ("import sys; print(getattr(sys.modules['__main__'], word))", "19990"),
    ("print(get_ipython().user_ns['limit'])", "19990"),
    ("import inspect; print(inspect.currentframe().f_globals[word])", "19990"),
    ("%who_ls", ""),
    ("%run -i shout.py", "shout 19990"),
    ("print([n for n in list(globals()) if n in ('a', 'b', 'frame', 'limit', 'word', 'pair', 'other')])",
     "['a', 'b', 'frame', 'limit', 'word', 'pair', 'other']"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "printed"), WIDE, ids=[way[0].splitlines()[-1][:40] for way in WIDE])
def test_a_cell_that_may_read_everything_finds_everything(spied: Spied, source: str, printed: str) -> None:
    with Kernel(spied.bench) as kernel:
        spied.resumed(kernel)
        result = kernel.run(source).expect_ok()
        assert result.verdict in ("executed", "declared", "not_durable"), result.durable
        assert printed in result.stdout
        assert spied.loaded() == NAMES


def _complete(kernel: Kernel, text: str) -> list[str]:
    return list(kernel.request("complete_request", {"code": text, "cursor_pos": len(text)})["matches"])


def _inspect(kernel: Kernel, text: str) -> str:
    found = kernel.request("inspect_request", {"code": text, "cursor_pos": len(text), "detail_level": 0})
    return str(found["data"].get("text/plain", ""))


def _expressions(kernel: Kernel) -> str:
    pending = kernel.execute("pass", user_expressions={"v": "limit"})
    pending.result().expect_ok()
    assert pending.reply is not None
    return str(pending.reply["content"]["user_expressions"]["v"]["data"]["text/plain"])


def _subshell(kernel: Kernel) -> str:
    number = kernel.request("create_subshell_request", control=True)["subshell_id"]
    return kernel.execute("print(limit)", subshell=number).result().stdout


def _variables(kernel: Kernel) -> str:
    asked = {"type": "request", "seq": 1, "command": "inspectVariables", "arguments": {}}
    return str(kernel.request("debug_request", asked, control=True)["body"]["variables"])


MESSAGES: list[tuple[str, Callable[[Kernel], object], str, set[str]]] = [
    ("complete-name", lambda kernel: _complete(kernel, "fra"), "frame", {"frame"}),
    ("complete-attribute", lambda kernel: _complete(kernel, "frame.quer"), "query", {"frame"}),
    ("complete-nothing", lambda kernel: _complete(kernel, ""), "limit", NAMES),
    ("inspect", lambda kernel: _inspect(kernel, "limit"), "19990", {"limit"}),
    ("silent", lambda kernel: kernel.run("print(limit)", silent=True).status, "ok", NAMES),
    ("silent-expression", lambda kernel: kernel.value("limit"), "19990", NAMES),
    ("user-expressions", _expressions, "19990", NAMES),
    ("subshell", _subshell, "19990", NAMES),
    ("variables", _variables, "limit", NAMES),
]


@pytest.mark.parametrize(("ask", "answer", "names"), [m[1:] for m in MESSAGES], ids=[m[0] for m in MESSAGES])
def test_a_message_that_reads_finds_what_it_means(
    spied: Spied, ask: Callable[[Kernel], object], answer: str, names: set[str]
) -> None:
    with Kernel(spied.bench) as kernel:
        spied.resumed(kernel)
        assert answer in str(ask(kernel))
        assert spied.loaded() == names


LATER: dict[str, list[str]] = {
    "a function that was declared before": [
        "def late():\n    return limit",
        "# durable: always\nhub.register(late)",
    ],
    "a restored function": [
        "made = [lambda: limit]",
        "# durable: always\nhub.register(made[0])",
    ],
    "a restored method": [
        "class Held:\n    def __init__(self):\n        self.times = 1\n    def ask(self):\n        return self.times * limit",
        "held = Held()",
        "# durable: always\nhub.register(held.ask)",
    ],
    "a text": [
        "import timeit",
        "# durable: always\nhub.register(eval('lambda: limit'))",
    ],
}


@pytest.mark.parametrize("way", LATER)
def test_code_that_nobody_sees_run_finds_what_it_asks_for(bench: Bench, tmp_path: Path, way: str) -> None:
    """A library calls what an earlier cell registered; the name it reads was replayed after that."""
    cells = [
        "import spy, hub",
        *LATER[way],
        "limit = max(3, 19_990)",
        "rest = [0] * 20_000",
        "# durable: always\nprint(hub.fire())",
    ]
    spied = made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        spied.log.write_text("")
        results = [kernel.run(source).expect_ok() for source in cells]
        assert results[-3].verdict == results[-2].verdict == "replayed"
        assert results[-1].stdout == "[19990]\n"


def test_a_callback_of_ipython_finds_what_is_replayed_later(bench: Bench, tmp_path: Path) -> None:
    cells = [
        "import spy",
        "# durable: always\nget_ipython().events.register('post_run_cell', lambda result: print('seen', globals().get('lim' + 'it')))",
        "limit = max(3, 19_990)",
    ]
    made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        results = [kernel.run(source).expect_ok() for source in cells]
        assert results[-1].verdict == "replayed"
        assert "seen 19990" in results[-1].stdout


def test_a_thread_finds_what_is_replayed_later(bench: Bench, tmp_path: Path) -> None:
    cells = [
        "import spy, threading, queue",
        "# durable: always\nasked, told = queue.Queue(), queue.Queue()\n"
        "def answer():\n    while (text := asked.get()):\n        told.put(eval(text))\n"
        "thread = threading.Thread(target=answer, daemon=True); thread.start()",
        "limit = max(3, 19_990)",
        "# durable: always\nasked.put('lim' + 'it'); print(told.get(timeout=60))",
    ]
    made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        results = [kernel.run(source).expect_ok() for source in cells]
        assert results[2].verdict == "replayed"
        assert results[-1].stdout == "19990\n"


def test_a_name_that_hides_a_builtin_or_a_magic_is_there_at_once(bench: Bench, tmp_path: Path) -> None:
    cells = ["import spy", "sum = [1] * 20_000", "config = {'a': list(range(20_000))}"]
    spied = made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        spied.resumed(kernel, cells)
        assert kernel.run("config").expect_ok().result is not None
        assert kernel.run("print(len(sum), len(config['a']))").stdout == "20000 20000\n"


def test_results_are_there_at_once(bench: Bench, tmp_path: Path) -> None:
    cells = ["import spy", "table = {'k': list(range(3))}", "table", "table['k'] + [9]"]
    spied = made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        spied.resumed(kernel, cells)
        seen = kernel.run("print(Out[3] is table, _3 is table, _, _4, __ is table)").expect_ok()
        assert seen.stdout == "True True [0, 1, 2, 9] [0, 1, 2, 9] True\n"


def blob_files(bench: Bench) -> Iterator[Path]:
    yield from bench.store.joinpath("blobs").glob("??/*")


def spoil(path: Path, *, quietly: bool) -> None:
    """Change a byte; quietly keeps the times, as a failing disk does."""
    status = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        byte = file.read(1)
        file.seek(status.st_size // 2)
        file.write(bytes([byte[0] ^ 255]))
    path.chmod(0o400)
    if quietly:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_blob_that_was_touched_is_noticed_at_the_replay(bench: Bench, tmp_path: Path) -> None:
    cells = ["import spy", "b = {'k': list(range(20_000))}", "c = len(b['k'])"]
    made(bench, tmp_path / "log", cells)
    for path in blob_files(bench):
        spoil(path, quietly=False)
    with Kernel(bench) as kernel:
        verdicts = [kernel.run(source).expect_ok().verdict for source in cells]
        assert verdicts == ["declared", "executed", "replayed"]
        assert kernel.run("print(len(b['k']), c)").stdout == "20000 20000\n"


def test_a_blob_that_goes_after_the_replay_is_told_and_its_cell_runs_the_next_time(
    bench: Bench, tmp_path: Path
) -> None:
    cells = ["import spy", "b = {'k': list(range(20_000))}", "c = len(b['k'])"]
    spied = made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        spied.resumed(kernel, cells)
        for path in blob_files(bench):
            path.unlink()
        for _ in range(2):  # and again: it is never a silent nothing
            lost = kernel.run("print('ran'); b['k'][0]")
            assert (lost.status, lost.ename) == ("error", "LostValueError")
            assert lost.stdout == ""
            assert "b, which cell \"b = {'k'" in (lost.evalue or "")
            assert "again" in "\n".join(lost.traceback)
        assert kernel.run("print(c)").stdout == "20000\n"
        assert kernel.run(cells[1], cell_id="cell-1").verdict == "executed"  # the cure, and the end of it
        assert kernel.run("print(b['k'][7])").stdout == "7\n"
    with Kernel(bench) as kernel:
        verdicts = [kernel.run(source).expect_ok().verdict for source in cells]
        assert verdicts == ["declared", "replayed", "replayed"]


def test_a_lost_value_keeps_no_cell_from_running_that_does_not_need_it(bench: Bench, tmp_path: Path) -> None:
    cells = ["import spy", "def use():\n    return b['k'][7]", "b = {'k': list(range(20_000))}"]
    spied = made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        spied.resumed(kernel, cells)
        for path in blob_files(bench):
            path.unlink()
        assert kernel.run("use()").ename == "LostValueError"
        other = kernel.run("print('other')").expect_ok()
        assert other.stdout == "other\n"
        assert kernel.run(cells[2], cell_id="cell-2").expect_ok().verdict == "executed"
        assert kernel.run("print(use())").stdout == "7\n"


def test_the_next_run_all_makes_a_lost_value_again(bench: Bench, tmp_path: Path) -> None:
    cells = ["import spy", "b = {'k': list(range(20_000))}", "c = len(b['k'])"]
    spied = made(bench, tmp_path / "log", cells)
    kept = {path: path.read_bytes() for path in blob_files(bench)}
    with Kernel(bench) as kernel:
        spied.resumed(kernel, cells)
        for path in kept:
            path.unlink()
        assert kernel.run("b['k'][0]").ename == "LostValueError"
    with Kernel(bench) as kernel:
        verdicts = [kernel.run(source).expect_ok().verdict for source in cells]
        assert verdicts == ["declared", "executed", "replayed"]


def test_an_at_most_once_cell_is_given_back_at_once(bench: Bench, tmp_path: Path) -> None:
    cells = [
        "import spy",
        "# durable: name=pay at-most-once\nreceipt = {'k': list(range(20_000))}",
        "plain = [0] * 20_000",
    ]
    book = bench.notebook("pay.ipynb", cells)
    bench.env["SPY_LOG"] = str(tmp_path / "log")
    bench.write("spy.py", SPY)
    for verdicts in (["declared", "executed", "executed"], ["declared", "replayed", "replayed"]):
        (tmp_path / "log").write_text("")
        with Kernel(bench, notebook=book.name) as kernel:
            assert [kernel.run(source).expect_ok().verdict for source in cells] == verdicts
    assert [line[:4] for line in (tmp_path / "log").read_text().splitlines()].count("read") == 1


def test_edits_and_retries_read_what_was_replayed(bench: Bench, tmp_path: Path) -> None:
    cells = ["import spy", "b = [0] * 20_000", "n = len(b)"]
    spied = made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        spied.resumed(kernel, cells)
        again = (
            "# durable: max-attempts=3 initial-delay=0s\nimport os\nb.append(1); n += 1\n"
            "if not os.path.exists('tried'):\n    open('tried', 'w').close()\n    raise OSError\nprint(len(b), n)"
        )
        assert kernel.run(again).expect_ok().stdout == "20001 20001\n"


def test_collecting_and_leaving_the_store_keep_what_waits(bench: Bench, tmp_path: Path) -> None:
    cells = ["import spy", "b = [0] * 20_000", "d = [1] * 20_000"]
    spied = made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        spied.resumed(kernel, cells)
        kernel.run("%durable forget --all").expect_ok()
        kernel.run("%durable gc").expect_ok()
        assert kernel.run("print(len(b), len(d))").stdout == "20000 20000\n"
    spied = made(bench, tmp_path / "log", cells)
    with Kernel(bench) as kernel:
        spied.resumed(kernel, cells)
        kernel.run("%durable use elsewhere").expect_ok()
        assert kernel.run("print(len(b), len(d))").stdout == "20000 20000\n"
