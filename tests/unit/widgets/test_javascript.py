"""The JavaScript that is shipped: its unit tests and its types, by node's own runner and by tsc."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import durable_nb

ROOT = Path(__file__).parents[3]
WORKSPACE = ROOT / "widgets"
LABEXTENSION = ROOT / "durable_nb/widgets/labextension"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
needs_tsc = pytest.mark.skipif(
    not (WORKSPACE / "node_modules/typescript").exists(),
    reason="typescript is not installed: npm ci in widgets/ (make test does it where npm is there)",
)


def run(*words: str) -> None:
    done = subprocess.run(words, cwd=WORKSPACE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@needs_node
def test_the_unit_tests_pass() -> None:
    run("node", "--test", *(str(path) for path in sorted(WORKSPACE.glob("tests/*.test.js"))))


@needs_node
@needs_tsc
def test_the_types_in_comments_hold() -> None:
    run("node", "node_modules/typescript/bin/tsc", "--project", ".")


SHIPPED = [path for path in sorted((ROOT / "durable_nb/widgets").rglob("*")) if path.suffix in (".js", ".css")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert "innerHTML" not in text


def test_the_front_end_part_has_the_version_of_the_package() -> None:
    described = json.loads((LABEXTENSION / "package.json").read_text(encoding="utf-8"))
    assert described["version"] == durable_nb.__version__
    load = LABEXTENSION / described["jupyterlab"]["_build"]["load"]
    assert load.is_file()
