"""How error classes are named on the wire."""

from __future__ import annotations

_PUBLIC_HOME = {"durable_nb.exceptions": "durable_nb.sdk.exceptions"}
"""Errors are defined below the SDK but users (and ported code) import and compare them under the SDK's module."""


def qualified_name(cls: type) -> str:
    """`module.Class`; built-in classes are bare."""
    recorded: object = cls.__dict__.get("__durable_type__")
    if isinstance(recorded, str):
        return recorded
    module = _PUBLIC_HOME.get(cls.__module__, cls.__module__)
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"
