"""`pytest --durable`: notebooks as tests.

Every code cell is a test: it is run in the notebook's kernel, after the cells before it, and what it shows is compared
with the outputs that the file holds. In the durable kernel unchanged cells are replayed, so an unchanged notebook costs
seconds; the summary says how many cells were, and what that saved.

The comparison forgives what an author would forgive: numbers in text within a tolerance, figures that look the same,
addresses of objects, how a stream was cut into pieces. It takes nbval's markers and tags. `--durable-update` accepts
what the run gave and writes it into the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from durable_nb.exceptions import DurableExecutionsError
from durable_nb.testing._notebook_outputs import Tolerance, differences

__all__ = [
    "CellFailure",
    "CellItem",
    "NotebookFile",
    "add_options",
    "collect",
    "summarize",
]

_MARKS = re.compile(r"^[ \t]*#[ \t]*(?:NBVAL_|PYTEST_VALIDATE_)([A-Z_]+)[ \t]*:?[ \t]*(.*)$", re.MULTILINE)
_PROPERTY = "durable_nb"


def add_options(parser: pytest.Parser) -> None:
    """`--durable`, `--durable-update`, and what `pyproject.toml` may set."""
    group = parser.getgroup("durable", "notebooks as tests (durable_nb)")
    group.addoption("--durable", action="store_true", help="collect notebooks; every code cell is a test")
    group.addoption(
        "--durable-update", action="store_true", help="accept what the cells show, and write it into the notebooks"
    )
    group.addoption("--durable-kernel", metavar="NAME", help="the kernel to use instead of the notebook's own")
    parser.addini("durable_rtol", "numbers in text may differ by this share", default="0")
    parser.addini("durable_atol", "numbers in text may differ by this much", default="0")
    parser.addini("durable_figures", "figures may differ by this much, 0 to 1", default="0.01")
    parser.addini("durable_timeout", "seconds that a cell may take; empty for no limit", default="")


def collect(file_path: Path, parent: pytest.Collector) -> NotebookFile | None:
    """The collector of a notebook, when notebooks are asked for."""
    if not parent.config.getoption("--durable") or file_path.suffix != ".ipynb":
        return None
    if ".ipynb_checkpoints" in file_path.parts:
        return None
    found: NotebookFile = NotebookFile.from_parent(parent, path=file_path)
    return found


class CellFailure(DurableExecutionsError):  # noqa: N818 - what the person who runs the tests reads, not a fault
    """Raised when a cell shows something else than its notebook holds, or fails."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(tuple(lines))
        self.lines = tuple(lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class NotebookFile(pytest.File):
    """One notebook, and the kernel that its cells share."""

    def collect(self) -> Iterator[CellItem]:
        """A test for each code cell that has something in it."""
        import nbformat

        self._book = nbformat.read(self.path, as_version=4)  # type: ignore[no-untyped-call]
        self._kernel: Any = None
        self._changed = False
        self.ran: dict[int, Mapping[str, Any]] = {}
        """What became of the cells that have run."""
        self.broken: str | None = None
        number = 0
        for index, cell in enumerate(self._book.cells):
            if cell.cell_type == "code" and cell.source.strip():
                number += 1
                yield CellItem.from_parent(self, name=_name(number, cell), index=index, cell=cell)

    def run_to(self, index: int) -> Mapping[str, Any]:
        """Run the cells up to this one that have not run yet; what became of this one."""
        if self._kernel is None:
            self._start()
        for before in range(index + 1):
            cell = self._book.cells[before]
            if before not in self.ran and cell.cell_type == "code" and not _skips(cell):
                self.ran[before] = self._run(before)
        return self.ran.get(index, {})

    def accept(self, index: int, outputs: list[Any]) -> None:
        """These outputs are the notebook's from now on."""
        self._book.cells[index].outputs = outputs
        self._changed = True

    def _start(self) -> None:
        from durable_nb.testing._notebook_kernel import NotebookKernel

        timeout = str(self.config.getini("durable_timeout"))
        self._kernel = NotebookKernel(
            self._book,
            self.path,
            kernel=self.config.getoption("--durable-kernel"),
            timeout=float(timeout) if timeout else None,
        )
        self._kernel.start()

    def _run(self, index: int) -> Mapping[str, Any]:
        if self.broken is not None:
            pytest.skip(self.broken)
        ran: Mapping[str, Any] = self._kernel.run(index)
        if ran["error"] is not None and not _raises(self._book.cells[index]):
            self.broken = f"not run, since {_label(self._book.cells[index])!r} failed before it"
        return ran

    def teardown(self) -> None:
        """End the kernel, and write the notebook when something was accepted."""
        kernel, self._kernel = getattr(self, "_kernel", None), None
        if kernel is not None:
            kernel.stop()
        if getattr(self, "_changed", False):
            import nbformat

            nbformat.write(self._book, self.path)  # type: ignore[no-untyped-call]
            self._changed = False


class CellItem(pytest.Item):
    """One cell."""

    def __init__(self, *, index: int, cell: Any, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._index, self._cell = index, cell
        if _skips(cell):
            self.add_marker(pytest.mark.skip(reason="the cell says so"))

    @property
    def _file(self) -> NotebookFile:
        assert isinstance(self.parent, NotebookFile)
        return self.parent

    def runtest(self) -> None:
        """Run the cell and compare.

        Raises:
            CellFailure: it failed, or shows something else than the notebook holds.
        """
        expected = list(self._cell.outputs)
        ran = self._file.run_to(self._index)
        self.user_properties.append((_PROPERTY, {**ran["report"], "wall": ran["wall"], "label": _label(self._cell)}))
        error = ran["error"]
        if error is not None and not _raises(self._cell):
            raise CellFailure([f"{error['ename']}: {error['evalue']}", *error["traceback"]])
        if error is None and _raises(self._cell):
            raise CellFailure(["the cell was to raise an exception, and did not"])
        if _ignores(self._cell):
            return
        found = differences(expected, ran["outputs"], self._tolerance())
        if not found:
            return
        if self.config.getoption("--durable-update"):
            self._file.accept(self._index, ran["outputs"])
            return
        raise CellFailure(found)

    def _tolerance(self) -> Tolerance:
        ini = self.config.getini
        return Tolerance(
            relative=float(ini("durable_rtol")),
            absolute=float(ini("durable_atol")),
            figures=float(ini("durable_figures")),
        )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The cell's source, and what differs."""
        if isinstance(excinfo.value, CellFailure):
            source = "\n".join(f"    {line}" for line in self._cell.source.splitlines())
            return f"{source}\n\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the test is."""
        return self.path, self._index, f"{self.path.name}: {self.name}"


def summarize(reporter: Any) -> None:
    """How many cells were replayed, and the slowest ones that ran."""
    found = [
        (report.nodeid.partition("::")[0], dict(value))
        for reports in reporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if not found:
        return
    reporter.section("durable notebooks", sep="-")
    for path in dict.fromkeys(path for path, _ in found):
        cells = [cell for each, cell in found if each == path]
        hits = sum(cell.get("status") == "replayed" for cell in cells)
        saved = sum(cell.get("saved_seconds", 0.0) for cell in cells)
        wall = sum(cell["wall"] for cell in cells)
        reporter.write_line(f"{path}: {len(cells)} cells in {wall:.1f} s, {hits} replayed ({saved:.1f} s saved)")
    slow = sorted((item for item in found if item[1].get("status") != "replayed"), key=lambda item: -item[1]["wall"])
    for path, cell in slow[:5]:
        if cell["wall"] >= 0.1:
            why = f"  because {cell['reason']}" if cell.get("reason") else ""
            reporter.write_line(f"  {cell['wall']:6.1f} s  {Path(path).name}: {cell['label']}{why}")


# --- what a cell says of itself, in nbval's words ---------------------------------------------------------------------


def _marks(cell: Any) -> dict[str, str]:
    found = {name: text.strip() for name, text in _MARKS.findall(cell.source)}
    for tag in cell.metadata.get("tags", []):
        text = str(tag).replace("-", "_").upper()
        if text == "RAISES_EXCEPTION" or text.startswith("NBVAL_"):
            found.setdefault(text.removeprefix("NBVAL_"), "")
    return found


def _skips(cell: Any) -> bool:
    return "SKIP" in _marks(cell)


def _raises(cell: Any) -> bool:
    return "RAISES_EXCEPTION" in _marks(cell)


def _ignores(cell: Any) -> bool:
    return "IGNORE_OUTPUT" in _marks(cell)


def _label(cell: Any) -> str:
    source = str(cell.source)
    lines = (line.strip() for line in source.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), source.strip())
    return first if len(first) <= 60 else first[:59] + "…"


def _name(number: int, cell: Any) -> str:
    return _marks(cell).get("TEST_NAME") or f"cell {number}: {_label(cell)}"
