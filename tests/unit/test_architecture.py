"""The tree is the drawing: imports run one way, public names are listed, and importing the package costs little."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import durable_nb

ROOT = Path(durable_nb.__path__[0])

# Each row may import the rows above it and itself, never what stands beside it.
ROWS: tuple[tuple[str, ...], ...] = (
    ("exceptions", "events", "running", "amounts", "_ident", "_dataclass"),
    ("abc", "settings", "codecs"),
    ("sdk", "journal", "snapshot", "cells"),
    ("history", "runtime", "maintenance", "transfer", "foresight", "encryption"),
    ("widgets", "distributed", "testing"),
    ("notebook", "cli"),
)
ROW_OF = {package: number for number, row in enumerate(ROWS) for package in row}

# Said aloud in the design: these may use less than their row, or a neighbour.
ONLY: dict[str, set[str]] = {
    "history": {"_dataclass", "abc", "events"},
    "foresight": {"exceptions"},
    "widgets": {"_dataclass", "amounts", "history"},
    "distributed": {"abc", "exceptions", "runtime"},
}
BESIDE = {
    ("exceptions", "events"),
    ("events", "exceptions"),
    ("events", "_dataclass"),
    ("abc", "settings"),
    ("maintenance", "runtime"),
    ("maintenance", "encryption"),
    ("transfer", "runtime"),
    ("runtime", "encryption"),
}

HEAVY = {
    "IPython",
    "ipykernel",
    "ipywidgets",
    "anywidget",
    "numpy",
    "pandas",
    "matplotlib",
    "rich",
    "typer",
    "zmq",
    "sqlite3",
    "psycopg",
    "psycopg_pool",
    "cryptography",
    "keyring",
    "dask",
    "distributed",
}


def modules() -> Iterator[Path]:
    yield from sorted(ROOT.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def is_type_checking(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and package of each import of ours, imports for type checkers aside."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and is_type_checking(node):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "durable_nb":
            names = [f"durable_nb.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "durable_nb" and len(parts) > 1:
                yield node.lineno, parts[1]
        yield from imports(node)


def test_imports_run_one_way() -> None:
    wrong = []
    for path in modules():
        own = package_of(path)
        if own == "__init__":  # the public face loads everything, lazily
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line, other in imports(tree):
            if other == own or other not in ROW_OF or (own, other) in BESIDE:
                continue
            allowed = other in ONLY[own] if own in ONLY else ROW_OF[other] < ROW_OF[own]
            if not allowed:
                wrong.append(f"{path.relative_to(ROOT.parent)}:{line}: {own} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_every_package_has_its_row() -> None:
    found = {package_of(path) for path in modules()} - {"__init__"}
    assert found <= set(ROW_OF), f"no row of the drawing for {found - set(ROW_OF)}"


def public_modules() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages([str(ROOT)], "durable_nb.")]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


@pytest.mark.parametrize("name", public_modules())
def test_all_names_what_a_public_module_defines(name: str) -> None:
    """`__all__` exists, holds only what is there, and no public definition is left out of it."""
    path = Path(importlib.import_module(name).__file__ or "")
    listed = getattr(importlib.import_module(name), "__all__", None)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    public = {each for each in defined if not each.startswith("_")}
    if listed is None:
        assert path.name == "__init__.py" or name.count(".") == 1, f"{name} has no __all__"
        return
    module = importlib.import_module(name)
    assert len(set(listed)) == len(listed), f"{name}.__all__ names something twice"
    missing = [each for each in listed if not hasattr(module, each)]
    assert not missing, f"{name}.__all__ lists {missing}, which is not there"
    assert public <= set(listed), f"{name}.__all__ leaves out {sorted(public - set(listed))}"


def test_modules_stay_small_enough_to_read() -> None:
    long = {path.name: n for path in modules() if (n := len(path.read_text(encoding="utf-8").splitlines())) > 800}
    assert not long, f"a file of this length usually holds a second idea: {long}"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import json, sys, durable_nb; print(json.dumps([m.partition('.')[0] for m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout))


@pytest.mark.parametrize("package", ["cells", "snapshot"])
def test_what_runs_around_each_cell_tells_objects_apart_without_an_audit_event(package: str) -> None:
    """`id` calls the audit hook; `_ident.ident` does not. Only what reads memory needs true addresses."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name not in ("_sets.py", "_addresses.py", "_twister.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "id" and isinstance(node.ctx, ast.Load)
    ]
    assert not found
