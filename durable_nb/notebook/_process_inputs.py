"""Which parts of the process's state a cell depended on.

A generator, and a number that a package counts, is an input of a cell that moved it. An option is one of a cell that
can reach the package whose option it is; the settings of the interpreter and the shell are everybody's.

Warning filters and the import path are special: they hold what the process, its folders and its packages put there, at
whatever moment. Their versions speak of what cells *chose* only, as a chain of changes in their order. Importing a
package adds filters, so that only cells which use `warnings` themselves count as changing them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from durable_nb.cells import digest
from durable_nb.snapshot import SysPath

MOVED = ("<random>", "<numpy.random>", "<torch.rng>", "<counters>")
"""Generators, and the numbers that packages count: inputs of the cells that move them."""
WARNINGS = "<warnings>"
SYS_PATH = "<sys.path>"
CHOSEN = (WARNINGS, SYS_PATH)
SETTINGS = "<settings>"
"""Every cell's: which statements show their value is one of them, and few look at the others through their package (the
time zone is the C library's)."""

_OPTIONS: Mapping[str, frozenset[str]] = {
    "<rcParams>": frozenset({"matplotlib", "pylab", "seaborn", "mpl_toolkits"}),
    "<pandas.options>": frozenset({"pandas"}),
    "<numpy.printoptions>": frozenset({"numpy"}),
    "<decimal>": frozenset({"decimal"}),
    "<locale>": frozenset({"locale"}),
    "<logging>": frozenset({"logging"}),
    "<umask>": frozenset({"os"}),
    "<signals>": frozenset({"signal"}),
    "<recursionlimit>": frozenset({"sys"}),
    "<matplotlib.interactive>": frozenset({"matplotlib", "pylab", "seaborn", "mpl_toolkits"}),
}
"""Part of the state to the packages that look at it."""


def process_inputs(
    before: Mapping[str, str], after: Mapping[str, str], reached: Collection[str], chosen: Mapping[str, str]
) -> Iterable[tuple[str, str]]:
    """Pseudo-names and the versions they had before the cell.

    Args:
        before, after: versions around the cell.
        reached: modules that the cell can reach.
        chosen: the versions of what cells chose.
    """
    tops = {name.partition(".")[0] for name in reached}
    for key in MOVED:
        if before.get(key) != after.get(key):
            yield key, before.get(key, "unseeded")
    for key, packages in _OPTIONS.items():
        if not tops.isdisjoint(packages):
            yield key, before.get(key, "default")
    yield SETTINGS, before.get(SETTINGS, "default")
    if tops:
        yield WARNINGS, chosen.get(WARNINGS, "default")
    if "sys" in tops or before.get(SYS_PATH) != after.get(SYS_PATH):
        yield SYS_PATH, chosen.get(SYS_PATH, "default")


def chosen_by(
    delta: Mapping[str, Mapping[str, Any]], reached: Collection[str], chosen: Mapping[str, str]
) -> dict[str, str]:
    """The versions of what cells chose, as far as a cell with this delta of the process's state chose otherwise."""
    found = {}
    if WARNINGS in delta and "warnings" in reached:
        found[WARNINGS] = digest(chosen.get(WARNINGS, "default"), delta[WARNINGS]["version"])
    if SYS_PATH in delta:
        change = SysPath.change(delta[SYS_PATH])
        found[SYS_PATH] = digest(chosen.get(SYS_PATH, "default"), repr(change))
    return found
