"""What `push` and `pull` share: two stores, what is copied between them, and what is said about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from durable_nb.amounts import size
from durable_nb.cli._exit import Complaint, ExitCode
from durable_nb.cli._format import as_json, printable
from durable_nb.cli._places import place_of
from durable_nb.encryption import KEYRING, is_encrypted
from durable_nb.exceptions import StoreError
from durable_nb.runtime import Store, find_store, open_store
from durable_nb.settings import STORE_DIRECTORY, Settings, StoreUrl
from durable_nb.transfer import Copied, Transferred, transfer

__all__ = ["As", "DryRun", "Executions", "InTheOpen", "Other", "Stores", "copy"]

Other = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URL of the other store.")]
Executions = Annotated[
    list[str] | None,
    typer.Argument(metavar="[EXECUTION]…", help="Names, or paths of notebooks; else all that there is."),
]
As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="What the one notebook is called there.")]
InTheOpen = Annotated[
    bool,
    typer.Option("--in-the-open", help="Copy what is encrypted into a store that is not."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be copied.")]


class Stores:
    """The local store and the other one, and which of them is the source.

    Args:
        local: `--store`.
        other: folder or URL.
        names: executions as the user names them.
        subject: what the copy of the one execution is called, when it gets another name.
        pull: whether the local store is the target.
    """

    def __init__(
        self, local: str | None, other: str, names: Sequence[str], *, subject: str | None = None, pull: bool
    ) -> None:
        self.here = _local_place(local, [subject] if subject else names, pull=pull)
        self.there = find_store(Settings(store=other), Path.cwd())
        self.pull = pull
        self.names = names

    @contextmanager
    def opened(self, *, in_the_open: bool, create: bool) -> Iterator[tuple[Store, Store]]:
        """Source and target. The target is made when there is none, the source never is."""
        source, target = (self.there, self.here) if self.pull else (self.here, self.there)
        settings = Settings.from_environment()
        # Reading an open store is no writing to it, whatever key is set for others.
        reading = settings if _is_sealed(source) else replace(settings, encryption_key=None)
        key = _key_of(target, settings.encryption_key, _is_sealed(source), in_the_open)
        writing = replace(settings, encryption_key=key)
        first = open_store(source, settings=reading, create=False)
        try:
            second = open_store(target, settings=writing, create=create)
            try:
                yield first, second
            finally:
                second.close()
        finally:
            first.close()


def _local_place(option: str | None, names: Sequence[str], *, pull: bool) -> Path | StoreUrl:
    """The local store; for `pull` the one that a kernel of the notebook will open, whether or not there is one."""
    subject = next((name for name in names if name.endswith(".ipynb")), None)
    if pull and subject is not None and option is None and Settings.from_environment().store is None:
        return Path(subject).absolute().parent / STORE_DIRECTORY
    return place_of(option, subject)


def _is_sealed(place: Path | StoreUrl) -> bool:
    return isinstance(place, Path) and is_encrypted(place)  # stores on a server never are


def _key_of(target: Path | StoreUrl, key: str | None, from_sealed: bool, in_the_open: bool) -> str | None:
    """What the target is opened or made with; a mix that is refused is refused by who knows the words for it."""
    if isinstance(target, StoreUrl):
        return None
    if is_encrypted(target):
        return key
    if in_the_open or (from_sealed and (target / "journal.db").exists()):
        return None
    # A source that opens without the variable has its key in the keyring: a new target does so too.
    return key or KEYRING if from_sealed else key


def copy(stores: Stores, *, rename: str | None, in_the_open: bool, dry_run: bool, json_output: bool) -> int:
    """Copy, and say what was copied."""
    with stores.opened(in_the_open=in_the_open, create=not dry_run) as (source, target):
        local = target if stores.pull else source
        names = [_name(source, local, name) for name in stores.names] or None
        if rename is not None and stores.pull:
            rename = _inside(rename, local)
        with _progress(quiet=json_output) as tell:
            try:
                done = transfer(
                    source,
                    target,
                    names,
                    rename=rename,
                    in_the_open=in_the_open,
                    dry_run=dry_run,
                    on_progress=tell,
                    on_wait=_say_who,
                )
            except (OSError, StoreError) as exc:
                raise Complaint(f"the copy ended early: {exc}; the same command goes on from there") from exc
        _say(done, source, target, dry_run=dry_run, json_output=json_output)
    return ExitCode.OK if done.good else ExitCode.FAILED


def _name(source: Store, local: Store, text: str) -> str:
    """The execution that `text` names: by its name, or by the path of its notebook in the local project."""
    journal = source.journal
    if journal.find(text) is not None:
        return text
    if text.endswith(".ipynb"):
        name = _inside(text, local)
        if journal.find(name) is not None:
            return name
        path = os.path.abspath(text)  # noqa: PTH100 - leaves links alone
        for record in journal.executions():
            if record.details.get("path") == path:
                return record.name
    names = [record.name for record in journal.executions() if record.details]
    known = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise Complaint(f"there is no execution {text!r} in {source.label} ({known or 'it is empty'})")


def _inside(text: str, local: Store) -> str:
    """What a kernel calls the notebook at this path: its path in the project of the local store."""
    name = os.path.relpath(os.path.abspath(text), local.place.parent if local.url is None else None)  # noqa: PTH100 - leaves links alone
    return text if not text.endswith(".ipynb") or name.startswith(os.pardir) else name


# --- what is said -----------------------------------------------------------------------------------------------------


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Any]:
    """A line on a terminal that tells how far it is, and goes when it is done."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("looking", spinner="dots") as status:
        yield lambda copied: status.update(f"{printable(copied.name)}: {_amount(copied)}")


