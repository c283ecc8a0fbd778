"""What a cell that runs on a cluster takes with it, and what comes back.

Both are pickles of plain values; the notebook's own values are in manifests (`snapshot/_travel.py`), whose large blobs
travel beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from durable_nb.cells import Input, Observed, Reads
from durable_nb.notebook._remote_logs import Handler

ERROR = "_durable_nb_error_{}"
"""Names under which the error of a body, and those that led to it, come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What goes there."""

    label: str
    place: str
    source: str
    """The body, as the user wrote it."""
    filename: str
    """Under which the kernel has compiled it."""
    number: int
    """Of its result: `Out[number]`."""
    manifest: Mapping[str, Any]
    order: Sequence[str]
    """The names in it, as they stand in the namespace."""
    results: Mapping[str, str]
    """`_`, `__` and `___` to the pseudo-names of the results that they are, as far as these travel."""
    filenames: Mapping[str, str]
    """Cells that the definitions in it come from: digest of the source to the name of the file."""
    blobs: Sequence[str]
    """Addresses of the large blobs, in the order in which they come."""
    small: Mapping[str, bytes]
    """The other blobs."""
    reads: Reads
    """Without live objects."""
    spared: frozenset[str]
    needed: Sequence[str]
    """Top-level modules that the kernel has loaded and the cell can reach."""
    code: Mapping[str, str]
    """Local modules that the cell can reach, and their versions in the kernel."""
    process: Mapping[str, Any]
    """The state of the kernel's process, as a delta from nothing."""
    logs: Sequence[Handler]
    """Handlers of loggers."""
    environ: Mapping[str, str | None]
    """Variables that the notebook has set or removed."""
    magics: Sequence[tuple[str, str]]
    """Magics that say how results are shown."""
    started_in: str
    """The folder in which the kernel started."""
    paths: Sequence[str]
    """The kernel's import path, without what is installed."""
    project: str
    store: str
    stale: frozenset[str]
    """Files that do not hold what belongs at this place of the notebook."""
    key: bytes
    """For the digests of environment variables."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """What comes back of a body that has ended, or of one that was not begun."""

    refused: str | None = None
    """Why the body was not begun."""
    raised: bool = False
    chain: Sequence[Mapping[str, Any]] = ()
    """The error, and those that led to it: see `_remote_shell.Errors`."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, bytes] = field(default_factory=dict)
    blobs: Sequence[str] = ()
    order: Sequence[str] = ()
    has_result: bool = False
    lost: Sequence[str] = ()
    """What a body that failed has changed and that cannot come back, in words."""
    stays: str | None = None
    """What the body has done to the process there, and that does not come back, in words."""
    logs: Sequence[Handler] = ()
    """Handlers of loggers, after the body."""
    environ: Mapping[str, str | None] = field(default_factory=dict)
    observed: Observed | None = None
    seen: Sequence[Input] = ()
    code: Sequence[Input] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    """Files that the body wrote, and their versions there."""
    seconds: float = 0.0


__all__ = ["ERROR", "Answer", "Parcel"]
