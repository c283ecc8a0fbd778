"""Names of files among the strings and paths that a cell has at hand.

Arrow, HDF5 and other programs open files on their own: no event tells. But somebody has to tell them which file, so
its name, or a part of it, is among the cell's literals or among the values it reads or binds. Whatever of these names
something that exists counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["candidates", "opens_by_itself"]

_ENGINES = frozenset(
    {"duckdb", "polars", "pyarrow", "pandas", "dask", "h5py", "tables", "netCDF4", "xarray", "rasterio", "osgeo", "cv2"}
    | {"tensorflow", "torch", "torchvision", "lightgbm", "xgboost", "catboost", "fastparquet", "vaex", "pyreadstat"}
    | {"subprocess", "geopandas", "fiona", "lance", "deltalake", "datasets", "transformers", "spacy", "soundfile"}
    | {"rpy2", "pyspark", "zarr", "tensorstore", "fsspec", "safetensors", "onnxruntime", "sklearn", "joblib", "sqlite3"}
)

_LONGEST = 1024
_WIDE = 10_000


def opens_by_itself(modules: Iterable[str]) -> bool:
    """Whether a cell that reaches these modules may read folders and files without Python seeing it."""
    return any(module.partition(".")[0] in _ENGINES for module in modules)


def candidates(literals: Iterable[str], values: Mapping[str, object]) -> list[str]:
    """Texts that may name a file, each once: whole strings, and the words of those with spaces (command lines, SQL)."""
    found: dict[str, None] = {}
    for text in literals:
        _add(found, text)
    for value in values.values():
        if isinstance(value, str):
            _add(found, value)
        else:
            found.update(dict.fromkeys(_texts_in(value)))
    return list(found)


def _add(found: dict[str, None], text: str) -> None:
    if not text or len(text) > _LONGEST or "\0" in text:
        return
    found[text.partition("://")[2] if text.startswith("file://") else text] = None
    if " " in text or "\n" in text:
        # Words without a dot or slash are language, not paths.
        for word in re.split(r"[\s'\"`(),;|<>]+", text):
            if "." in word.strip(".") or "/" in word:
                found[word] = None


_PATH = re.compile(r"[^\n\0]*/[^\n\0]*|[^\s\0]*\.\w{1,10}")
"""What a path inside a container looks like: with a slash or a suffix. Lists of words are long, and are no paths."""


def _texts_in(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) <= _LONGEST and _PATH.fullmatch(value):
            yield value
    elif isinstance(value, os.PathLike):
        path = os.fspath(value)
        if isinstance(path, str):
            yield path
    elif depth < 2 and type(value) in (list, tuple, set, frozenset, dict) and len(value) <= _WIDE:
        for part in list(value.values()) if isinstance(value, dict) else list(value):
            yield from _texts_in(part, depth + 1)
