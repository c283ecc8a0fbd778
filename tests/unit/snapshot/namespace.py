"""A notebook without a kernel: cells run in a dict, and each leaves a manifest."""

from __future__ import annotations

import ast
import builtins
import linecache
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

from durable_nb.abc import BlobStore
from durable_nb.snapshot import Delta, MemoryBlobStore, Tracker, decode, digest_text, encode, load, save


class Namespace:
    """Runs cells and remembers their manifests; `reborn` is the same notebook in a new kernel."""

    def __init__(self, blobs: BlobStore | None = None) -> None:
        self.blobs = blobs if blobs is not None else MemoryBlobStore()
        self.names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, "_oh": {}}
        self.tracker = Tracker(self.names)
        self.manifests: list[bytes] = []
        self.count = 0

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def run(self, source: str, touched: Iterable[str] | None = None) -> Delta:
        """Run a cell that touches what it names (and what functions it names name)."""
        self.count += 1
        filename = f"<test cell {id(self)} {self.count}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        names = {*(self.reached(source) if touched is None else touched)}
        before = self.tracker.before(names)
        try:
            exec(compile(source, filename, "exec"), self.names)
        finally:
            # Whatever a failed cell did is kept like the rest, as if it had caught its error itself.
            delta = self.tracker.after(before, names, fingerprint=digest_text(source), binds=bound(source))
            self.manifests.append(encode(save(delta, self.blobs)))
        return delta

    def reached(self, source: str) -> set[str]:
        """Global names in the source and, transitively, in the functions and classes behind them."""
        found: set[str] = set()
        queue = [node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
        while queue:
            name = queue.pop()
            if name in found:
                continue
            found.add(name)
            if name in self.names:
                for item in self.tracker.functions_of(name):
                    queue += list(_code_names(item))
        return found

    @property
    def last(self) -> dict[str, Any]:
        """The last manifest."""
        return decode(self.manifests[-1])

    def problems(self) -> list[str]:
        """Paths of what the last cell left that cannot be stored."""
        return [problem["path"] for problem in self.last["problems"]]

    def reborn(self) -> Namespace:
        """A new namespace that every manifest was loaded into."""
        other = Namespace(self.blobs)
        for manifest in self.manifests:
            load(decode(manifest), other.tracker, other.blobs)
        return other

    def write(self, folder: Path) -> None:
        """Leave the manifests for another process."""
        for number, manifest in enumerate(self.manifests):
            (folder / f"{number:03}.manifest").write_bytes(manifest)


def read_back(folder: Path, blobs: BlobStore) -> Namespace:
    """What `write` left."""
    other = Namespace(blobs)
    for path in sorted(folder.glob("*.manifest")):
        load(decode(path.read_bytes()), other.tracker, blobs)
    return other


def bound(source: str) -> set[str]:
    """Names that the cell assigns at its top level."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Store)}


def _code_names(item: Any) -> Iterable[str]:
    if isinstance(item, type):
        for part in vars(item).values():
            yield from _code_names(getattr(part, "__func__", getattr(part, "fget", part)))
    elif isinstance(item, MethodType):
        yield from _code_names(item.__func__)
    elif isinstance(item, FunctionType):
        queue = [item.__code__]
        while queue:
            code = queue.pop()
            yield from code.co_names
            queue += [constant for constant in code.co_consts if isinstance(constant, type(code))]
