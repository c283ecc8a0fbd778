"""What a step leaves in the notebook: a line of HTML and a sentence of text that depend on the cell's source only.

No times, attempts or ids: a notebook that is replayed, run anew, run by another tool or compared by nbval has the same
line. The HTML is a few tags with inline styles, since the page that shows it may have no style sheet of ours, and may
remove what is not plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from durable_nb._dataclass import dataclass

__all__ = ["Bundle", "StepFacts", "lasting", "step_bundle"]

Bundle = Mapping[str, str]
"""MIME type to text, as a display carries it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """What a cell's source says about its step."""

    label: str
    """Its name, else the first line of its source."""
    named: bool = False
    attempts: int = 1
    at_most_once: bool = False
    timeout: float | None = None
    """Seconds that one attempt may take."""
    on: str | None = None
    """The cluster that runs it."""
    waits: bool = False
    """Its durable calls wait for a time, a condition or somebody outside."""

    def promises(self) -> list[str]:
        """What was asked for, in words."""
        found = []
        if self.at_most_once:
            found.append("at most once")
        if self.attempts > 1:
            found.append(f"up to {self.attempts} attempts")
        if self.timeout is not None:
            found.append(f"at most {lasting(self.timeout)}" + (" each" if self.attempts > 1 else ""))
        if self.on is not None:
            found.append(f"on {self.on}")
        if self.waits:
            found.append("waits")
        return found


def step_bundle(facts: StepFacts, *, remark: str = "") -> Bundle:
    """The final display of a step.

    Args:
        facts: what the source says.
        remark: a further sentence, for a step that waits for a person and so is not finished.
    """
    promises = ", ".join(facts.promises())
    text = f"Durable step {facts.label}" + (f": {promises}." if promises else ".") + (f" {remark}" if remark else "")
    name = escape(facts.label)
    shown = f"<b>{name}</b>" if facts.named else f"<code>{name}</code>"
    rest = "".join(f" &middot; {escape(part)}" for part in facts.promises())
    told = f"<br>{escape(remark)}" if remark else ""
    html = (
        '<div style="border-left: 3px solid #2e7d6b; padding: 2px 0 2px 10px; margin: 2px 0; font-size: 90%;">'
        f"{shown} &middot; durable step{rest}{told}</div>"
    )
    return {"text/html": html, "text/plain": text}


def lasting(seconds: float) -> str:
    """A duration that somebody has asked for: `200 ms`, `90 s`, `10 min`, `2 h`."""
    if seconds < 1:
        return f"{seconds * 1000:g} ms"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
