"""What a part of the process's state is, and how its values are written."""

from __future__ import annotations

import base64
import hashlib
import pickle
from typing import Any

from durable_nb.snapshot._digest import content_digest


class Part:
    """One pseudo-name."""

    name: str
    absent = "default"

    def read(self) -> Any:
        """The value now, or None when it is at its default."""
        raise NotImplementedError

    def version(self, value: Any) -> str:
        return content_digest([(self.name, value)]) or pickled_digest(value)

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        return {"value": packed(after)}

    def write(self, value: Any) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Put back what nobody chose: a cell undid what an earlier one had set."""
        raise NotImplementedError


def packed(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value, 5)).decode()


def unpacked(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))  # noqa: S301 - part of a manifest whose signature was checked


def pickled_digest(value: Any) -> str:
    return hashlib.blake2b(pickle.dumps(value, 5), digest_size=16).hexdigest()
