"""The live widget of a running step. It shows `state` and sends back which button was pressed; nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from durable_nb.widgets.final import Bundle

__all__ = ["StepWidget"]

_STATIC = Path(__file__).parent / "static"


class StepWidget(anywidget.AnyWidget):
    """A step that is being run, waits for its next attempt, or needs a person.

    A press arrives as a custom message `{"kind": "cancel", "run": 3}`: `run` is the state's, so that a late press never
    hits the next run of the cell.
    """

    _esm = _STATIC / "steps.js"
    _css = _STATIC / "steps.css"

    state = traitlets.Dict(help="See the typedef State in static/steps.js.").tag(sync=True)

    def __init__(self, key: str, state: dict[str, Any], fallback: Bundle) -> None:
        """
        Args:
            key: the id that the model and its channel get.
            state: what to show first.
            fallback: for pages that have no widgets.
        """
        super().__init__(state=state, model_id=key)
        self._fallback = dict(fallback)

    @property
    def comm_id(self) -> str:
        """The id of its channel, by which a press is recognised before anything else runs."""
        return str(self.comm.comm_id)

    def bundle(self) -> dict[str, Any]:
        """What to display: the widget, and the final text for pages that have no widgets."""
        view = {"version_major": 2, "version_minor": 1, "model_id": self.model_id}
        return {"application/vnd.jupyter.widget-view+json": view, **self._fallback}
