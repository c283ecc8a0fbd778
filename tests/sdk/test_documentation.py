"""The code in the documentation runs."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module to run the blocks in, and a folder with nothing in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("DURABLE_NB_STORE", raising=False)
    module = types.ModuleType("documented")
    monkeypatch.setitem(sys.modules, "documented", module)
    return module


def run(code: str, module: types.ModuleType) -> None:
    exec(compile(code, "documentation", "exec"), vars(module))


def test_the_page_on_handlers_runs_from_top_to_bottom(elsewhere: types.ModuleType) -> None:
    found = blocks((ROOT / "docs" / "sdk.md").read_text(encoding="utf-8"))
    assert len(found) >= 6
    for code in found:
        run(code, elsewhere)


def test_the_readme_s_part_on_handlers_runs(elsewhere: types.ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts: list[Any] = [part for part in re.split(r"^## ", text, flags=re.MULTILINE) if "durable_execution" in part]
    assert parts, "the README has a part on handlers"
    for part in parts:
        for code in blocks(part):
            run(code, elsewhere)
