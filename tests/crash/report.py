"""Makes `docs/reliability.md` from the evidence of a soak: `python -m tests.crash.report EVIDENCE`."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

HEAD = """\
# Reliability

Each promise, how it is kept, what was tried, and what is out of scope. The table of counts is made by `make soak`
(`python -m tests.crash.report`); a seeded sample of all of it runs in `make test`.

## Promises

| promise | how it is kept | tried by |
| --- | --- | --- |
| When a cell's reply has come, or `context.step` has returned, its checkpoint is on disk | blobs are written, synced, renamed, their folder synced; then one SQLite commit with `synchronous=FULL`; then the reply | crash matrix |
| A kill or a loss of power at any instruction loses at most what was in flight | nothing is rewritten in place; a checkpoint is one row; what is not named by a row is nothing | crash matrix with SIGKILL, torn writes and a disk that forgets what was not synced |
| A full or failing disk fails no ordinary cell | the cell is *not durable*, with one line; only a durable call inside a cell, which promises durability, fails | crash matrix with ENOSPC, EIO, SQLITE_BUSY |
| An at-most-once body, of a cell or of a handler's step, never begins twice | an exclusive, synced marker file outside the database before its first instruction; a journal that is lost, damaged, put back from an old copy, deleted under a running process or of another key makes the step ask | crash matrix, damage, two owners, owners stopped at every point |
| Two kernels never interleave | a lease with a token that only grows, compared inside each transaction; a late owner's write is refused whatever it believes | a model of the protocol, 8 processes, owners stopped with SIGSTOP, clocks that jump |
| Damage costs the cell concerned, not the notebook | every row is signed, every blob is named by its hash; `durable-nb verify --repair` moves what is damaged to `quarantine/` and keeps the rest | flipped bits, truncated and overwritten databases, missing logs and blobs, links, pipes, giants |
| A stranger's bytes are never loaded | see [SECURITY.md](../SECURITY.md) | every column, fuzzed rows, manifests, blobs, markers, payloads and sealed messages, hostile names, rows that name modules, files and other executions |
| What SQLite has committed survives a tear in its own files | its log is checked frame by frame; what follows a torn frame is as if it had not been | logs and databases cut and overwritten at random bytes and sectors, against frames counted by ourselves; writers killed while they write |
| Load leaves nothing behind | leases, locks and threads end with their work; the steps of finished handlers are collected | 16 concurrent branches in 4 executions at a time under a worker that is killed at random: memory, open files, threads and store size stay flat |
| The store does not grow without bound | `durable-nb gc`, `DURABLE_NB_STORE_LIMIT`, `DURABLE_NB_STORE_DAYS`; blobs are moved aside before they are removed, so that a writer or reader under way loses nothing | collections and repairs killed at each of their own writes |
| Old stores open | numbered migrations; a newer format is refused and left as it is | a recorded store of each format in `tests/formats` |

## The crash matrix

Every write, fsync, rename, link, `mkdir`, unlink and SQL statement under a store, and every reply of a cell, is a point
(`durable_nb.testing.faults_store`). The points are the calls themselves, seen by a layer that is put in place only when a
fault is rehearsed, so that they cost nothing otherwise and none can be forgotten. A run is counted once; then, for each
point and each fault that makes sense there, a fresh kernel or process lives it, a second one recovers, and a third one
must find everything done. After each case: no committed checkpoint is lost or changed, no at-most-once body began twice,
values are those of an undisturbed run, the store opens without help, and what needs a decision asks for it.

A loss of power is simulated above the file system: bytes without fsync, names without a synced folder and the log after
its last synced commit are gone. Real disks keep more.

## Counts

"""

BEYOND = """
## Beyond one machine

Faults of a [shared store, its workers and its cluster](scale.md), counted by the same command. *Lost*: what was acknowledged
and is not there, is not what it was, or never came to its end. *Doubled*: an at-most-once body that began again, or a record
that is there twice. Both are found by comparing with a model, and a test fails when it finds one. A case is one fault (a
kill, a cut, a partition) or one random program with faults in it; `DURABLE_NB_SEED` draws other ones (here 1).

"""

TAIL = """
## Limits

- SQLite's own writes are cut from outside (copies of its files are torn, its process is killed); no fault is put into its
  system calls.
- An owner that is stopped inside a transaction holds the database for everybody: others wait for it, and say so after 30
  seconds. Such cases are counted, and not as taken over.
- Hypothesis fuzzes in every run. Coverage-guided fuzzing needs `atheris` (the extra `fuzz`), which is not there for every
  Python; without it `make soak` says so and leaves that line out of the table.
