"""durable_nb: notebooks whose completed cells survive the kernel, and durable executions on the same engine.

Importing this package loads nothing heavy: each public name brings its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE: dict[str, str] = {
    "load_ipython_extension": "durable_nb.notebook",
    "unload_ipython_extension": "durable_nb.notebook",
}
"""Public names and the modules that define them."""

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
