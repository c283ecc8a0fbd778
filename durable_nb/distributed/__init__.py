"""Executors on clusters. The engine sees `durable_nb.abc.Executor` and nothing of what is behind it."""

from __future__ import annotations

import sys
from typing import Any

from durable_nb.abc import Executor
from durable_nb.exceptions import ValidationError

__all__ = ["executor_for"]


def executor_for(place: Any) -> Executor:
    """The executor of `dask://host:port` or of a `distributed.Client`. Nothing is connected before it is used.

    Raises:
        ValidationError: it is neither.
    """
    client = sys.modules.get("distributed.client")  # who has a client has loaded it
    if isinstance(place, str) and place.partition("://")[0] == "dask":
        from durable_nb.distributed.dask import DaskExecutor

        return DaskExecutor(place)
    if client is not None and isinstance(place, client.Client):
        from durable_nb.distributed.dask import DaskExecutor

        return DaskExecutor(place)
    raise ValidationError(f"{place!r} is no executor: give dask://host:port, a distributed.Client or an Executor")
