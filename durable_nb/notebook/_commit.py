"""After the run: what the cell changed, whether it can be stored, and the commit.

A result is one event in one transaction; blobs are written before it. What cannot be stored is named (cell, name, type,
path, cure) and makes the cell run again at its place; what fails here is a warning and never the user's error.
"""

from __future__ import annotations

import ast
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from durable_nb.cells import FileState, Input, Inputs, Observed, digest, fingerprint, to_json
from durable_nb.events import EventKind
from durable_nb.exceptions import DamagedBlobError, DurableExecutionsError, LeaseLostError, NotStorableError, StoreError
from durable_nb.notebook._capture import Message
from durable_nb.notebook._cell import Cell, Report, magics_of
from durable_nb.notebook._errors import ExecutorError, NotBegunError, WorkerLostError, error_info
from durable_nb.notebook._home import Home
from durable_nb.notebook._left import left_by
from durable_nb.notebook._process_inputs import chosen_by, process_inputs
from durable_nb.notebook._records import cell_event
from durable_nb.notebook._results import same_objects
from durable_nb.notebook._secrets import is_secret
from durable_nb.snapshot import Delta, ProcessState, save, settle_starts

if TYPE_CHECKING:
    from durable_nb.notebook._session import Session

MANIFEST_FORMAT = 1

SHELL = "IPython"
"""The shell as a module that set-up cells change, an input of every cell with an expression that it may show."""

DISPLAY = "display"
"""How results are shown, which set-up cells change as well: an input of every cell that shows one."""

REGISTERED = "<registered>"
"""The part of the process's state that holds functions for the display."""

FORMATTING = frozenset({"config", "matplotlib", "pprint", "precision", "pylab"})
"""Magics that change how results are shown."""