- On network file systems the store uses a rollback journal and reads instead of mapping; that was not tried with power
  loss. A disk that lies about fsync is beyond any program.
- An at-most-once *step of a handler* (`StepSemantics.AT_MOST_ONCE_PER_RETRY`) whose end was lost and whose start was not is
  an interrupted attempt, and the retry strategy that you gave decides: give none where nothing may happen twice.
- Markers are files of the store: deleting the store directory deletes them.
- The bucket of the tests is moto's S3 server behind a front that draws faults; no provider's own was tried. *Stale* is an
  object that is not shown yet: nothing is overwritten there, so nothing old can be shown in its place.
- Hosts of the tests are network namespaces on one machine: networks, processes and identities of their own, one clock, one
  kernel. They take root, and so does the full disk, which is a limit of file sizes without it; the table says so.
- PostgreSQL is killed with all its processes, and its machine is not: what a loss of power takes is up to its `fsync`.
- A clock that jumps forward can end the lease of an owner on *another host* early; the token still keeps the late owner
  from writing. On one host a lease never ends by time while its process lives.
"""


_BEYOND = {
    "PostgreSQL killed under load": "all its processes get SIGKILL while six threads append, with and without waiting for "
    "the disk, and claim the same at-most-once starts",
    "connection cut, at each message of the protocol": "in both directions, in one life of a store; COMMIT and its answer "
    "among them: the outcome is found out",
    "partition longer than the lease": "a worker is cut off in the middle of eight executions, another takes over, and what "
    "was on its way arrives when it is over",
    "partition between hosts": "three network namespaces: PostgreSQL over TCP, and a worker with a home, a cache and a "
    "machine id of its own in each of two; the link of one goes down while it is in a step",
    "object store answering 500, slow, stale, half or not": "random programs of two machines over an S3 server; also "
    "requests that are done and answered with 500, and answers that are cut",
    "disk of the cache full": "random programs on a disk of 1.5 MB that is full, filling or free, of bytes or of names",
    "Dask workers killed": "SIGKILL in the middle of batches, half of whose steps are at-most-once",
    "workers killed under load": "SIGKILL of `durable-nb worker` while three of them drive orders with an at-most-once "
    "payment",
}
"""Kinds of faults, by the subject of their evidence: what is done. Each line counts what was `lost` and `doubled`."""


def page(lines: list[str]) -> str:
    """The page for these lines of evidence."""
    every = [json.loads(line) for line in lines]
    one = [found for found in every if "lost" not in found]
    return HEAD + _counts(one) + BEYOND + _tolls([found for found in every if "lost" in found]) + TAIL


def _counts(every: list[dict[str, Any]]) -> str:
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for found in every:
        subject = sums[found.pop("subject")]
        for name, count in found.items():
            subject[name] = max(subject[name], count) if name == "points" else subject[name] + count
    rows = ["| subject | tried |", "| --- | --- |"]
    for subject in sorted(sums):
        counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sums[subject].items())
        rows.append(f"| {subject} | {counts} |")
    return "\n".join(rows) + "\n"


def _tolls(every: list[dict[str, Any]]) -> str:
    """A row for each kind of fault, also for one that was not tried."""
    rows = [
        "| fault | what is done | cases | lost | doubled | seeds | in them |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    total: dict[str, int] = defaultdict(int)
    subjects = [*_BEYOND, *sorted({found["subject"] for found in every} - set(_BEYOND))]
    for subject in subjects:
        found = [each for each in every if each["subject"] == subject]
        what = _BEYOND.get(subject, "")
        if not found:
            rows.append(f"| {subject} | {what} | not tried | | | | |")
            continue
        sums: dict[str, int] = defaultdict(int)
        for each in found:
            for name, count in each.items():
                if name not in ("subject", "seed"):
                    sums[name] += count
        for name in ("cases", "lost", "doubled"):
            total[name] += sums[name]
        inside = ", ".join(
            f"{count:,} {name.replace('_', ' ')}"
            for name, count in sums.items()
            if name not in ("cases", "lost", "doubled")
        )
        seeds = _ranges({each["seed"] for each in found})
        rows.append(
            f"| {subject} | {what} | {sums['cases']:,} | {sums['lost']} | {sums['doubled']} | {seeds} | {inside} |"
        )
    rows.append(f"| **all** | | **{total['cases']:,}** | **{total['lost']}** | **{total['doubled']}** | | |")
    return "\n".join(rows) + "\n"


def _ranges(numbers: set[int]) -> str:
    """`0–3, 7`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in found)


if __name__ == "__main__":
    PAGE.write_text(page(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()), encoding="utf-8")
