"""Open pyplot figures as names: `Figure[1]`. What `plt.gcf()` gives is state that cells leave for each other.

With the inline back end every figure is closed when its cell ends, and there is nothing here. With another one a figure
stays open, bound to a variable or not; its pseudo-name puts it into the group of that variable, and binding the
pseudo-name opens it again under its number.
"""

from __future__ import annotations

import re
import sys
from typing import Any

NAME = re.compile(r"Figure\[(\d+)\]")


def _managers() -> Any:
    helpers: Any = sys.modules.get("matplotlib._pylab_helpers")
    return getattr(helpers, "Gcf", None)


def open_figures() -> dict[str, Any]:
    """Pseudo-names and figures, the current one last."""
    managers = _managers()
    if managers is None or not managers.figs:
        return {}
    return {f"Figure[{number}]": manager.canvas.figure for number, manager in list(managers.figs.items())}


def open_figure(name: str, figure: Any) -> None:
    """Make a restored figure pyplot's figure of that number, and the current one."""
    import matplotlib.pyplot as plt

    number = int(NAME.fullmatch(name)[1])  # type: ignore[index]
    managers = _managers()
    held = managers.figs.get(number)
    if held is not None and held.canvas.figure is figure:
        managers.set_active(held)
        return
    if held is not None:
        managers.destroy(number)
    manager = plt._get_backend_mod().new_figure_manager_given_figure(number, figure)
    managers._set_new_active_manager(manager)


def close_figure(name: str) -> None:
    """Close what a cell closed."""
    managers = _managers()
    if managers is not None:
        managers.destroy(int(NAME.fullmatch(name)[1]))  # type: ignore[index]
