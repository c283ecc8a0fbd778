"""Other people's runners over the same notebook and store: papermill, `jupyter execute`, nbval, `durable-nb run`.

Each starts a process of its own, as a user would, and returns the executed notebook (or nbval's verdict). The
environment is the bench's: the runner finds this environment's kernelspecs and no settings of whoever runs the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.notebook.harness import LIMIT, Bench
from tests.notebook.outputs import stream_text


@dataclass
class Ran:
    """How a runner ended and the notebook it wrote (None when it wrote none)."""

    code: int
    stdout: str
    stderr: str
    notebook: dict[str, Any] | None

    def outputs(self) -> list[list[dict[str, Any]]]:
        """Of the code cells, with stream texts joined into one string, as the protocol has them."""
        if self.notebook is None:
            raise AssertionError(f"no notebook was written (exit {self.code})\n{self.stdout}\n{self.stderr}")
        cells = [cell for cell in self.notebook["cells"] if cell["cell_type"] == "code"]
        return [[_joined(output) for output in cell["outputs"]] for cell in cells]

    def texts(self) -> list[str]:
        """What each code cell wrote to stdout."""
        return [stream_text(outputs, "stdout") for outputs in self.outputs()]


def _joined(output: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(output)
    if isinstance(found.get("text"), list):
        found["text"] = "".join(found["text"])
    if "data" in found:
        found["data"] = {k: "".join(v) if isinstance(v, list) else v for k, v in found["data"].items()}
    return found


def _run(
    bench: Bench,
    argv: Sequence[str],
    *,
    out: Path | None,
    cwd: Path | None,
    env: Mapping[str, str | None] | None,
    limit: float = LIMIT,
) -> Ran:
    # The runner's python is first on PATH, for kernels and tools that it starts by name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=cwd or bench.root,
        env=bench.environment(**{"PATH": path, **dict(env or {})}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    book = json.loads(out.read_text(encoding="utf-8")) if out is not None and out.exists() else None
    return Ran(done.returncode, done.stdout, done.stderr, book)


def papermill(
    bench: Bench,
    notebook: Path,
    *,
    kernel: str = "durable_nb",
    parameters: Mapping[str, object] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
) -> Ran:
    """`papermill IN OUT`. The kernel's folder is the caller's, not the notebook's."""
    out = bench.private / f"papermill-{notebook.name}"
    given = [part for key, value in (parameters or {}).items() for part in ("-p", key, str(value))]
    argv = ["-m", "papermill", str(notebook), str(out), "-k", kernel, "--no-progress-bar", *given]
    return _run(bench, argv, out=out, cwd=cwd, env=env)


def jupyter_execute(
    bench: Bench,
    notebook: Path,
    *,
    kernel: str = "durable_nb",
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
) -> Ran:
    """`jupyter execute`, as nbclient's own command does it."""
    out = bench.private / f"execute-{notebook.name}"
    argv = [str(Path(sys.executable).with_name("jupyter-execute")), str(notebook)]
    argv += [f"--output={out}", f"--kernel_name={kernel}"]
    return _run(bench, argv, out=out, cwd=cwd, env=env)


def nbval(
    bench: Bench,
    notebook: Path,
    *,
    kernel: str = "durable_nb",
    lax: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    limit: float = LIMIT,
) -> Ran:
    """`pytest --nbval` over a notebook or a folder: code 0 when every cell gave the outputs that the notebook holds."""
    return _run(bench, nbval_command(bench, notebook, kernel, lax=lax), out=None, cwd=cwd, env=env, limit=limit)


def nbval_command(bench: Bench, notebook: Path, kernel: str = "durable_nb", *, lax: bool = False) -> list[str]:
    """What `nbval` runs, after the name of the interpreter."""
    mode = "--nbval-lax" if lax else "--nbval"
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:benchmark", f"--rootdir={bench.root}"]
    return ["-m", "pytest", mode, f"--nbval-kernel-name={kernel}", *options, str(notebook)]


def durable_nb(
    bench: Bench,
    *arguments: str,
    out: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
) -> Ran:
    """The project's own command line, with the notebook it was told to write."""
    return _run(bench, ["-m", "durable_nb.cli", *arguments], out=out, cwd=cwd, env=env)
