"""Replayed names that wait to be loaded, and the moments at which they are.

Theory. A replayed group of plain data is only promised (`snapshot/_promises.py`). A promised name is not in the
namespace, which stays an exact dict, so it has to be there before code looks for it. Code can come to it in two ways.

*Now*: a cell that runs. The static analysis looks names up through `Reachable`, which loads what it is asked for, so
that the closure of the cell is there, and no more.

*Later*, when nobody analyses anything: a callback, a thread, an observer, a finaliser. Only code that this session has
met can do that, and its instructions can only ask for the words that stand in it (`cells/_words.py`). So once a cell
has really run (before that nobody can have registered anything), no name is promised that is a word of any code met so
far, restored functions included: such a name is loaded at once.

Everything is loaded when neither bound holds: the analysis gives up (`Reads.everything`), a package is called of which
it is not known that it leaves the namespace alone, a message reads or runs something by itself (completion and
inspection load only what their text can mean), code searches the namespace, somebody has registered callbacks with
IPython, a thread or task of the user's runs. Also before a cell patches a module, since what is loaded later would be
made by other code. After code that searches, nothing is promised any more in this session.

Results (`Out[3]`) are never promised: IPython keeps them in a dict of its own, and `_`, `_3`, `Out` and the display
hook all hold the object itself. A result is mostly small; one that *is* the value of a name brings the name with it.

What is promised has been looked at: its blobs are there, with the size and the times of their last verification. Where
that is not so the group is loaded at once, as always, and if that fails the cell runs. A load that fails later in spite
of this is one clear error (`LostValueError`) in the place of the cell that needs the name; the checkpoint is marked, so
that the cell that made it runs the next time.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from durable_nb.cells import Reads, Words, analyse, parse, words_in, words_of_code, words_of_tree
from durable_nb.notebook._cell import magics_of
from durable_nb.notebook._errors import LostValueError
from durable_nb.snapshot import Tracker, blobs_needed

if TYPE_CHECKING:
    from durable_nb.abc import BlobStore

DATA = frozenset(
    {
        "array",
        "builtins",
        "collections",
        "copyreg",
        "datetime",
        "decimal",
        "durable_nb",
        "fractions",
        "numpy",
        "pandas",
        "pathlib",
        "polars",
        "pyarrow",
        "scipy",
        "sklearn",
        "uuid",
        "zoneinfo",
    }
)
"""Packages whose objects are data: loading them runs no code of the user, draws no random number and changes nothing
else. They also never change an object that they were not given (see `_DATA_ONLY` in `_session.py`)."""

_SEARCHERS = frozenset(
    {"bdb", "cProfile", "code", "codeop", "doctest", "inspect", "pdb", "profile", "runpy", "shelve", "timeit", "trace"}
    | {"tracemalloc", "unittest", "ctypes", "gc", "importlib", "idlelib", "rlcompleter", "multiprocessing"}
)
"""Modules of the standard library that may look at the notebook's namespace, at frames or at all objects."""

_DISCREET = frozenset(
    {
        "PIL",
        "bs4",
        "certifi",
        "cycler",
        "dateutil",
        "durable_nb",
        "httpx",
        "imageio",
        "jinja2",
        "joblib",
        "lxml",
        "matplotlib",
        "matplotlib_inline",
        "mpl_toolkits",
        "networkx",
        "numpy",
        "openpyxl",
        "pandas",
        "pyarrow",
        "pydantic",
        "pytz",
        "requests",
        "scipy",
        "seaborn",
        "skimage",
        "sklearn",
        "sqlalchemy",
        "sympy",
        "torch",
        "torchvision",
        "tqdm",
        "tzdata",
        "urllib3",
        "xarray",
        "yaml",
    }
)
"""Installed packages that ask for names of the notebook in texts at most (`df.query("x > @limit")`)."""

_TRUSTED_CALLBACKS = ("IPython", "ipykernel", "matplotlib_inline", "durable_nb")


