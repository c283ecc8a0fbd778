"""Which parts of the process's state a cell depended on.

A generator is an input of a cell that moved it. An option is one of a cell that can reach the package whose option it
is; the settings of the interpreter and the shell are everybody's. Warning filters are special: importing a package adds
some, at whatever moment it happens to be imported, so that only cells which use `warnings` themselves count as changing
them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from durable_nb.cells import digest

GENERATORS = ("<random>", "<numpy.random>", "<torch.rng>")
WARNINGS = "<warnings>"
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
    before: Mapping[str, str], after: Mapping[str, str], reached: Collection[str], warnings: str
) -> Iterable[tuple[str, str]]:
    """Pseudo-names and the versions they had before the cell.

    Args:
        before, after: versions around the cell.
        reached: modules that the cell can reach.
        warnings: the version of the warning filters that cells chose.
    """
    tops = {name.partition(".")[0] for name in reached}
    for key in GENERATORS:
        if before.get(key) != after.get(key):
            yield key, before.get(key, "unseeded")
    for key, packages in _OPTIONS.items():
        if not tops.isdisjoint(packages):
            yield key, before.get(key, "default")
    yield SETTINGS, before.get(SETTINGS, "default")
    if tops:
        yield WARNINGS, warnings


def next_warnings(version: str, before: Mapping[str, str], after: Mapping[str, str], reached: Collection[str]) -> str:
    """The version of the chosen warning filters after a cell."""
    if "warnings" in reached and before.get(WARNINGS) != after.get(WARNINGS):
        return digest(version, after.get(WARNINGS, ""))
    return version
