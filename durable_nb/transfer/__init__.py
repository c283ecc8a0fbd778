"""Copies of histories between stores: what `durable-nb push` and `durable-nb pull` do.

A copy adds to the target and never changes or removes what is there. It works through the ports, so between any two
stores. What it means, by the kind of what is copied:

**Executions** are the same when they have the same name. A target that has none of that name gets one. Two notebooks
of one name that share few cells are two notebooks: that is refused, and `rename` gives the copy a name of its own.

**Events** have no number in common (each store numbers its own), so an event is known by what it says: see `Item`.
What the target lacks is appended in the order of the source. The copy is signed with the key of who copies, so only
events that are signed with a key which that person trusts are copied; the others are told.

**Merging.** The target may have been written to as well. An event is never put before one that is there, so what may
be appended depends on how it will be read:

- *Ordinary cells.* Each completed run is a checkpoint of its own, which is checked against its inputs before it is
  given back, and of several valid ones the newest by its time is taken: their order in the journal means nothing. So
  the runs of both sides are joined. Starts, failures and retries only tell how far one kernel came: they are copied
  where the target has the beginning of the same story, and left out where it has another one.
- *Durable steps inside a cell* are one story: a later step may rest on what an earlier one gave. They are copied as
  far as the target has the beginning of this story (or nothing). Where both sides ran, each keeps its own: two runs
  are never woven into one.
- *At-most-once cells* likewise: each side keeps its own story when there are two.
- *Handlers* are copied when they have ended, whole and in one transaction: name and result. One that has not ended
  would be driven by the workers of two stores, so it stays where it is. Two different histories of one name stay
  apart.

**At most once.** A body that was begun on either side was begun. Markers are copied first, always, also when no row
is; they are never removed. What would let a body begin is not copied: an open start (the target would take it for an
interrupted attempt, and may be allowed to try again), an open retry, a decision `--again` that nobody has used. The
target then finds the marker alone and asks. Where a row says that a body was begun and its marker cannot be read, the
target gets a marker made of the row. When the target holds a marker that is not the source's, both sides began: that
is told, and the target goes on asking.

**Blobs** go before the rows that name them. They are verified when they are read, and in the target they are held
(`Store.hold`) until the store is closed, so that a collection takes none before its row is there. An encrypted store
has other addresses for the same bytes: there the names of blobs are translated, in rows and in manifests.

**Killed** at any point: markers that were copied make the target ask; blobs without a row are found in place by the
next copy, or collected; rows come in groups that are whole stories. The same command again goes on from there, since
what is there is known by what it says. The target's lease is held only while rows are written, and every group is
refused when somebody else has written since the target was read; then the difference is taken anew.
"""

from durable_nb.transfer._blobs import is_sealed
from durable_nb.transfer._copy import Copied, Transferred, transfer
from durable_nb.transfer._merge import Left

__all__ = ["Copied", "Left", "Transferred", "is_sealed", "transfer"]
