"""Settings, frozen; read once from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.exceptions import ValidationError

STORE_DIRECTORY = ".durable"
"""Name of the store's directory beside the notebook."""

_CACHE_SIZE = "20GB"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A store on a server, as the user names it."""

    text: str

    @property
    def scheme(self) -> str:
        """What stands before `://`."""
        return self.text.partition("://")[0]

    def __str__(self) -> str:
        """For people: without the password."""
        return re.sub(r"(?<=[?&]password=)[^&]*", "***", re.sub(r"(://[^:/@?]*):[^@/?]*@", r"\1:***@", self.text))

    def __repr__(self) -> str:
        return f"StoreUrl({str(self)!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user may decide for a whole session."""

    store: str | None = None
    """Directory or URL of the store; None is `.durable/` beside the notebook."""

    execution: str | None = None
    """Name of the execution; None derives it from the notebook's path."""

    key: str | None = None
    """Secret that signs checkpoints; None uses the per-user key."""

    encryption_key: str | None = None
    """Secret that a new store is encrypted with and an encrypted one opened with; `keyring` is the system's keyring."""

    inline_limit: int = 32 * 1024
    """Bytes. A smaller payload stays in the journal row; a larger one becomes a blob."""

    output_limit: int = 16 * 1024 * 1024
    """Bytes of output kept per cell; what comes after is dropped with a note."""

    restore_file_limit: int = 16 * 1024 * 1024
    """Bytes. A file that a cell wrote is kept for restoring up to this size."""

    blobs: str | None = None
    """Folder or bucket (`s3://bucket/prefix`) of the large blobs of a store on a server; None keeps them in it."""

    cache: str | None = None
    """Folder of the blobs that were read from a store on a server; None is one in the user's cache directory."""

    cache_size: str = _CACHE_SIZE
    """Size of the folder of copies; the least recently used ones go when it has more."""

    store_limit: str | None = None
    """Size (`20GB`) that the store may have; the oldest checkpoints go when it has more. None: no limit."""

    store_days: str | None = None
    """Days that a replaced checkpoint is kept; None: as long as there is room."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Settings as the variables `DURABLE_NB_STORE`, `DURABLE_NB_KEY` and the like give them."""
        env = os.environ if environ is None else environ
        return cls(
            store=env.get("DURABLE_NB_STORE") or None,
            execution=env.get("DURABLE_NB_EXECUTION") or None,
            key=env.get("DURABLE_NB_KEY") or None,
            encryption_key=env.get("DURABLE_NB_ENCRYPTION_KEY") or None,
            blobs=env.get("DURABLE_NB_BLOBS") or None,
            cache=env.get("DURABLE_NB_CACHE") or None,
            cache_size=env.get("DURABLE_NB_CACHE_SIZE") or _CACHE_SIZE,
            store_limit=env.get("DURABLE_NB_STORE_LIMIT") or None,
            store_days=env.get("DURABLE_NB_STORE_DAYS") or None,
        )

    def store_for(self, folder: Path) -> str:
        """The store of a notebook in `folder`."""
        return self.store or str(folder / STORE_DIRECTORY)


_UNITS = {"": 0, "b": 0, "k": 3, "kb": 3, "m": 6, "mb": 6, "g": 9, "gb": 9, "t": 12, "tb": 12}


def size_of(text: str) -> int:
    """`500 MB`, `20G`, `1000000`: bytes.

    Raises:
        ValidationError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].lower() not in _UNITS:
        raise ValidationError(f"{text!r} is no size: write for example 500MB or 20GB")
    return int(float(found[1]) * 10 ** _UNITS[found[2].lower()])


def is_listed_secret(name: str) -> bool:
    """Whether the user's list says that the value of this name or variable is never written.

    The list is `DURABLE_NB_SECRETS`: names or patterns (`*_dsn`), separated by commas or spaces.
    """
    patterns = _patterns(_listed())
    return bool(patterns) and any(fnmatchcase(name.lower(), pattern) for pattern in patterns)


def _listed() -> str:
    # Around `os.environ`, whose reads are noted as those of a cell: each name is asked for, several times a cell.
    data: Any = getattr(os.environ, "_data", None)
    if data is None:
        return os.environ.get(_SECRETS, "")
    found = data.get(os.environ.encodekey(_SECRETS))
    return "" if found is None else os.environ.decodevalue(found)


_SECRETS = "DURABLE_NB_SECRETS"


@lru_cache(maxsize=8)
def _patterns(text: str) -> tuple[str, ...]:
    return tuple(part.lower() for part in re.split(r"[,\s]+", text) if part)
