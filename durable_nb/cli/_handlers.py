"""What the verbs for handlers share: the store that handlers use, handler references, JSON on the command line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from durable_nb.cli._exit import Complaint
from durable_nb.runtime import Store, find_store, is_store, open_store
from durable_nb.settings import Settings

if TYPE_CHECKING:
    from durable_nb.sdk.execution import DurableHandler

__all__ = ["handler_at", "json_argument", "opened_for_handlers", "print_json"]


@contextmanager
def opened_for_handlers(option: str | None, *, create: bool) -> Iterator[Store]:
    """The store that `handler.run` would use in this folder."""
    settings = Settings(store=option) if option is not None else Settings.from_environment()
    place = find_store(settings, Path.cwd())
    if not create and not is_store(place):
        raise Complaint(f"there is no store at {place}: name one with --store")
    store = open_store(place, create=create)
    try:
        yield store
    finally:
        store.close()


def handler_at(reference: str) -> DurableHandler[Any, Any]:
    """The handler at `module:function`, looked for in the working directory too."""
    from durable_nb.sdk._registry import import_handler
    from durable_nb.sdk.execution import DurableHandler

    folder = os.fspath(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found = import_handler(reference)
    if not isinstance(found, DurableHandler):
        raise Complaint(f"{reference} is no durable handler: decorate it with @durable_execution")
    return found


def json_argument(text: str | None, what: str) -> Any:
    """The value of a JSON option; `@file` and `-` read it from a file or from standard input."""
    if text is None:
        return None
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as exc:
            raise Complaint(f"{what}: cannot read {text[1:]}: {exc.strerror}") from None
    try:
        return json.loads(text)
    except ValueError as exc:
        raise Complaint(f"{what} is not JSON: {exc}") from None


def print_json(value: Any) -> None:
    """A value for a script to read."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except ValueError:
        text = repr(value)
    sys.stdout.write(f"{text}\n")
