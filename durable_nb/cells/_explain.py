"""Why a cell ran or was replayed, in words and as a diff."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from durable_nb._dataclass import dataclass
from durable_nb.cells._files import MISSING
from durable_nb.cells._fingerprint import ABSENT, Difference, Inputs, Lookup, compare

__all__ = ["Reason", "explain", "source_diff"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause, for people."""

    kind: str
    """The kind of input that differs; `first` when nothing is recorded, `equal` when nothing differs."""
    text: str
    """One line."""
    diff: tuple[str, ...] = ()
    """Lines of a diff: `- before`, `+ now`; a unified diff for a source."""

    def __str__(self) -> str:
        return "\n".join((self.text, *(f"  {line}" for line in self.diff)))


def explain(
    recorded: Inputs | None,
    current: Inputs | Lookup,
    *,
    source_before: str | None = None,
    source_now: str | None = None,
) -> Reason:
    """The most telling cause for which a recorded cell runs again, or that there is none.

    Args:
        recorded: the inputs of the nearest record; None when the cell has none.
        current: the inputs now.
        source_before, source_now: the readable source of the record and of the cell, for the diff.
    """
    if recorded is None:
        return Reason("first", "it has not been completed before")
    differences = list(compare(recorded, current))
    if source_before is not None and source_now is not None and not any(d.kind == "source" for d in differences):
        lines = source_diff(source_before, source_now)
        if lines and not differences:
            return Reason("equal", "only comments or layout differ", lines)
    if not differences:
        return Reason("equal", "everything it depends on is as it was")
    first = differences[0]
    if first.kind == "source" and source_before is not None and source_now is not None:
        return Reason("source", "its source was edited", source_diff(source_before, source_now))
    text, diff = _SAY[first.kind](first)
    others = len(differences) - 1
    if others:
        text += f" (and {others} more {'input' if others == 1 else 'inputs'})"
    return Reason(first.kind, text, diff)


def source_diff(before: str, now: str) -> tuple[str, ...]:
    """A unified diff without the file header."""
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), lineterm="", n=2)
    return tuple(line for line in lines if not line.startswith(("---", "+++")))


Said = tuple[str, tuple[str, ...]]


def _say_source(_difference: Difference) -> Said:
    return "its source was edited", ()


def _say_everything(difference: Difference) -> Said:
    return f"it may read any name ({difference.key}), and one has changed", ()


def _say_module(difference: Difference) -> Said:
    what = "is not there any more" if difference.current.version == ABSENT else "was edited"
    return f"the module {difference.key} {what}", ()


def _say_distribution(difference: Difference) -> Said:
    old, now = (item.version or "not installed" for item in (difference.recorded, difference.current))
    return f"{difference.key} {old} -> {now}", _lines(f"{difference.key} {old}", f"{difference.key} {now}")


def _say_python(difference: Difference) -> Said:
    old, now = difference.recorded.version, difference.current.version
    return f"Python {old} -> {now}", _lines(f"Python {old}", f"Python {now}")


def _say_process(difference: Difference) -> Said:
    return _PROCESS.get(difference.key, f"{difference.key} is another"), ()


def _say_listing(difference: Difference) -> Said:
    pattern = difference.key.removeprefix("glob:")
    if pattern != difference.key:
        return f"the files that match {pattern} are others", ()
    return f"the entries of {difference.key} are others", ()


def _say_cwd(difference: Difference) -> Said:
    old, now = difference.recorded.version, difference.current.version
    return f"the working directory is {now or 'another'}, not {old}", _lines(old, now)


def _say_set_up(difference: Difference) -> Said:
    origin = difference.current.origin or difference.recorded.origin
    return f"{difference.key} was set up in another way{f' by {origin}' if origin else ''}", ()


def _lines(before: str, now: str) -> tuple[str, str]:
    return f"- {before}", f"+ {now}"


def _say_name(difference: Difference) -> Said:
    old, new = difference.recorded, difference.current
    if new.version == ABSENT:
        return f"{old.key} is not defined any more{_was(old.origin)}", ()
    if old.version == ABSENT:
        return f"{old.key} is defined now{_in(new.origin)}", ()
    return f"{old.key} has another value{_in(new.origin or old.origin)}", ()


def _in(origin: str | None) -> str:
    return f", from {origin}" if origin else ""


def _was(origin: str | None) -> str:
    return f" (it came from {origin})" if origin else ""


def _say_file(difference: Difference) -> Said:
    if difference.current.version == MISSING:
        return f"the file {difference.key} is gone", ()
    if difference.recorded.version == MISSING:
        return f"the file {difference.key} is there now", ()
    return f"the file {difference.key} was changed", ()


def _say_existence(difference: Difference) -> Said:
    key, before, now = difference.key, difference.recorded.version, difference.current.version
    if now == MISSING:
        return f"{key} is gone", ()
    if before == MISSING:
        return f"{key} is there now", ()
    return f"{key} is a {_thing(now)} now, not a {_thing(before)}", ()


def _thing(version: str) -> str:
    return {"dir": "directory", "file": "file"}.get(version, version)


def _say_variable(difference: Difference) -> Said:
    if difference.key == "*":
        return "the environment variables, all of which it read, are others", ()
    if difference.current.version == ABSENT:
        return f"the environment variable {difference.key} is not set any more", ()
    what = "is set now" if difference.recorded.version == ABSENT else "has another value"
    return f"the environment variable {difference.key} {what}", ()


_PROCESS = {
    "<random>": "random was seeded or used differently before it",
    "<numpy.random>": "numpy.random was seeded or used differently before it",
    "<torch.rng>": "torch's random generator was seeded or used differently before it",
    "<rcParams>": "matplotlib's settings (rcParams) are others",
    "<pandas.options>": "pandas' options are others",
    "<warnings>": "the warning filters are others",
    "<sys.path>": "sys.path is another",
    "<cwd>": "the working directory is another",
    "<environ>": "environment variables are others",
    "<decimal>": "the decimal context is another",
    "<locale>": "the locale is another",
    "<umask>": "the file mode mask is another",
    "<settings>": "settings of the interpreter, of the standard library or of the shell are others",
}

_SAY: dict[str, Callable[[Difference], Said]] = {
    "source": _say_source,
    "name": _say_name,
    "everything": _say_everything,
    "module": _say_module,
    "dist": _say_distribution,
    "python": _say_python,
    "process": _say_process,
    "file": _say_file,
    "listing": _say_listing,
    "missing": _say_existence,
    "env": _say_variable,
    "cwd": _say_cwd,
    "setup": _say_set_up,
}


def describe(inputs: Inputs, kinds: Sequence[str] = ()) -> list[str]:
    """Inputs as lines for `why --all`: kind, key and where it came from."""
    return [
        f"{item.kind:<10} {item.key}{_in(item.origin) if item.kind == 'name' else ''}"
        for item in inputs.sorted()
        if not kinds or item.kind in kinds
    ]