class Committer:
    """Ends the cells of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- a cell that ran to its end --------------------------------------------------------------------------------

    def finish(self, cell: Cell) -> Report:
        """Take the picture after the run and commit it."""
        session = self._session
        seconds = time.perf_counter() - cell.clock
        observed = session.world.observer.end()
        if cell.elsewhere is not None:  # what happened here meanwhile was not the cell's doing
            observed = cell.elsewhere.observed
        items, models = session.tee.end()
        after = ProcessState.capture()
        inputs = self._inputs(cell, observed, after, items)
        mark = fingerprint(inputs)
        # A value without a canonical content is itself only as long as it is stored: each real run makes another one.
        # Declarations make the same each time, and what cannot be stored is not told apart (see `Tracker.after`).
        nonce = None if cell.declared else uuid.uuid4().hex
        reads = cell.reads
        assert reads is not None
        delta = session.tracker.after(
            cell.before,
            session.touched(cell),
            fingerprint=mark,
            nonce=nonce,
            binds=reads.certain,
            read=None if reads.everything is not None else inputs.of("name").keys(),
            process=after,
        )
        inputs.update(
            Input("name", name, version, session.book.origins.get(name)) for name, version in delta.inherited.items()
        )
        chosen = chosen_by(delta.process, reads.modules, session.book.chosen)
        session.book.chosen.update(chosen)
        files = session.world.ledger.wrote(observed, owner=cell.operation)
        self._follow_setups(cell, mark, delta)
        cell.wrote = tuple(delta.changed)
        for name in delta.changed:
            session.book.origins[name] = cell.label
        report = Report("executed", cell.reason, attempt=cell.attempt, seconds=seconds, difference=cell.difference)
        if not cell.managed:
            report.status = "not_durable"
            return report
        if cell.declared:
            settle_starts(cell.before.process)
            report.status = "declared"
            return report
        if cell.dirty:
            session.tracker.mark_dirty(delta.changed)
            report.status = "not_durable"
            report.reason = f"it may read {cell.dirty[0]}, which a failed cell left half-done; re-run what makes it"
            return report
        manifest: dict[str, Any] = {
            "format": MANIFEST_FORMAT,
            "fingerprint": mark,
            **({"chosen": chosen} if chosen else {}),
            "outputs": items if cell.options.store_output else [],
            "models": models if cell.options.store_output else {},
            "results": session.results_of(delta.changed),
            "same": same_objects(delta.groups, session.tracker),
            "has_result": cell.shown_result,
            **({"cleared": True} if session.tee.cleared else {}),
        }
        problem = self._problem(cell, delta)
        if problem is None and observed.trouble:
            problem = f"what it read could not be followed: {observed.trouble[0]}"
        self._commit(cell, report, inputs, manifest, delta, files, problem)
        return report

    def _inputs(self, cell: Cell, observed: Observed, after: ProcessState, items: Sequence[Message]) -> Inputs:
        """All that the cell depended on, as it was before the cell ran."""
        session, reads = self._session, cell.reads
        assert reads is not None
        inputs = Inputs(cell.inputs.values())
        # Not bound, or bound to the very object that it was: what the name is now is what it was before.
        left = session.tracker.left_alone(cell.before, cell.doubtful)
        inputs.update(cell.doubtful[name] for name in left)
        reached = frozenset(reads.modules).union(*(session.tracker.modules_of(name) for name in reads.names))
        inputs.update(session.world.code(reached) if cell.elsewhere is None else cell.elsewhere.code)
        inputs.update(session.book.of_setups(reached | _shown_through(cell, items)))
        process = process_inputs(cell.before.process.versions, after.versions, reached, session.book.chosen)
        inputs.update(Input("process", key, version) for key, version in process)
        if cell.elsewhere is not None:
            inputs.update(cell.elsewhere.seen)
            inputs.update(session.world.seen(Observed(), cell.options.depends_on))
            return inputs
        session.world.ledger.settle(
            observed, cell.foreseen, reads.literals, session.values_of(reads.names | reads.binds)
        )
        inputs.update(session.world.seen(observed, cell.options.depends_on))
        if ("cwd", "cwd") in inputs:
            inputs.add(Input("cwd", "cwd", cell.folder))  # not the one that the cell may have changed to
        return inputs

    def _follow_setups(self, cell: Cell, mark: str, delta: Delta) -> None:
        """What cells did that no checkpoint holds is an input of later ones: the set-ups by module, in their order."""
        assert cell.reads is not None
        setups = self._session.book.setups
        changed = self._session.world.changed_modules(cell.modules_before, cell.reads.modules)
        cell.set_up = tuple(dict.fromkeys([*cell.reads.set_up, *changed, *cell.tables_before.changed()]))
        formats = [call for call in magics_of(cell.tree) if call.name in FORMATTING]
        if formats:
            setups[DISPLAY] = digest(setups.get(DISPLAY, ""), *(f"{call.name} {call.line}" for call in formats))
        modules = [target.partition(".")[0] for target in cell.set_up]
        for module in [*modules, DISPLAY] if REGISTERED in delta.process else modules:
            setups[module] = digest(setups.get(module, ""), mark)

    def _problem(self, cell: Cell, delta: Delta) -> str | None:
        """Why the cell cannot be given back; None when it can."""
        session = self._session
        assert cell.reads is not None
        if delta.problems:
            first = delta.problems[0]
            return told(first.name, first.type_name, first.path, first.why, more=len(delta.problems) - 1)
        secret = self._secret(delta)
        if secret is not None:
            return secret
        if cell.elsewhere is not None:
            from durable_nb.notebook._remote import problem_of

            kept = problem_of(session, cell)
            if kept is not None:
                return kept
        if session.outside_ran():
            return "code ran beside it (a widget, a subshell or a silent request), and may have changed what it made"
        if cell.asked_secret:
            return "a password was typed while it ran; what it led to is not stored"
        left = left_by(cell.threads_before, session.world.is_user_file)
        if left is not None:
            return f"{left}; join it in the same cell to have the cell stored"
        cell.left_nothing = True
        if cell.set_up:
            return f"it sets {cell.set_up[0]}, which no checkpoint holds: set-up cells run every time"
        if cell.options.mode == "always":
            return "it is marked to run always"
        return None

    def _secret(self, delta: Delta) -> str | None:
        """Which secret the cell sets: its value is never written."""
        for name in delta.changed:
            if is_secret(name, self._session.shell.user_ns.get(name)):
                return f"{name} looks like a secret, which is never written; the cell that sets it runs again"
        for part in delta.process.values():
            if "again" in part:
                return str(part["again"])
            for name in part.get("unstored", ()):
                return (
                    f"the variable {name} looks like a secret, which is never written; the cell that sets it runs again"
                )
        return None

    def _commit(
        self,
        cell: Cell,
        report: Report,
        inputs: Inputs,
        manifest: dict[str, Any],
        delta: Delta,
        files: Sequence[FileState],
        problem: str | None,
    ) -> None:
        session = self._session
        home = session.home
        if home is None:
            report.status, report.reason = "not_durable", session.no_home or "there is no store"
            return
        if not session.owned(home):
            report.status, report.reason = "not_durable", f"the execution is held by {home.ownership.holder}"
            return
        try:
            if problem is None:
                self._commit_result(home, cell, report, inputs, manifest, delta, files)
            else:
                self._commit_unstored(home, cell, report, inputs, files, problem)
        except NotStorableError as exc:
            problem = told(exc.name, exc.type_name, exc.path, exc.why)
            self._commit_unstored(home, cell, report, inputs, files, problem)
        except LeaseLostError:
            report.status, report.reason = "not_durable", "another kernel has taken this execution over"
            session.warn(f"cell {cell.label!r} was not saved: {report.reason}")
        except (DurableExecutionsError, OSError, MemoryError) as exc:
            report.status, report.reason = "not_durable", f"its checkpoint failed: {exc}"
            session.warn(f"cell {cell.label!r} was not saved and runs again next time: {exc}")

    def _commit_result(
        self,
        home: Home,
        cell: Cell,
        report: Report,
        inputs: Inputs,
        manifest: dict[str, Any],
        delta: Delta,
        files: Sequence[FileState],
    ) -> None:
        session = self._session
        saved = save(delta, home.store.blobs, inline_limit=session.settings.inline_limit)
        if saved["problems"]:
            first = saved["problems"][0]
            refused = [group["names"] for group in saved["groups"] if "segments" not in group]
            session.tracker.made_again(name for names in refused for name in names)
            raise NotStorableError(first["name"], first["type"], first["path"], first["why"])
        manifest["names"] = saved
        damaged = home.store.blobs.settle()
        if damaged:  # it may have read what was mapped before it was checked
            raise DamagedBlobError(damaged[0])
        kept = session.world.keep_files(files, home.store.blobs, session.settings.restore_file_limit)
        payload, address = home.cells.pack(manifest)
        refs = [*saved["blobs"], *kept["blobs"].values(), *([address] if address else ())]
        report.nbytes = saved["nbytes"] + len(payload or b"")
        details = {
            **session.details(cell),
            "inputs": to_json(inputs),
            "seconds": report.seconds,
            "bytes": report.nbytes,
            "reason": report.reason,
            **({"diff": list(cell.difference[:200])} if cell.difference else {}),
            **({"files": kept} if files else {}),
            **({"payload_blob": address} if address else {}),
        }
        event = cell_event(
            cell.operation,
            EventKind.SUCCEEDED,
            time.time(),
            name=cell.options.name,
            attempt=cell.attempt,
            payload=payload,
            details=details,
        )
        session.write(home, [event], refs=refs)

    def _commit_unstored(
        self, home: Home, cell: Cell, report: Report, inputs: Inputs, files: Sequence[FileState], problem: str
    ) -> None:
        session = self._session
        stored_anyway = cell.options.at_most_once
        if cell.options.mode != "always" and not cell.set_up:
            report.status, report.reason = "not_durable", problem
        if cell.request.marked and report.status == "not_durable":
            session.warn(f"cell {cell.label!r}: {problem}")
        details = {
            **session.details(cell),
            "inputs": to_json(inputs),
            "seconds": report.seconds,
            "reason": report.reason,
            **({"diff": list(cell.difference[:200])} if cell.difference else {}),
            "runs_again": problem,
            **({"files": {"states": [state.to_json() for state in files], "blobs": {}}} if files else {}),
        }
        event = cell_event(
            cell.operation,
            EventKind.SUCCEEDED,
            time.time(),
            name=cell.options.name,
            attempt=cell.attempt,
            details=details,
        )
        # Nothing is given back from it, except the word that an at-most-once body has ended.
        session.write(home, [event], durable=stored_anyway)

    # --- a cell that failed ----------------------------------------------------------------------------------------

    def failed(self, cell: Cell, error: BaseException | None) -> Report:
        """Record a final failure: its names stay as Jupyter leaves them, and nothing that reads them is stored."""
        session = self._session
        seconds = time.perf_counter() - cell.clock
        observed = session.world.observer.end()
        if cell.options.on is not None:
            observed = Observed() if cell.elsewhere is None else cell.elsewhere.observed
        session.tee.end()
        delta = session.tracker.after(cell.before, session.touched(cell), fingerprint="failed", nonce=uuid.uuid4().hex)
        session.tracker.mark_dirty(delta.changed)
        self._follow_setups(cell, uuid.uuid4().hex, delta)  # as far as it came: nothing else is like it
        session.world.ledger.wrote(observed, owner=cell.operation)
        reason = f"it failed with {type(error).__name__}" if error is not None else "it failed"
        report = Report("failed", reason, attempt=cell.attempt, seconds=seconds)
        home = session.home
        if not cell.managed or cell.declared or home is None or isinstance(error, KeyboardInterrupt):
            return report
        if cell.options.on is not None and not self._counts(cell, error):
            return report
        info = error_info(error, session.world.is_user_file) if error is not None else None
        details = {**session.details(cell), "seconds": seconds, "reason": cell.reason}
        event = cell_event(
            cell.operation,
            EventKind.FAILED,
            time.time(),
            name=cell.options.name,
            attempt=cell.attempt,
            error=info,
            details=details,
        )
        try:
            if session.owned(home):
                session.write(home, [event], durable=cell.options.at_most_once)
        except StoreError as exc:
            session.warn(f"the failure of cell {cell.label!r} was not recorded: {exc}")
        return report

    def _counts(self, cell: Cell, error: BaseException | None) -> bool:
        """Whether the end of a cell on a cluster is an end of its body that is known."""
        once = cell.options.at_most_once
        if isinstance(error, NotBegunError):
            if once and error is not None:  # the start is on record, and did not happen: the next one may
                self._session.attempt_failed(cell, error, time.time())
            return False
        return not (isinstance(error, ExecutorError) or (once and isinstance(error, WorkerLostError)))


def _shown_through(cell: Cell, items: Sequence[Message]) -> frozenset[str]:
    """What decides whether and how the cell's values are shown."""
    if cell.shown_result or any(item["type"] != "stream" for item in items):
        return frozenset({SHELL, DISPLAY})
    return frozenset({SHELL} if any(isinstance(node, ast.Expr) for node in cell.tree.body) else ())


def told(name: str, type_name: str, path: str, why: str, *, more: int = 0) -> str:
    """What cannot be stored, and what to do about it."""
    others = f" (and {more} more)" if more else ""
    return (
        f"{path} ({type_name}) cannot be stored: {why}{others}. The cell runs again on a fresh kernel; "
        f"keep {name} in a cell of its own so that only that one does"
    )
