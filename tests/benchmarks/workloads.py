"""What is measured: notebooks as source text, at a size that the environment chooses.

`DURABLE_NB_BENCH_SCALE` is the share of the full size, 1 by `make bench` and small in the tests. Only the standard
library is imported here, since the neighbours' processes read this file as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

SCALE = "DURABLE_NB_BENCH_SCALE"


def scale() -> float:
    """The share of the full size, from the environment."""
    return float(os.environ.get(SCALE, "0.001"))


@dataclass(frozen=True, slots=True)
class Workload:
    """A notebook to measure: cells that make the ground, cells that are timed, and what is looked at afterwards."""

    name: str
    title: str
    cells: tuple[str, ...]
    """Timed one by one."""
    setup: tuple[str, ...] = ()
    """Run before; in a second life they are replayed, and not counted."""
    looks: tuple[str, ...] = ()
    """Expressions that a silent request reads after the cells; timed."""
    made: str = ""
    """For neighbours that cache a function: its body, which returns what the notebook's cells make."""
    nbytes: int = 0
    """Bytes of data that the cells make, as far as the machine's own limits can be compared with it."""
    rounds: int = 5
    peer_rounds: int = 5
    """The neighbours take part in so many of them: some take minutes."""


def _count(full: int, least: int, size: float) -> int:
    return max(least, int(full * size))


def trivial(size: float) -> Workload:
    """Cells that bind a small number each: the fixed price of a cell, and whether it grows with the session."""
    count = 200 if size >= 1 else 8
    return Workload(
        "trivial",
        f"{count} trivial cells",
        cells=tuple(f"v{number} = sum(range({number}))" for number in range(count)),
        made="return sum(range(number))",
    )


def crowded(size: float) -> Workload:
    """The same among a gigabyte of live arrays: untouched data must cost nothing."""
    count = 50 if size >= 1 else 4
    return Workload(
        "crowded",
        f"{count} trivial cells among 1 GB of live arrays",
        setup=_live_arrays(size),
        cells=tuple(f"v{number} = sum(range({number}))" for number in range(count)),
        rounds=3,
    )


def array(size: float) -> Workload:
    """One gigabyte of float64 in one array."""
    count = _count(125_000_000, 10_000, size)
    return Workload(
        "array",
        f"an array of {_bytes(count * 8)}",
        setup=("import numpy as np",),
        cells=(f"a = np.arange({count}, dtype='float64')",),
        looks=("a[0]", "a.__setitem__(0, -1.0)", "float(a.sum())"),
        made=f"import numpy as np\n    return np.arange({count}, dtype='float64')",
        nbytes=count * 8,
        rounds=3,
    )


def again(size: float) -> Workload:
    """Data that is stored already, under another name: nothing may be written for it."""
    count = _count(25_000_000, 10_000, size)
    return Workload(
        "again",
        f"an equal copy of a stored array of {_bytes(count * 8)}",
        setup=("import numpy as np", f"a = np.arange({count}, dtype='float64')"),
        cells=("b = a.copy()",),
        nbytes=count * 8,
        rounds=3,
    )


def frame(size: float) -> Workload:
    """A DataFrame with four kinds of columns."""
    count = _count(5_000_000, 5_000, size)
    body = (
        f"n = {count}",
        "rng = np.random.default_rng(0)",
        "whole = rng.integers(0, 10**9, n)",
        "real = rng.random(n)",
        "kind = pd.Categorical.from_codes(rng.integers(0, 5, n).astype('int8'), list('abcde'))",
        "when = pd.Timestamp('2026-01-01') + pd.to_timedelta(whole, unit='s')",
        "df = pd.DataFrame({'whole': whole, 'real': real, 'kind': kind, 'when': when})",
    )
    inside = "\n    ".join(("import numpy as np", "import pandas as pd", *body, "return df"))
    source = "def make():\n    " + "\n    ".join((*body, "return df"))
    return Workload(
        "frame",
        f"a DataFrame of {count:,} rows (int, float, category, datetime)",
        setup=("import numpy as np\nimport pandas as pd", source),
        cells=("df = make()",),
        looks=("len(df)", "float(df['real'].sum())"),
        made=inside,
        nbytes=count * 25,
        rounds=3,
    )


def _live_arrays(size: float) -> tuple[str, ...]:
    count = _count(12_500_000, 2_000, size)
    return ("import numpy as np", f"big = [np.arange({count}, dtype='float64') + k for k in range(10)]")


def row(size: float) -> Workload:
    """One row of a 20 MB array changes, among a gigabyte of live state."""
    rows = 2500 if size >= 1 else 50
    cells = 25 if size >= 1 else 3
    return Workload(
        "row",
        f"{cells} cells that each change one row of a {_bytes(rows * 8000)} array, among 1 GB of live state",
        setup=(*_live_arrays(size), f"m = np.arange({rows} * 1000, dtype='float64').reshape({rows}, 1000)"),
        cells=tuple(f"m[{number * (rows // cells)}] += {number + 1}" for number in range(cells)),
        rounds=3,
        peer_rounds=1,
    )


def small(size: float) -> Workload:
    """One entry of a dict changes, among a gigabyte of live state."""
    cells = 50 if size >= 1 else 4
    return Workload(
        "small",
        f"{cells} cells that each change one entry of a dict, among 1 GB of live state",
        setup=(*_live_arrays(size), "options = {f'k{number}': number for number in range(100)}"),
        cells=tuple(f"options['k{number}'] = -{number}.5" for number in range(cells)),
        rounds=3,
        peer_rounds=1,
    )


def reader(size: float) -> Workload:
    """Cells that only read a gigabyte array."""
    count = _count(125_000_000, 10_000, size)
    return Workload(
        "reader",
        f"10 cells that only read an array of {_bytes(count * 8)}",
        setup=("import numpy as np", f"a = np.arange({count}, dtype='float64')"),
        cells=tuple(f"mean{number} = float(a[{number}:{number} + 1000].mean())" for number in range(10)),
        rounds=3,
        peer_rounds=1,
    )


def objects(size: float) -> Workload:
    """Python objects in dicts and lists: four objects an entry."""
    count = _count(2_500_000, 2_500, size)
    made = f"[{{'id': i, 'name': f'n{{i}}', 'value': i * 0.5}} for i in range({count})]"
    return Workload(
        "objects",
        f"{count * 4:,} Python objects in dicts and lists",
        cells=(f"d = {made}",),
        looks=("d[0]['name']", "len(d)"),
        made=f"return {made}",
        rounds=1,
    )


def resume(size: float) -> Workload:
    """A long notebook that was finished before."""
    count = 500 if size >= 1 else 10
    return Workload(
        "resume",
        f"a notebook of {count} cells with 200 KB each",
        setup=("import numpy as np",),
        cells=tuple(f"r{number} = np.arange({number}, {number} + 25_000, dtype='float64')" for number in range(count)),
        rounds=3,
    )


WORKLOADS: dict[str, Callable[[float], Workload]] = {
    made.__name__: made for made in (trivial, crowded, array, again, frame, row, small, reader, objects, resume)
}


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} bytes"
