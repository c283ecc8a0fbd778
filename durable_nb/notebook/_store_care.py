"""Checking a store: every byte that a checkpoint names is there and is what its address says."""

from __future__ import annotations

from collections.abc import Iterator

from durable_nb.exceptions import StoreError
from durable_nb.runtime import Store


def verify(store: Store) -> Iterator[str]:
    """One line per finding, and a line with the counts at the end."""
    rows = untrusted = 0
    for record in store.journal.executions():
        for stored in store.journal.read(record.execution_id):
            rows += 1
            if not stored.trusted:
                untrusted += 1
                yield f"{record.name}: record {stored.sequence} was not signed with your key; it is never loaded"
    blobs = damaged = 0
    for address in sorted(store.journal.blob_refs()):
        blobs += 1
        try:
            store.blobs.get(address)
        except StoreError as exc:
            damaged += 1
            yield str(exc)
    yield f"{rows} records ({untrusted} not trusted), {blobs} blobs ({damaged} damaged or missing)"
