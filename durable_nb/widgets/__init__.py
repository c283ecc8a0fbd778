"""What a front end shows: live widgets, and the plain HTML and text that stay in the saved notebook.

Nothing here is imported before something is shown; `anywidget` is imported by the module that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durable_nb.widgets.final import Bundle, StepFacts, step_bundle

if TYPE_CHECKING:
    from durable_nb.widgets.steps import StepWidget as StepWidget

__all__ = ["Bundle", "StepFacts", "StepWidget", "step_bundle"]


def __getattr__(name: str) -> Any:
    if name == "StepWidget":
        from durable_nb.widgets.steps import StepWidget

        return StepWidget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
