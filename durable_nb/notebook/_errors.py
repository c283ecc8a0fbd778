"""Errors of cells: as the journal keeps them, and as the notebook shows them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from durable_nb import exceptions
from durable_nb.events import ErrorInfo
from durable_nb.exceptions import DurableExecutionsError

if TYPE_CHECKING:
    from durable_nb.notebook._plan import Plan


def error_info(error: BaseException, is_user_file: Callable[[str], bool]) -> ErrorInfo:
    """The error with the user's own frames."""
    kind = type(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_user_file(frame.filename)]
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    return ErrorInfo(type=name, message=str(error), traceback=tuple(traceback.format_list(frames)))


class Shown:
    """Mixin of errors that the notebook shows as the lines that say what to do, without frames of ours."""

    lines: tuple[str, ...] = ()

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}", *self.lines]


class StepChangedError(Shown, exceptions.StepChangedError):
    """Raised in the place of an at-most-once step that was done with other inputs; says which and what to type."""


class CannotTravelError(Shown, exceptions.CannotTravelError):
    """Raised in the place of a cell that cannot run on a cluster, or whose effects cannot come back from there."""


class NotBegunError(CannotTravelError):
    """Raised when a worker has refused a cell: no instruction of its body has run."""


class ExecutorError(Shown, exceptions.ExecutorError):
    """Raised in a cell whose cluster cannot be used, or was lost while the cell ran there."""


class WorkerLostError(Shown, exceptions.WorkerLostError):
    """Raised in a cell whose worker was lost, when its body is not begun again."""


class LostValueError(Shown, exceptions.LostValueError):
    """Raised in the place of a cell that needs a replayed value which cannot be loaded any more."""

    lines = ("Run the cell that makes it again; a Run All on a fresh kernel does so by itself.",)


class StepInterruptedError(Shown, exceptions.StepInterruptedError):
    """Raised in the place of an at-most-once step that must not be started; says why and what to type."""

    @classmethod
    def of(cls, name: str, plan: Plan) -> StepInterruptedError | StepChangedError:
        """The error of a plan that refuses."""
        answer = plan.verdict.answer if plan.verdict is not None else None
        if answer == "changed":
            changed = StepChangedError(name, plan.reason)
            changed.lines = (*plan.difference, *_CURES[answer].format(name=name).splitlines())
            return changed
        what = {
            "interrupted": f"step {name!r} may have happened: {plan.reason}",
            "failed": f"step {name!r} failed: {plan.reason}",
        }.get(answer or "", plan.reason)
        error = cls(what, name)
        error.lines = (*plan.difference, *_CURES.get(answer or "", "").format(name=name).splitlines())
        return error


_CURES = {
    "changed": (
        "At-most-once steps do not run again by themselves. Decide:\n"
        "  %durable resolve {name} --keep     the recorded result stays valid\n"
        "  %durable resolve {name} --again    run it once more"
    ),
    "interrupted": (
        "Find out whether it happened, then decide:\n"
        "  %durable resolve {name} --succeeded   it happened; go on without running it\n"
        "  %durable resolve {name} --failed      it did not happen; the step counts as failed\n"
        "  %durable resolve {name} --again       run it once more"
    ),
    "failed": "  %durable resolve {name} --again       run it once more",
}


class StaleFileError(Shown, DurableExecutionsError):
    """Raised in a cell that opens a file which a replayed cell wrote, and which holds another state now."""

    def __init__(self, key: str, writer: str) -> None:
        super().__init__(key, writer)
        self.key, self.writer = key, writer
        self.lines = (f"  Run the cell that writes it again: %durable rerun {writer}",)

    def __str__(self) -> str:
        return f"{self.key} does not hold what {self.writer!r} wrote at this place, and is too large to be put back"
