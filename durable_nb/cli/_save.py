"""Notebooks from and to disk: read with one clear complaint, written so that a kill leaves the old or the new file."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from durable_nb.cli._exit import Complaint

__all__ = ["clear_outputs", "read_notebook", "write_notebook"]


def read_notebook(path: Path) -> NotebookNode:
    """The notebook in format 4, or a `Complaint` that says what is wrong with the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Complaint(f"there is no notebook {path}") from None
    except IsADirectoryError:
        raise Complaint(f"{path} is a folder, not a notebook") from None
    except UnicodeDecodeError:
        raise Complaint(f"{path} is not a notebook: it is not UTF-8 text") from None
    except OSError as exc:
        raise Complaint(f"cannot read {path}: {exc.strerror}") from exc
    try:
        document = json.loads(text)
    except ValueError as exc:
        raise Complaint(f"{path} is not a notebook: it is not JSON ({exc})") from None
    if not isinstance(document, dict) or "nbformat" not in document or not isinstance(document.get("cells", []), list):
        raise Complaint(f"{path} is not a notebook: it has no nbformat and cells")
    try:
        book: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(book)
    except nbformat.ValidationError as exc:
        raise Complaint(f"{path} is not a valid notebook: {exc.message}") from None
    except Exception as exc:  # conversions of old formats fail in their own ways, all of them the file's fault
        raise Complaint(f"{path} cannot be read as a notebook of format 4: {exc}") from exc
    return book


def write_notebook(book: NotebookNode, path: Path) -> None:
    """Replace `path` in one step; the bytes are on disk when this returns."""
    # The plain writer: validation at every cell would cost more than the write.
    text = str(nbformat.v4.writes(book))  # type: ignore[no-untyped-call]
    if not text.endswith("\n"):
        text += "\n"
    # In the same folder, since a rename does not cross file systems; hidden, so that no listing shows it as a notebook.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(_mode_of(path))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def clear_outputs(book: NotebookNode) -> None:
    """Leave only this run's outputs in a new file: a half-finished one must not look complete."""
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def _mode_of(path: Path) -> int:
    """Permissions for the new file: those of the one it replaces, else what the umask gives."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
