"""Why a cell ran or was replayed, in words and as a diff."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

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
    text, diff = _say(first)
    others = len(differences) - 1
    if others:
        text += f" (and {others} more {'input' if others == 1 else 'inputs'})"
    return Reason(first.kind, text, diff)


def source_diff(before: str, now: str) -> tuple[str, ...]:
    """A unified diff without the file header."""
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), lineterm="", n=2)
    return tuple(line for line in lines if not line.startswith(("---", "+++")))


def _say(difference: Difference) -> tuple[str, tuple[str, ...]]:
    old, new = difference.recorded, difference.current
    match difference.kind:
        case "source":
            return "its source was edited", ()
        case "name":
            return _say_name(difference)
        case "everything":
            return f"it may read any name ({old.key}), and one has changed", ()
        case "module":
            what = "is not there any more" if new.version == ABSENT else "was edited"
            return f"the module {old.key} {what}", ()
        case "dist":
            now = new.version or "not installed"
            return f"{old.key} {old.version or 'not installed'} -> {now}", _lines(
                f"{old.key} {old.version}", f"{old.key} {now}"
            )
        case "python":
            return f"Python {old.version} -> {new.version}", _lines(f"Python {old.version}", f"Python {new.version}")
        case "process":
            return _PROCESS.get(old.key, f"{old.key} is another"), ()
        case "file":
            return _say_file(old.key, old.version, new.version), ()
        case "missing":
            return _say_existence(old.key, old.version, new.version), ()
        case "listing":
            pattern = old.key.removeprefix("glob:")
            where = f"the files that match {pattern}" if pattern != old.key else f"the entries of {old.key}"
            return f"{where} are others", ()
        case "env":
            return _say_variable(old.key, old.version, new.version), ()
        case "cwd":
            return f"the working directory is {new.version or 'another'}, not {old.version}", _lines(
                old.version, new.version
            )
        case "setup":
            return f"{old.key} was set up in another way{_from(new.origin or old.origin)}", ()
        case kind:
            return f"{kind} {old.key} has changed", ()


def _lines(before: str, now: str) -> tuple[str, str]:
    return f"- {before}", f"+ {now}"


def _from(origin: str | None) -> str:
    return f" by {origin}" if origin else ""


def _say_name(difference: Difference) -> tuple[str, tuple[str, ...]]:
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


def _say_file(key: str, before: str, now: str) -> str:
    if now == MISSING:
        return f"the file {key} is gone"
    if before == MISSING:
        return f"the file {key} is there now"
    return f"the file {key} was changed"


def _say_existence(key: str, before: str, now: str) -> str:
    if now == MISSING:
        return f"{key} is gone"
    return f"{key} is there now" if before == MISSING else f"{key} is a {_thing(now)} now, not a {_thing(before)}"


def _thing(version: str) -> str:
    return {"dir": "directory", "file": "file"}.get(version, version)


def _say_variable(key: str, before: str, now: str) -> str:
    if key == "*":
        return "the environment variables, all of which it read, are others"
    if now == ABSENT:
        return f"the environment variable {key} is not set any more"
    return f"the environment variable {key} {'is set now' if before == ABSENT else 'has another value'}"


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
}


def describe(inputs: Inputs, kinds: Sequence[str] = ()) -> list[str]:
    """Inputs as lines for `why --all`: kind, key and where it came from."""
    return [
        f"{item.kind:<10} {item.key}{_in(item.origin) if item.kind == 'name' else ''}"
        for item in inputs.sorted()
        if not kinds or item.kind in kinds
    ]
