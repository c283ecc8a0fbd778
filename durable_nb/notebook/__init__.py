"""The IPython extension: `%load_ext durable_nb`."""

from __future__ import annotations

from typing import Any

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """Add `%%durable_step`, `%durable_step` and `%durable` to this kernel."""
    from durable_nb.notebook._extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take everything away again; what is stored stays."""
    from durable_nb.notebook._extension import unload

    unload(shell)
