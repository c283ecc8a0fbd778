"""JupyterLab or Notebook 7 in a headless Chromium, for tests that must see what a person sees.

    with Lab(bench) as lab:                      # app="notebook" for Notebook 7
        lab.begin()                              # a folder of the test's own, lab.bench, and a new page
        lab.bench.notebook("demo.ipynb", ["1", "2"])
        lab.open("demo.ipynb")                   # the page is there and its kernel idle
        lab.run_all()
        assert lab.texts() == ["1\\n", "2\\n"]
        lab.restart()
        lab.shot("demo.png")

Tests may share one: each begins with a folder without a history, without kernels, and with a page that knows nothing.
The page is driven through the application object, not through menus. Needs Chromium (`CHROMIUM` names one that is not
on PATH) and the Python package playwright, not its own browser. Server, kernels and browser end with the `with` block.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from tests.notebook.harness import LIMIT, Bench
from tests.notebook.outputs import stream_text

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
]
# What a healthy page says all the same: a schema that Notebook 7 looks for, a language server that is not installed,
# and the debugger's question to a kernel that is being restarted.
NOISE = ("reading 'schema'", "/lsp/status", "restore the debugger state", "[anywidget] Failed to initialize model.")
# The last one is said of each model that is not ready within two seconds, or is closed before it is: a busy machine may
# take as long. That our widgets start is seen by the tests that press their buttons.

_PANEL = "window.jupyterapp.shell.currentWidget"
_IDLE = f"() => window.jupyterapp && {_PANEL}?.sessionContext?.session?.kernel?.status === 'idle'"
# The prompt says [*] from the moment a cell is queued, so this does not race with the kernel's busy and idle messages.
_DONE = f"""() => {{ const panel = {_PANEL};
    return window.durableTest.over && panel.sessionContext.session?.kernel?.status === 'idle'
        && [...panel.content.widgets].every(c => c.model.type !== 'code' || c.model.executionState !== 'running')
        && ![...document.querySelectorAll('.jp-InputPrompt')].some(e => e.textContent.includes('[*]')); }}"""

# The promise of the last command tells its end; those before it may never end, as when a kernel was killed.
_EXECUTE = """([name, args]) => {
    const token = window.durableTest = { over: false, error: null };
    window.jupyterapp.commands.execute(name, args)
        .catch(error => { token.error = String(error); }).finally(() => { token.over = true; }); }"""


def find_chromium() -> str | None:
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


class Lab:
    """A server over the bench's folder, a browser, and the page of one test."""

    def __init__(self, bench: Bench, *, app: Literal["lab", "notebook"] = "lab", width: int = 1280, height: int = 900):
        self._home, self.app = bench, app
        self.bench = bench
        self._tests = 0
        self._size = {"width": width, "height": height}
        self._token = secrets.token_hex(16)
        self._stack = ExitStack()
        self._log = bench.private / "server.log"
        self._theme = bench.private / "settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
        self.console: list[tuple[str, str]] = []
        self.problems: list[str] = []
        self.page: Any = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start_server(stack)
            self._start_browser(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    # --- server ---------------------------------------------------------------------------------------------------

    def _start_server(self, stack: ExitStack) -> None:
        private = self._home.private
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        news = private / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        news.parent.mkdir(parents=True, exist_ok=True)  # else a first start asks about news, over the cells
        news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        env = self._home.environment(
            JUPYTERLAB_WORKSPACES_DIR=str(private / "workspaces"),
            JUPYTERLAB_SETTINGS_DIR=str(private / "settings"),
            JUPYTER_NO_CONFIG="1",
        )
        application = "LabApp" if self.app == "lab" else "JupyterNotebookApp"
        argv = [
            *(sys.executable, "-m", "jupyterlab" if self.app == "lab" else "notebook"),
            *("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"),
            *("--ServerApp.port_retries=0", f"--IdentityProvider.token={self._token}"),
            *(f"--ServerApp.root_dir={self._home.root}", "--ServerApp.terminals_enabled=False"),
            f"--{application}.expose_app_in_browser=True",
        ]
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(argv, env=env, stdout=log, stderr=log, start_new_session=True)
        stack.callback(self._stop_server)
        deadline = time.monotonic() + LIMIT
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start\n{self._log.read_text()[-3000:]}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            self.api("/api/status")
        except OSError:
            return False
        return True

    def _stop_server(self) -> None:
        if self._server.poll() is None:
            try:
                self.api("/api/shutdown", method="POST")  # lets the server end its kernels
                self._server.wait(10)
            except (OSError, subprocess.TimeoutExpired):
                os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    def api(self, path: str, *, method: str = "GET") -> Any:
        """The server's own interface."""
        headers = {"Authorization": f"token {self._token}"}
        request = urllib.request.Request(self._url + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    # --- browser --------------------------------------------------------------------------------------------------

    def _start_browser(self, stack: ExitStack) -> None:
        from playwright.sync_api import sync_playwright

        chromium = find_chromium()
        assert chromium is not None, "no Chromium found: install it, or set CHROMIUM"
        driver = stack.enter_context(sync_playwright())
        context = driver.chromium.launch_persistent_context(
            str(self._home.private / "browser"),
            executable_path=chromium,
            headless=True,
            args=CHROMIUM_FLAGS,
            viewport=self._size,
        )
        stack.callback(context.close)
        self._context = context

    # --- one test -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A folder of its own and a new page for the next test."""
        self._tests += 1
        user = self._home.private  # the server's kernels and what a test runs beside them are one user's
        shared = {f"JUPYTER_{kind.upper()}_DIR": str(user / kind) for kind in ("data", "config", "runtime")}
        self.bench = Bench(self._home.root / f"test-{self._tests}", {**shared, "IPYTHONDIR": str(user / "ipython")})
        self._theme.unlink(missing_ok=True)
        self.page = self._new_page()

    def end(self) -> None:
        """Close the page and end the kernels."""
        self.page.close()
        self.stop_kernels()

    def stop_kernels(self) -> None:
        """End them, and wait for that."""
        for session in self.api("/api/sessions"):
            self.api(f"/api/sessions/{session['id']}", method="DELETE")

    def _new_page(self) -> Any:
        page = self._context.new_page()
        # Their own lists: what an old page still says is no matter of the next test.
        console, problems = self.console, self.problems = [], []
        page.set_default_timeout(LIMIT * 1000)
        page.on("console", lambda line: console.append((line.type, line.text)))
        page.on("pageerror", lambda error: problems.append(str(error)))

        def on_response(response: Any) -> None:
            if response.status >= 400:
                problems.append(f"{response.status} {response.url}")

        page.on("response", on_response)
        return page

    def errors(self) -> list[str]:
        """Errors of the page, known noise left out; a healthy page has none."""
        # "Failed to load resource" names no address: the responses are there instead.
        said = [text for kind, text in self.console if kind == "error" and not text.startswith("Failed to load")]
        return [text for text in (*said, *self.problems) if not any(noise in text for noise in NOISE)]

    def shot(self, path: str | Path, index: int | None = None) -> None:
        """A picture of the page, or of one cell."""
        (self.page if index is None else self.cell(index)).screenshot(path=str(path))

    # --- notebook -------------------------------------------------------------------------------------------------

    def open(self, name: str) -> None:
        """Open a notebook of the bench, and wait for its kernel."""
        stem, extra = ("/lab/tree/", "&reset") if self.app == "lab" else ("/notebooks/", "")
        path = quote(f"{self.bench.root.name}/{name}")
        self.page.goto(f"{self._url}{stem}{path}?token={self._token}{extra}")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.wait_for_function(_IDLE)

    def command(self, name: str, *, wait: bool = True, **args: Any) -> None:
        """A command of the application, such as `notebook:run-all-cells`; with `wait`, until it has ended."""
        self.page.evaluate(_EXECUTE, [name, args])
        if wait:
            self.page.wait_for_function("() => window.durableTest.over")
            error = self.page.evaluate("() => window.durableTest.error")
            assert error is None, f"{name}: {error}"

    def run_all(self, *, limit: float = LIMIT) -> None:
        """Run All, and wait for its end; `limit` in seconds, for work that is long by itself."""
        self.command("notebook:run-all-cells", wait=False)
        self.wait_done(limit)

    def run_cell(self, index: int) -> None:
        """Run one cell, and wait for its end."""
        self.page.evaluate(f"(i) => {{ {_PANEL}.content.activeCellIndex = i }}", index)
        self.command("notebook:run-cell", wait=False)
        self.wait_done()

    def wait_done(self, limit: float = LIMIT) -> None:
        """Until no cell is queued or running."""
        self.page.wait_for_function(_DONE, timeout=limit * 1000)

    def edit(self, index: int, source: str) -> None:
        """Replace a cell's source, as typing does."""
        self.page.evaluate(
            f"([i, text]) => {_PANEL}.content.widgets[i].model.sharedModel.setSource(text)", [index, source]
        )

    def restart(self) -> None:
        """A fresh kernel, without the dialogue."""
        self.page.evaluate(f"() => {_PANEL}.sessionContext.session.kernel.restart().then(() => null)")
        self.page.wait_for_function(_IDLE)

    def save(self) -> None:
        self.command("docmanager:save")

    def kernel_pids(self) -> list[int]:
        """Processes of the server's kernels, for a test that kills one."""
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self._server.pid)], capture_output=True, text=True
        )
        return [int(line.split()[0]) for line in listed.stdout.splitlines() if "durable_nb.notebook" in line]

    def cells(self) -> list[dict[str, Any]]:
        """The live notebook's cells, saved or not."""
        book = self.page.evaluate(f"() => {_PANEL}.content.model.toJSON()")
        return list(book["cells"])

    def texts(self) -> list[str]:
        """What each code cell wrote to stdout."""
        found = []
        for cell in self.cells():
            if cell["cell_type"] == "code":
                outputs = [{**o, "text": "".join(o["text"])} if "text" in o else o for o in cell["outputs"]]
                found.append(stream_text(outputs, "stdout"))
        return found

    def cell(self, index: int) -> Any:
        """Playwright's locator of a cell; JupyterLab draws only cells near the view, so it is scrolled to."""
        self.page.evaluate(
            f"(i) => {{ const book = {_PANEL}.content; book.activeCellIndex = i; book.scrollToItem?.(i) }}", index
        )
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"]')
