"""A small, masked view of a large value, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class PreviewMode(StrEnum):
    """What is shown when nothing is said about a field."""

    INCLUDE_ALL = "INCLUDE_ALL"
    EXCLUDE_ALL = "EXCLUDE_ALL"


class FieldMatchMode(StrEnum):
    """Whether a name matches at any depth or is a whole path."""

    ANYWHERE = "ANYWHERE"
    PATH = "PATH"


@dataclass(frozen=True)
class PreviewField:
    """A field by name, or by dotted path; it stands for everything below it."""

    name: str
    match: FieldMatchMode = FieldMatchMode.ANYWHERE


@dataclass(frozen=True)
class PreviewConfig:
    """What to show. Exclusion wins over masking, masking over inclusion."""

    mode: PreviewMode
    include: list[PreviewField] = field(default_factory=list)
    exclude: list[PreviewField] = field(default_factory=list)
    mask: list[PreviewField] = field(default_factory=list)
    mask_string: str = "***"
    max_preview_bytes: int = 4096
    """Fields beyond this size are left out, the earlier ones kept."""


def _matches(path: str, wanted: list[PreviewField]) -> bool:
    for one in wanted:
        if one.match is FieldMatchMode.ANYWHERE:
            if one.name in path.split("."):
                return True
        elif path == one.name or path.startswith(f"{one.name}."):
            return True
    return False


def _leaves(value: Any, path: str, config: PreviewConfig) -> Iterator[tuple[str, Any]]:
    """Shown fields as (dotted path, value). Items of lists share the list's path; a later one replaces an earlier."""
    if path and _matches(path, config.exclude):
        return
    if path and _matches(path, config.mask):
        yield path, config.mask_string
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key), config)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, (dict, list)):
                yield from _leaves(item, path, config)
    elif path and (config.mode is PreviewMode.INCLUDE_ALL or _matches(path, config.include)):
        yield path, value


def build_preview(value: Any, config: PreviewConfig) -> dict[str, Any] | None:
    """The preview of a dict; None when there is nothing to show."""
    if not isinstance(value, dict):
        return None
    fields: dict[str, Any] = {}
    size = 2
    for path, leaf in _leaves(value, "", config):
        size += len(f'"{path}":{json.dumps(leaf, default=str)},'.encode())
        if size > config.max_preview_bytes:
            break
        fields[path] = leaf
    preview: dict[str, Any] = {}
    for path, leaf in fields.items():
        target = preview
        *parents, last = path.split(".")
        for parent in parents:
            below = target.setdefault(parent, {})
            if not isinstance(below, dict):  # a scalar and a dict under one path (list items of mixed shape)
                below = target[parent] = {}
            target = below
        target[last] = leaf
    return preview or None


__all__ = ["FieldMatchMode", "PreviewConfig", "PreviewField", "PreviewMode", "build_preview"]
