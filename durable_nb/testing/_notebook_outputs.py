"""Whether two sets of outputs say the same: text, numbers within a tolerance, figures that look alike."""

from __future__ import annotations

import base64
import difflib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_LIVE = ("application/vnd.jupyter.widget-view+json",)
"""Shown by a kernel, and different in each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far two outputs may be from each other."""

    relative: float = 0.0
    absolute: float = 0.0
    figures: float = 0.01
    """Mean difference of two pictures of one size, 0 to 1."""


def differences(expected: Sequence[Any], found: Sequence[Any], tolerance: Tolerance) -> list[str]:
    """What differs, in lines for people; empty when the outputs say the same."""
    lines: list[str] = []
    for name in ("stdout", "stderr"):
        lines += _texts(name, _stream(expected, name), _stream(found, name), tolerance)
    before, now = _shown(expected), _shown(found)
    if len(before) != len(now):
        return [*lines, f"{len(before)} displays or results are expected, {len(now)} were shown"]
    for old, new in zip(before, now, strict=True):
        lines += _bundles(old, new, tolerance)
    return lines


def _stream(outputs: Sequence[Any], name: str) -> str:
    """All text of a stream: how it was cut into pieces means nothing."""
    return "".join(
        _joined(output["text"]) for output in outputs if output["output_type"] == "stream" and output["name"] == name
    )


def _shown(outputs: Sequence[Any]) -> list[Any]:
    return [output for output in outputs if output["output_type"] != "stream"]


def _bundles(old: Any, new: Any, tolerance: Tolerance) -> list[str]:
    if old["output_type"] != new["output_type"]:
        return [f"expected {old['output_type']}, got {new['output_type']}"]
    if old["output_type"] == "error":
        same = (old["ename"], old["evalue"]) == (new["ename"], new["evalue"])
        return [] if same else [f"expected {old['ename']}: {old['evalue']}, got {new['ename']}: {new['evalue']}"]
    before, now = (_without_live(output["data"]) for output in (old, new))
    if before.keys() != now.keys():
        return [f"expected {', '.join(sorted(before))}, got {', '.join(sorted(now))}"]
    lines = []
    for kind in before:
        lines += _values(kind, before[kind], now[kind], tolerance)
    return lines


def _without_live(data: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: value for kind, value in data.items() if kind not in _LIVE}


def _values(kind: str, old: Any, new: Any, tolerance: Tolerance) -> list[str]:
    if kind == "image/png":
        return _pictures(_joined(old), _joined(new), tolerance.figures)
    if kind.startswith("text/") or kind == "image/svg+xml":
        return _texts(kind, _joined(old), _joined(new), tolerance)
    return [] if old == new else [f"{kind} differs"]


def _texts(what: str, old: str, new: str, tolerance: Tolerance) -> list[str]:
    old, new = _ADDRESS.sub("0x…", old), _ADDRESS.sub("0x…", new)
    if old == new or _alike(old, new, tolerance):
        return []
    told = difflib.unified_diff(old.splitlines(), new.splitlines(), "expected", "got", lineterm="", n=1)
    return [f"{what} differs", *(line for line in told if not line.startswith("@@"))]


def _alike(old: str, new: str, tolerance: Tolerance) -> bool:
    """Equal but for numbers that are close."""
    if tolerance.relative <= 0 and tolerance.absolute <= 0:
        return False
    before, now = _NUMBER.findall(old), _NUMBER.findall(new)
    # Columns are as wide as their numbers, so white space is not compared.
    if len(before) != len(now) or "".join(_NUMBER.sub("#", old).split()) != "".join(_NUMBER.sub("#", new).split()):
        return False
    return all(
        math.isclose(float(a), float(b), rel_tol=tolerance.relative, abs_tol=tolerance.absolute)
        for a, b in zip(before, now, strict=True)
    )


def _pictures(old: str, new: str, most: float) -> list[str]:
    if old.strip() == new.strip():
        return []
    try:
        from PIL import Image, ImageChops, ImageStat
    except ImportError:
        return ["the figure differs (install Pillow to compare how it looks)"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in (old, new)]
    if pictures[0].size != pictures[1].size:
        sizes = " and ".join(f"{width} x {height}" for width, height in (each.size for each in pictures))
        return [f"the figure has another size: {sizes}"]
    mean = sum(ImageStat.Stat(ImageChops.difference(*pictures)).mean) / 3 / 255
    return [] if mean <= most else [f"the figure differs by {mean:.4f} (at most {most:g})"]


def _joined(text: Any) -> str:
    return text if isinstance(text, str) else "".join(text)