class Reachable(Mapping[str, object]):
    """The namespace as the analysis sees it: what it looks up is loaded."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __getitem__(self, name: str) -> object:
        if name == "_oh":
            return self._tracker.bound.results()
        self._tracker.materialise((name,))
        return self._tracker.namespace[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tracker.namespace or name in self._tracker.promised

    def __iter__(self) -> Iterator[str]:
        yield from list(self._tracker.namespace)
        yield from self._tracker.promised

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Waiting:
    """Decides for one session which names may wait, and has them loaded in time.

    Args:
        tracker: of the namespace.
        magics: the line magics that there are.
        callbacks: what is registered with IPython's events.
        warn: tells the user something once.
        user_runs: whether a thread or task of the user's runs.
        is_user_file: whether the code in a file is the user's own.
    """

    def __init__(
        self,
        tracker: Tracker,
        magics: Callable[[], Collection[str]],
        callbacks: Callable[[], Iterable[Any]],
        warn: Callable[[str], None],
        user_runs: Callable[[], bool],
        is_user_file: Callable[[str], bool],
    ) -> None:
        self._tracker, self._magics, self._callbacks, self._warn = tracker, magics, callbacks, warn
        self._user_runs, self._is_user_file = user_runs, is_user_file
        self._words: set[str] = set()
        self._armed = False
        """A cell has really run: code may come later that nobody analyses."""
        self._quiet: dict[tuple[str, int], bool] = {}
        self._open: bool | None = None
        """Whether names may wait in this session; None until the first cell."""
        tracker.on_code = self._note_code

    # --- what may wait ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Before the first cell: names may wait unless something has used the namespace already."""
        if self._open is None:
            self._open = not self._tracker.bindings()

    def decider(self, blobs: BlobStore) -> Callable[[Mapping[str, Any]], bool] | None:
        """Tells of a replayed group whether it may wait; None when none may."""
        if not self._open or self._strange_callbacks() or self._user_runs():
            return None
        return lambda group: self._may_wait(group, blobs)

    def _may_wait(self, group: Mapping[str, Any], blobs: BlobStore) -> bool:
        return (
            all(self._is_plain(name) for name in group["names"])
            and all(module.partition(".")[0] in DATA and module in sys.modules for module in group["data"])
            and not (self._armed and self._words.intersection(group["names"]))
            and all(blobs.vouches(address, size) for address, size in blobs_needed(group))
        )

    def _is_plain(self, name: str) -> bool:
        """Whether nothing but code of the notebook asks for this name."""
        if name.startswith("_") or not name.isidentifier() or name in _SHELLS or hasattr(builtins, name):
            return False
        return name not in self._magics()  # a line of only this word is a magic when there is no such name

    def _strange_callbacks(self) -> bool:
        return any(
            (getattr(call, "__module__", None) or type(call).__module__).partition(".")[0] not in _TRUSTED_CALLBACKS
            for call in self._callbacks()
        )

    # --- a cell that runs ------------------------------------------------------------------------------------------

    def analysed(self, tree: ast.Module, *, declares: bool) -> Reads:
        """What a cell that is about to run may read, all of it loaded.

        Raises:
            LostValueError: a name that it may read cannot be loaded.
        """
        tracker = self._tracker
        found = words_of_tree(tree)
        reads = analyse(tree, Reachable(tracker), tracker.functions_of, main=tracker.namespace)
        self._note(found)
        self._armed = self._armed or not declares
        if tracker.promised:
            tracker.materialise(reads.names)
            if reads.everything is not None:
                tracker.materialise(tracker.promised)
            self._clear(reads.binds | reads.deletes)
            if self._armed:  # not for this cell: what cannot be loaded must not keep it from running
                self.load(self._words)
            meddles = bool(reads.set_up) or _uses(tree, _EXTENDING) or not (declares or self._is_discreet(reads))
            if meddles or not self._open:
                self.load_all()
        if (reads.everything is not None and not declares) or _uses(tree, _DEBUGGING):
            self.end()
        return reads

    def _clear(self, names: Iterable[str]) -> None:
        """A cell binds or deletes these: what they were grouped with becomes whole before; what is lost may go."""
        for promise in self._tracker.promised.of(names):
            try:
                self._tracker.materialise(promise.names)
            except LostValueError:
                self._tracker.give_up(set(names).intersection(promise.names))

    def _is_discreet(self, reads: Reads) -> bool:
        """Whether all code that the cell reaches outside the notebook leaves the namespace alone."""
        return all(self._leaves_alone(name) for name in reads.modules)

    def _leaves_alone(self, module: str) -> bool:
        top = module.partition(".")[0]
        if top in _DISCREET or (top in sys.stdlib_module_names and top not in _SEARCHERS):
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
        if not isinstance(file, str) or not self._is_user_file(file):
            return False
        return self._is_quiet(file)

    def _is_quiet(self, file: str) -> bool:
        """Whether a local module searches nothing, and imports nothing that might."""
        try:
            key = (file, Path(file).stat().st_mtime_ns)
            if key not in self._quiet:
                tree = parse(Path(file).read_text(encoding="utf-8"))
                self._quiet[key] = tree is not None and _is_quiet_tree(tree)
        except (OSError, ValueError):
            return False
        return self._quiet[key]

    # --- code that is met ------------------------------------------------------------------------------------------

    def _note(self, found: Words) -> None:
        self._words |= found.words
        if found.searching:
            self.end()

    def _note_code(self, code: CodeType) -> None:
        """Code that a replay brought back; what it could ask for is loaded with it once a cell has run."""
        found = words_of_code(code)
        self._words |= found.words
        if found.searching:
            self._open = False

    def applying(self, magic: str) -> None:
        """A magic that sets the session up is about to be applied again."""
        if magic in _DEBUGGING:
            self.end()
        elif magic in _EXTENDING:
            self.load_all()

    def settle(self) -> None:
        """A replay has ended: what it brought back may have words for what waits."""
        if not self._tracker.promised:
            return
        if not self._open:
            self.load_all()
        elif self._armed:
            self.load(self._words)

    # --- messages --------------------------------------------------------------------------------------------------

    def completing(self, code: str, cursor: int) -> None:
        """A front end asks what may stand at the cursor."""
        before = code[:cursor]
        ending = _ENDING.search(before)
        prefix = ending[0] if ending is not None else ""
        wanted = set(words_in(code))
        if not before.removesuffix(prefix).rstrip().endswith("."):
            wanted.update(name for name in self._tracker.promised if name.startswith(prefix))
        self.load(wanted)

    def inspecting(self, code: str) -> None:
        """A front end asks what something is."""
        self.load(words_in(code))

    def beside(self, code: str) -> None:
        """Code runs that is no cell (a silent request, a subshell): it finds everything, and may leave something."""
        tree = parse(code)
        self._armed = True
        if tree is None or words_of_tree(tree).searching:
            self.end()
        else:
            self._note(words_of_tree(tree))
            self.load_all()

    # --- loading ---------------------------------------------------------------------------------------------------

    def load(self, names: Iterable[str]) -> None:
        """Load some names, as far as they can be."""
        for promise in self._tracker.promised.of(names):
            try:
                self._tracker.materialise(promise.names)
            except LostValueError as exc:
                self._warn(str(exc))

    def load_all(self) -> None:
        """Load everything that waits, as far as it can be."""
        if not self._tracker.promised:
            return
        self.load(self._tracker.promised)
        if threading.current_thread() is threading.main_thread() and not self._user_runs() and not _subshells():
            self._tracker.put_in_order()

    def end(self) -> None:
        """Nothing waits any more in this session."""
        self._open = False
        self.load_all()


def _subshells() -> bool:
    """Whether cells may run in other threads."""
    return any(thread.name.startswith("subshell") for thread in threading.enumerate())


_SHELLS = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open", "display"})
_EXTENDING = frozenset({"load_ext", "reload_ext", "autoreload", "aimport", "pylab"})
"""Magics that hand the shell to code of an extension."""
_DEBUGGING = frozenset({"debug", "pdb"})
"""Magics after which a person may look at any name from a frame."""
_ENDING = re.compile(r"\w*\Z")


def _uses(tree: ast.Module, magics: frozenset[str]) -> bool:
    return any(call.name in magics for call in magics_of(tree))


def _is_quiet_tree(tree: ast.Module) -> bool:
    if words_of_tree(tree).searching:
        return False
    tops: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            tops.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            tops.add((node.module or "").partition(".")[0])
    known = sys.stdlib_module_names - _SEARCHERS
    return all(top in _DISCREET or top in known for top in tops)
