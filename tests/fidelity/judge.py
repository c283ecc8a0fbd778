"""Equal, refused or wrong: two kernels' lives compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fidelity.nursery import Seen

_OURS = re.compile(r"^durable_nb: .*\n?", re.MULTILINE)
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_CELL_FILE = re.compile(r"/ipykernel_\d+/")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NOT_FILES = {"__pycache__", "notebook.ipynb", ".ipynb_checkpoints"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one kernel's life looked like from outside, in a form that another life can be compared with."""

    cells: list[dict[str, Any]]
    state: dict[str, dict[str, str]]
    probes: dict[str, str]
    files: dict[str, str]
    told: list[str]
    statuses: list[str]
    finished: bool
    log: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one mode of one case."""

    case: str
    mode: str
    detail: str
    verdict: str
    differences: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    needless: tuple[int, ...] = ()
    statuses: tuple[str, ...] = field(default=())


def outcome(seen: Seen, folder: Path) -> Outcome:
    """Steady text of what was seen in `folder`."""

    def steady(value: Any) -> Any:
        if isinstance(value, str):
            text = _ANSI.sub("", value).replace(str(folder), "<folder>")
            return _CELL_FILE.sub("/ipykernel/", _ADDRESS.sub("0x?", text))
        if isinstance(value, list):
            return [steady(item) for item in value]
        if isinstance(value, dict):
            return {key: steady(item) for key, item in value.items()}
        return value

    told: list[str] = []
    cells = []
    for cell in seen.cells:
        outputs = []
        for output in steady(cell["outputs"]):
            if output["output_type"] == "stream" and output["name"] == "stderr":
                told += [line.strip() for line in _OURS.findall(output["text"])]
                output["text"] = _OURS.sub("", output["text"])
                if not output["text"]:
                    continue
            outputs.append(output)
        cells.append(
            {
                **{key: steady(cell[key]) for key in ("source", "status", "count", "ename", "evalue")},
                "outputs": _merged(outputs),
            }
        )
        durable = cell["durable"]
        if durable.get("decision"):
            told.append(f"cell {cell['source'].splitlines()[0]!r}: {steady(durable.get('reason'))}")
    return Outcome(
        cells,
        steady(seen.state),
        steady(seen.probes),
        files_in(folder),
        told,
        seen.statuses,
        seen.finished,
        seen.log if seen.status not in (0, -9) else "",
    )


def _merged(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring texts of one stream as one: our own line between them has been taken away."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        last = found[-1] if found else None
        if last and output["output_type"] == last["output_type"] == "stream" and output["name"] == last["name"]:
            found[-1] = {**last, "text": last["text"] + output["text"]}
        else:
            found.append(output)
    return found


def files_in(folder: Path) -> dict[str, str]:
    """The files that a notebook's folder holds, and what is in them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _NOT_FILES & set(path.relative_to(folder).parts):
            found[str(path.relative_to(folder))] = (
                path.read_bytes().hex() if path.stat().st_size < 4096 else str(path.stat().st_size)
            )
    return found


def differences(
    plain: Outcome, durable: Outcome, *, ignore: Sequence[str] = (), cells: Iterable[int] | None = None
) -> list[str]:
    """Where a durable life is not as the plain one; empty when nobody could tell."""
    found = []
    if durable.log:
        found.append(f"the kernel died: {durable.log[-2500:]}")
    chosen = set(cells) if cells is not None else None
    if len(plain.cells) != len(durable.cells):
        found.append(f"ran {len(durable.cells)} cells, not {len(plain.cells)}")
    for number, (one, other) in enumerate(zip(plain.cells, durable.cells, strict=False)):
        if chosen is not None and number not in chosen:
            continue
        for key in ("status", "ename", "evalue", "count", "outputs"):
            if f"cells.{number}.{key}" in ignore or f"cells.{key}" in ignore:
                continue
            if one[key] != other[key]:
                found.append(f"cell {number} {key}: expected {one[key]!r}, got {other[key]!r}")
    for part in ("names", "prompts", "process"):
        if part not in ignore:
            found += _of_mapping(part, plain.state.get(part, {}), durable.state.get(part, {}), ignore)
    found += _of_mapping("probes", plain.probes, durable.probes, ignore)
    if "files" not in ignore:
        found += _of_mapping("files", plain.files, durable.files, ignore)
    return found


def _of_mapping(part: str, one: Mapping[str, str], other: Mapping[str, str], ignore: Sequence[str]) -> list[str]:
    found = []
    for key in sorted(set(one) | set(other)):
        if f"{part}.{key}" in ignore:
            continue
        if part == "process" and (key not in one or key not in other):
            continue  # a package that one of them has not loaded has no state to compare
        expected, got = one.get(key, "(absent)"), other.get(key, "(absent)")
        if expected != got:
            found.append(f"{part}.{key}: expected {_around(expected, got)}, got {_around(got, expected)}")
    return found


def _around(text: str, other: str, width: int = 160) -> str:
    """The part of a long text where it begins to differ from the other."""
    if len(text) <= 2 * width:
        return text
    place = next((n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    start = max(0, place - 60)
    return f"…{text[start : start + width]}…"