def _say_who(copied: Copied, holder: str) -> None:
    sys.stderr.write(f"durable-nb: {printable(copied.name)} is held by {printable(holder)} in the target: waiting\n")


def _amount(copied: Copied) -> str:
    cells = f"{copied.cells} cell{'' if copied.cells == 1 else 's'}"
    return f"{copied.records} records ({cells}), {size(copied.nbytes)}"


def _line(copied: Copied) -> str:
    parts = [_amount(copied)] if copied.records else []
    if copied.markers:
        parts.append(f"{copied.markers} start{'' if copied.markers == 1 else 's'} of at-most-once steps")
    if not parts and not copied.left:
        return f"up to date ({copied.present} records)"
    return "; ".join(parts or ["nothing new"])


def _say(done: Transferred, source: Store, target: Store, *, dry_run: bool, json_output: bool) -> None:
    if json_output:
        sys.stdout.write(as_json(_as_object(done, source, target, dry_run=dry_run)) + "\n")
        return
    for copied in done.executions:
        sys.stdout.write(f"{printable(copied.name)}: {_line(copied)}\n")
        for left in copied.left:
            sys.stderr.write(f"durable-nb: {'' if left.problem else 'note: '}{printable(str(left))}\n")
    total = Copied("", "")
    for copied in done.executions:
        total.records += copied.records
        total.cells += copied.cells
        total.nbytes += copied.nbytes
    verb = "would copy" if dry_run else "copied"
    own = "" if dry_run or not total.records or Settings.from_environment().key else _OWN_KEY
    sys.stdout.write(f"{verb} {_amount(total)} from {source.label} to {target.label}{own}\n")


_OWN_KEY = ", signed with your own key (a team sets DURABLE_NB_KEY)"


def _as_object(done: Transferred, source: Store, target: Store, *, dry_run: bool) -> dict[str, Any]:
    return {
        "from": source.label,
        "to": target.label,
        "dry_run": dry_run,
        "executions": [
            {
                "name": copied.name,
                "kind": copied.kind,
                "records": copied.records,
                "cells": copied.cells,
                "present": copied.present,
                "blobs": copied.blobs,
                "bytes": copied.nbytes,
                "markers": copied.markers,
                "left": [{"what": left.what, "why": left.why, "problem": left.problem} for left in copied.left],
            }
            for copied in done.executions
        ],
        "ok": done.good,
    }
