"""What a user may ask of one step: the options of `%%durable_step`, of a `# durable:` comment and of a cell tag.

The three spellings are one table. A value that is not given is None, so that spellings can be merged and so that
"no retry option" is told from "the default of a retry option".
"""

from __future__ import annotations

import builtins
import difflib
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, Literal

from durable_nb._dataclass import dataclass
from durable_nb.exceptions import ValidationError

__all__ = [
    "Mode",
    "StepOptions",
    "parse_comment",
    "parse_duration",
    "parse_line_statement",
    "parse_magic_line",
    "parse_tags",
    "resolve_error_types",
]

Mode = Literal["step", "off", "always"]

RETRY_PRESETS = ("none", "default", "transient", "resource_availability", "critical", "linear", "fixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """The options of one step. None means: not given."""

    name: str | None = None
    max_attempts: int | None = None
    """Attempts in all, the first one included."""
    initial_delay: float | None = None
    """Seconds before the second attempt."""
    max_delay: float | None = None
    """Seconds. No delay is longer."""
    backoff: float | None = None
    """Each delay is this many times the one before."""
    jitter: str | None = None
    """`full`, `half` or `none`."""
    retry: str | None = None
    """Name of a retry preset."""
    retry_on: tuple[str, ...] = ()
    """Names of exception types; see `resolve_error_types`."""
    retry_if_message: str | None = None
    """A regular expression, searched in the error's message."""
    at_most_once: bool = False
    timeout: float | None = None
    """Seconds that one attempt may take."""
    on: str | None = None
    """The cluster that runs the cell: `dask://host:port`, or `dask://` for the one that Dask's settings name."""
    depends_on: tuple[str, ...] = ()
    """Glob patterns of files that count as inputs."""
    force: bool = False
    """Run, whatever is recorded."""
    store_output: bool = True
    quiet: bool = False
    mode: Mode = "step"
    """`off`: an ordinary cell, never stored; `always`: run each time."""

    def __post_init__(self) -> None:
        self._check_ranges()
        if self.at_most_once and not self.name:
            raise ValidationError("--at-most-once needs a NAME: it is how the step is found again after an edit")
        if self.at_most_once and self.retries and not self.retry_on:
            raise ValidationError(
                "--at-most-once with more than one attempt needs --retry-on: "
                "name the errors after which it is safe to start again"
            )
        if self.at_most_once and self.mode != "step":
            raise ValidationError(f"--at-most-once cannot be combined with durable: {self.mode}")
        if self.on is not None and self.mode == "off":
            raise ValidationError("--on cannot be combined with durable: off")

    def _check_ranges(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValidationError(f"--max-attempts must be 1 or more, got {self.max_attempts}")
        for option in ("initial_delay", "max_delay", "timeout"):
            value = getattr(self, option)
            if value is not None and (value < 0 or (option == "timeout" and value == 0)):
                raise ValidationError(f"--{option.replace('_', '-')} must be more than 0, got {value:g} s")
        if self.backoff is not None and self.backoff < 1:
            raise ValidationError(f"--backoff must be 1 or more, got {self.backoff:g}")
        if self.initial_delay is not None and self.max_delay is not None and self.max_delay < self.initial_delay:
            raise ValidationError(
                f"--max-delay ({self.max_delay:g} s) must not be less than --initial-delay ({self.initial_delay:g} s)"
            )

    @property
    def retries(self) -> bool:
        """True when a failing attempt may be followed by another."""
        if self.max_attempts is not None:
            return self.max_attempts > 1
        if self.retry is not None:
            return self.retry != "none"
        asked = (self.initial_delay, self.max_delay, self.backoff, self.jitter, self.retry_if_message)
        return bool(self.retry_on) or any(value is not None for value in asked)

    def merged(self, other: StepOptions | None) -> StepOptions:
        """These options, with what `other` gives laid over them."""
        if other is None:
            return self
        default = StepOptions()
        given = {f.name: getattr(other, f.name) for f in fields(StepOptions)}
        return replace(self, **{k: v for k, v in given.items() if v != getattr(default, k)})


# --- Values ----------------------------------------------------------------------------------------------------------

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|min|s|m|h|d)")


def parse_duration(text: str, *, option: str = "duration") -> float:
    """Seconds in `250ms`, `5s`, `5m`, `1h30m` or a bare number."""
    compact = text.strip().lower()
    try:
        seconds = float(compact)
    except ValueError:
        parts = _DURATION.findall(compact)
        if not parts or "".join(number + unit for number, unit in parts) != compact:
            raise ValidationError(f"{option}: {text!r} is not a duration such as 10, 250ms, 5s, 5m or 1h30m") from None
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 <= seconds < float("inf"):
        raise ValidationError(f"{option}: {text!r} is not a duration such as 10, 250ms, 5s, 5m or 1h30m")
    return seconds


def _duration(option: str, text: str) -> float:
    return parse_duration(text, option=option)


def _integer(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValidationError(f"{option}: {text!r} is not a whole number") from None


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValidationError(f"{option}: {text!r} is not a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValidationError(f"{option}: {text!r} is not a number")
    return value


def _choice(*allowed: str) -> Callable[[str, str], str]:
    def read(option: str, text: str) -> str:
        value = text.lower().replace("-", "_")
        if value not in allowed:
            raise ValidationError(
                f"{option}: {text!r} is not one of {', '.join(allowed)}{_did_you_mean(value, allowed)}"
            )
        return value

    return read


def _name(option: str, text: str) -> str:
    if not text or any(ord(c) < 32 for c in text):
        raise ValidationError(f"{option}: a step's name is one line of text, got {text!r}")
    return text


def _names(option: str, text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValidationError(f"{option}: {name!r} is not the name of an exception")
    if not names:
        raise ValidationError(f"{option} needs the name of an exception")
    return names


def _pattern(option: str, text: str) -> str:
    try:
        re.compile(text)
    except re.error as exc:
        raise ValidationError(f"{option}: {text!r} is not a regular expression: {exc}") from exc
    return text


def _place(option: str, text: str) -> str:
    scheme, found, rest = text.partition("://")
    if scheme != "dask" or not found or any(sign in rest for sign in "/ ?#@"):
        raise ValidationError(
            f"{option}: {text!r} is no cluster: give dask://host:port, or dask:// for the one that "
            "DASK_SCHEDULER_ADDRESS names"
        )
    return text


def _globs(option: str, text: str) -> tuple[str, ...]:
    if not text:
        raise ValidationError(f"{option} needs a file pattern")
    return (text,)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


_VALUED: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "name": ("name", _name),
    "max-attempts": ("max_attempts", _integer),
    "initial-delay": ("initial_delay", _duration),
    "max-delay": ("max_delay", _duration),
    "backoff": ("backoff", _number),
    "jitter": ("jitter", _choice("full", "half", "none")),
    "retry": ("retry", _choice(*RETRY_PRESETS)),
    "retry-on": ("retry_on", _names),
    "retry-if-message": ("retry_if_message", _pattern),
    "timeout": ("timeout", _duration),
    "depends-on": ("depends_on", _globs),
    "on": ("on", _place),
}
_FLAGS: dict[str, tuple[str, Any]] = {
    "at-most-once": ("at_most_once", True),
    "force": ("force", True),
    "no-store-output": ("store_output", False),
    "quiet": ("quiet", True),
}
_MODES: dict[str, Mode] = {"off": "off", "always": "always", "on": "step"}
_REPEATABLE = {"retry-on", "depends-on"}


class _Collector:
    """Gathers options one by one and refuses what is given twice."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._seen: set[str] = set()

    def flag(self, key: str) -> None:
        field, value = _FLAGS[key]
        self.values[field] = value

    def value(self, key: str, text: str, shown: str) -> None:
        field, read = _VALUED[key]
        parsed = read(shown, text)
        if key in _REPEATABLE:
            self.values[field] = (*self.values.get(field, ()), *parsed)
            return
        if key in self._seen:
            raise ValidationError(f"{shown} is given twice")
        self._seen.add(key)
        self.values[field] = parsed

    def done(self) -> StepOptions:
        return StepOptions(**self.values)


# --- The magic -------------------------------------------------------------------------------------------------------


def _words(line: str, where: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as exc:
        raise ValidationError(f"{where}: {exc}: {line.strip()}") from exc


def parse_magic_line(line: str) -> StepOptions:
    """The options behind `%%durable_step`. `ValidationError` names the option that is wrong."""
    words = _words(line, "%%durable_step")
    rest = _read_options(words, collector := _Collector())
    if len(rest) > 1:
        raise ValidationError(f"%%durable_step takes one NAME, got {' '.join(rest)!r}: quote a name with spaces")
    if rest:
        collector.value("name", rest[0], "NAME")
    return collector.done()


def _read_options(words: list[str], collector: _Collector) -> list[str]:
    """Takes the options out of `words`; gives back what is no option."""
    rest: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            rest.extend(words[position:])
            break
        if not word.startswith("--"):
            if word.startswith("-") and len(word) > 1:
                raise ValidationError(f"unknown option {word}: options of %%durable_step begin with two dashes")
            rest.append(word)
            continue
        key, has_value, text = word[2:].partition("=")
        _known(key, f"--{key}")
        if key in _FLAGS:
            if has_value:
                raise ValidationError(f"--{key} takes no value")
            collector.flag(key)
            continue
        if not has_value:
            if position == len(words) or words[position].startswith("--"):
                raise ValidationError(f"--{key} needs a value")
            text = words[position]
            position += 1
        collector.value(key, text, f"--{key}")
        # `--depends-on a b c`: a pattern list runs up to the next option, as the shell would have expanded it.
        while key == "depends-on" and position < len(words) and _looks_like_path(words[position]):
            collector.value(key, words[position], "--depends-on")
            position += 1
    return rest


def _looks_like_path(word: str) -> bool:
    return not word.startswith("-") and any(sign in word for sign in "*?[/.")


def _known(key: str, shown: str) -> None:
    if key not in _VALUED and key not in _FLAGS:
        known = [f"--{k}" for k in (*_VALUED, *_FLAGS)] if shown.startswith("--") else [*_VALUED, *_FLAGS, *_MODES]
        raise ValidationError(f"unknown option {shown}{_did_you_mean(shown, known)}")


def parse_line_statement(line: str) -> tuple[StepOptions, str]:
    """The line form, `%durable_step [--option value]… statement`; the name is given as `--name NAME`."""
    collector = _Collector()
    rest = line.strip()
    while rest.startswith("--"):
        word, _, after = rest.partition(" ")
        if word == "--":
            rest = after.lstrip()
            break
        key, has_value, _ = word[2:].partition("=")
        _known(key, f"--{key}")
        taken = word
        if has_value or key in _VALUED:
            taken = _option_text(rest, bool(has_value), key)
        _read_options(_words(taken, "%durable_step"), collector)
        rest = rest[len(taken) :].lstrip()
    if not rest:
        raise ValidationError("%durable_step needs a statement after its options")
    if "on" in collector.values:
        raise ValidationError("--on runs whole cells: use %%durable_step --on … as the first line of one")
    return collector.done(), rest


_VALUE_TEXT = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|\S)+""")


def _option_text(rest: str, joined: bool, key: str) -> str:
    first = _VALUE_TEXT.match(rest)
    assert first is not None
    if joined:
        return first.group()
    gap = len(rest[first.end() :]) - len(rest[first.end() :].lstrip())
    second = _VALUE_TEXT.match(rest, first.end() + gap)
    if second is None:
        raise ValidationError(f"--{key} needs a value")
    return rest[: second.end()]


# --- The comment and the tag -----------------------------------------------------------------------------------------

_COMMENT = re.compile(r"^\s*#\s*durable\s*:\s*(.*?)\s*$", re.IGNORECASE)
_TAG = re.compile(r"^\s*durable\s*:\s*(.*?)\s*$", re.IGNORECASE)


def parse_comment(source: str) -> StepOptions | None:
    """The options of a cell's `# durable: …` comment, or None when it has none.

    Args:
        source: the comment, or the whole cell: only what it begins with counts: comments, cell magics.
    """
    found: StepOptions | None = None
    for line in source.splitlines():
        if line.strip() and not line.lstrip().startswith(("#", "%%")):
            break
        match = _COMMENT.match(line)
        if match:
            options = _parse_words(match[1], "# durable:")
            found = options if found is None else found.merged(options)
    return found


def parse_tags(tags: Iterable[object]) -> StepOptions | None:
    """The options of a cell's `durable: …` tags, or None when it has none; other people's tags are left alone."""
    found: StepOptions | None = None
    for tag in tags:
        match = _TAG.match(tag) if isinstance(tag, str) else None
        if match:
            options = _parse_words(match[1], "durable:")
            found = options if found is None else found.merged(options)
    return found


def _parse_words(text: str, where: str) -> StepOptions:
    collector = _Collector()
    words = [w for w in _words(text, where) if w != "|"]
    if not words:
        raise ValidationError(f"{where} needs an option, such as off, always, name=… or max-attempts=3")
    for word in words:
        key, has_value, value = word.partition("=")
        key = key.removeprefix("--").lower().replace("_", "-")
        if key in _MODES and not has_value:
            if "mode" in collector.values and collector.values["mode"] != _MODES[key]:
                raise ValidationError(f"{where} cannot be both {collector.values['mode']} and {key}")
            collector.values["mode"] = _MODES[key]
            continue
        _known(key, key)
        if key in _FLAGS:
            if has_value:
                raise ValidationError(f"{where} {key} takes no value")
            collector.flag(key)
        elif not has_value:
            raise ValidationError(f"{where} {key} needs a value: {key}=…")
        else:
            collector.value(key, value, f"{where} {key}")
    return collector.done()


# --- Exception names -------------------------------------------------------------------------------------------------


def resolve_error_types(names: Iterable[str], namespace: Mapping[str, object]) -> tuple[type[Exception], ...]:
    """The exception types that `--retry-on` names, as the cell would see them.

    A dotted name is looked up in the namespace first, then in the modules that are already imported: naming an error
    never imports anything.
    """
    return tuple(kind for name in names for kind in _resolve(name, namespace))


def _resolve(name: str, namespace: Mapping[str, object]) -> tuple[type[Exception], ...]:
    value = _look_up(name, namespace)
    candidates = value if isinstance(value, tuple) and value else (value,)
    for candidate in candidates:
        if candidate is None:
            raise ValidationError(f"--retry-on: unknown exception {name!r}{_suggest(name, namespace)}")
        if not (isinstance(candidate, type) and issubclass(candidate, BaseException)):
            raise ValidationError(f"--retry-on: {name!r} is not an exception type")
        if not issubclass(candidate, Exception):
            raise ValidationError(f"--retry-on: {name} is never retried")
    return candidates


def _look_up(name: str, namespace: Mapping[str, object]) -> Any:
    head, *path = name.split(".")
    for value in (namespace.get(head), getattr(builtins, head, None)):
        found = _follow(value, path)
        if found is not None:
            return found
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if module is not None:
            found = _follow(module, parts[length:])
            if found is not None:
                return found
    return None


def _follow(value: object, path: list[str]) -> object:
    for part in path:
        if value is None:
            return None
        # A module's `__getattr__` may import; its dict says what is there already.
        value = vars(value).get(part) if isinstance(value, ModuleType) else getattr(value, part, None)
    return value


def _suggest(name: str, namespace: Mapping[str, object]) -> str:
    known = [
        k for k, v in (*vars(builtins).items(), *namespace.items()) if isinstance(v, type) and issubclass(v, Exception)
    ]
    hint = _did_you_mean(name, known)
    return hint or " (import its module first, or give its dotted name)"
