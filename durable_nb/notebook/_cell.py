"""One execution of one cell: what was asked, what was found out, what became of it."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from dataclasses import field
from typing import Any, Literal

from durable_nb._dataclass import dataclass
from durable_nb.cells import (
    Inputs,
    MagicCall,
    Reads,
    StepOptions,
    as_magic,
    digest,
    fingerprint,
    parse_line_statement,
    parse_magic_line,
)
from durable_nb.exceptions import ValidationError

MAGIC = "%%durable_step"

Outcome = Literal["replayed", "executed", "declared", "not_durable", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A cell as the front end sent it."""

    raw: str
    body: str
    """The source without the magic's line, which is left empty so that line numbers stay."""
    transformed: str
    """The body as Python, IPython's own syntax translated."""
    options: StepOptions
    marked: bool
    """True for `%%durable_step`; unmarked cells are steps in the durable kernel only."""
    cell_id: str | None
    in_loop: bool
    """The cell has a top-level await: it runs as a task, and nothing may block."""
    parent: Any
    """The request's message, which every output names as its parent."""


@dataclass(slots=True)
class Report:
    """What became of a cell: the contract of `execute_reply.metadata["durable_nb"]`."""

    status: Outcome
    reason: str
    attempt: int = 1
    seconds: float = 0.0
    nbytes: int = 0
    saved_seconds: float = 0.0
    decision: bool = False
    """True when an at-most-once step waits for a person's decision."""
    difference: tuple[str, ...] = ()
    """Lines of a diff that shows the reason."""

    def as_metadata(self) -> dict[str, Any]:
        """As the reply carries it."""
        found: dict[str, Any] = {
            "status": self.status,
            "reason": self.reason,
            "attempt": self.attempt,
            "seconds": round(self.seconds, 6),
            "bytes": self.nbytes,
            "saved_seconds": round(self.saved_seconds, 6),
        }
        if self.decision:
            found["decision"] = True
        return found


@dataclass(slots=True)
class Cell:
    """The running cell: filled in step by step."""

    request: Request
    tree: ast.Module
    position: int
    """Its place in this kernel's life, from 0."""
    managed: bool
    """Whether it is a step at all; an unmanaged cell is only tracked."""
    canonical: str = ""
    identity: str = ""
    ordinal: int = 0
    operation: str = ""
    reads: Reads | None = None
    inputs: Inputs = field(default_factory=Inputs)
    dirty: tuple[str, ...] = ()
    """Names it may read that a failed cell left behind."""
    spared: frozenset[str] = frozenset()
    """Arrays that it only computes from: they need no look when it ends."""
    before: Any = None
    threads_before: Any = None
    left_nothing: bool = False
    """It was found to have left no thread or task running."""
    modules_before: Any = None
    tables_before: Any = None
    """The lists, dicts and sets of installed packages that it names (`Tables`)."""
    set_up: tuple[str, ...] = ()
    """What it set on modules and installed classes; such a cell runs every time."""
    doubtful: dict[str, Any] = field(default_factory=dict)
    """Names that it may bind or leave alone, as they were before it ran (`Input`)."""
    foreseen: Any = None
    """The files that it names, as they were before it ran."""
    folder: str = ""
    """The working directory before it ran."""
    started: float = field(default_factory=time.time)
    clock: float = field(default_factory=time.perf_counter)
    attempt: int = 1
    declared: bool = False
    """It only declares: it is run every time, and not stored."""
    context: Any = None
    """`durable_nb.context` while it runs."""
    leave_context: Callable[[], None] | None = None
    asked_secret: bool = False
    """A password was typed while it ran."""
    raised: bool = False
    error: BaseException | None = None
    shown_result: bool = False
    """It ended in an expression whose value became `Out[n]`."""
    report: Report | None = None
    reason: str = ""
    difference: tuple[str, ...] = ()
    filename: str = ""
    """Under which its body was compiled."""
    number: int | None = None
    """The number of its prompt."""
    plan: Any = None
    """What was decided about it (`_plan.Plan`)."""
    wrote: tuple[str, ...] = ()
    """Names that its run bound or changed."""
    holds_steps: bool = False
    """Durable calls may be made in it."""
    waits: dict[str, Any] = field(default_factory=dict)
    """Durable calls inside it that wait now, by operation (`sdk.state.Waiting`)."""
    task: Any = None
    """The task of its body, when it awaits."""
    elsewhere: Any = None
    """What came back of its body, when that ran on a cluster (`_remote_parcel.Answer`)."""
    view: Any = None
    """What it shows of itself while it runs (`_steps_view.StepView`); None for most cells."""

    @property
    def inside(self) -> str:
        """The parent that durable calls made in it are recorded under; empty when none can be."""
        return children_of(self.operation, self.inputs) if self.holds_steps else ""

    @property
    def options(self) -> StepOptions:
        return self.request.options

    @property
    def label(self) -> str:
        """What to call it in a message."""
        if self.options.name:
            return self.options.name
        lines = (line.strip() for line in self.request.body.splitlines())
        first = next((line for line in lines if line and not line.startswith("#")), "(empty cell)")
        return first if len(first) <= 60 else first[:57] + "…"


_STATIC = ("source", "python", "name", "everything")
"""Kinds of input that are known before a cell runs."""


def children_of(operation: str, inputs: Inputs) -> str:
    """What durable calls inside a cell are recorded under: the cell, and the inputs it had when it started."""
    before = Inputs(item for item in inputs.values() if item.kind in _STATIC)
    return digest("children", operation, fingerprint(before))


@dataclass(frozen=True, slots=True)
class Marked:
    """A cell that is marked as a step by a magic."""

    options: StepOptions | None
    """None when they are wrong."""
    body: str
    """The source that runs, on the lines that it has in the cell."""
    error: ValidationError | None = None


def marked(raw: str) -> Marked | None:
    """What a cell asks for with `%%durable_step`, or with `%durable_step` as its only line; None for any other cell."""
    stripped = raw.lstrip()
    if not stripped.startswith("%"):
        return None
    lead = "\n" * raw[: len(raw) - len(stripped)].count("\n")
    line, _, body = stripped.partition("\n")
    word, _, rest = line.partition(" ")
    try:
        if word.rstrip() == MAGIC:
            return Marked(parse_magic_line(rest.strip()), f"{lead}\n{body}")
        if word == MAGIC[1:] and not body.strip():
            options, statement = parse_line_statement(rest)
            return Marked(options, lead + statement)
    except ValidationError as exc:
        return Marked(None, f"{lead}\n{body}", exc)
    return None


def magics_of(tree: ast.Module) -> list[MagicCall]:
    """The magics that are statements of a cell."""
    calls = (as_magic(node.value) for node in tree.body if isinstance(node, ast.Expr))
    return [call for call in calls if call is not None]


def message_id(parent: Any) -> str:
    """The id of a request; outputs name it as their parent's."""
    header = (parent or {}).get("header", {}) if isinstance(parent, dict) else {}
    return str(header.get("msg_id", ""))
