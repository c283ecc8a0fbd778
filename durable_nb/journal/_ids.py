"""Ids of executions: they begin with the time, so that what is written together lies together in every index."""

from __future__ import annotations

import secrets
import time

__all__ = ["new_execution_id"]


def new_execution_id() -> str:
    """A new id, in 32 hexadecimal digits: a UUID of version 7.

    Milliseconds since the epoch come first, then 74 random bits. With random ids alone each new execution would begin
    at another place of every index, and a server's log would get a whole page for each. Clocks that disagree cost
    some of that and nothing else: nobody reads an order or a time out of an id. The random bits are as many as nobody
    guesses: the id of a callback, which contains this one, can still be handed out.
    """
    milliseconds = time.time_ns() // 1_000_000 & (1 << 48) - 1
    version_and_variant = 7 << 76 | 0b10 << 62
    return f"{milliseconds << 80 | version_and_variant | secrets.randbits(12) << 64 | secrets.randbits(62):032x}"
