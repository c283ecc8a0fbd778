"""Properties of cells: what does not matter leaves the identity alone, and no read is ever missed."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import tokenize
import types
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_nb.cells import Input, Inputs, analyse, canonical, fingerprint, from_json, identity, parse, to_json

NAMES = ("a", "b", "c", "d", "f", "g")
INDENT = "    "

# --- Programs ------------------------------------------------------------------------------------------------------


NAME = st.sampled_from(NAMES)


@functools.cache
def expression(depth: int) -> st.SearchStrategy[str]:
    atoms = st.one_of(NAME, st.sampled_from(["1", "0", "'t'", "[1, 2]", "[]", "None"]))
    if depth == 0:
        return atoms
    inner = expression(depth - 1)
    return st.one_of(
        atoms,
        st.builds("({} + {})".format, inner, inner),
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("({} < {} < {})".format, inner, inner, inner),
        st.builds("({} := {})".format, NAME, inner),
        st.builds("[{} for {} in {} if {}]".format, inner, NAME, inner, inner),
        st.builds("list({} for {} in {})".format, inner, NAME, inner),
        st.builds("(lambda {}={}: {})".format, NAME, inner, inner),
        st.builds("{}({})".format, NAME, inner),
        st.builds("{}.part".format, NAME),
        st.builds("f'{{{}!r}}'".format, NAME),
        st.builds("globals()[{!r}]".format, NAME),
        st.builds("eval({!r})".format, NAME),
    )


def indent(lines: list[str]) -> list[str]:
    return [INDENT + line for line in lines]


@st.composite
def block(draw: st.DrawFn, depth: int, *, loop: bool = False, function: bool = False) -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        lines += draw(statement(depth, loop=loop, function=function))
    return lines


SIMPLE = (
    "{target} = {expr}",
    "{target} += {expr}",
    "{expr}",
    "del {target}",
    "if a: raise ValueError(1)",
    "import math as {target}",
    "{target}, *{other} = [{expr}, 1]",
    "{target}: {other} = {expr}",
)
IN_FUNCTION = ("return {expr}", "pass")
IN_LOOP = ("if {expr}: break", "if {expr}: continue")
COMPOUND = ("if", "for", "while", "try", "with", "def", "class", "match")


@st.composite
def statement(draw: st.DrawFn, depth: int, *, loop: bool = False, function: bool = False) -> list[str]:
    forms = [*SIMPLE, *(IN_LOOP if loop else ()), *(IN_FUNCTION if function else ()), *(COMPOUND if depth else ())]
    form = draw(st.sampled_from(forms))
    if form in COMPOUND:
        return draw(COMPOUNDS[form](depth - 1, loop, function))
    if function and ": {other}" in form:
        form = "{target} = 1"  # an annotated name must not be declared global
    return [form.format(target=draw(NAME), other=draw(NAME), expr=draw(expression(2)))]


def body(depth: int, loop: bool, function: bool) -> st.SearchStrategy[list[str]]:
    return block(depth, loop=loop, function=function).map(indent)


@st.composite
def if_else(draw: st.DrawFn, depth: int, loop: bool, function: bool) -> list[str]:
    inner = body(depth, loop, function)
    return [f"if {draw(expression(2))}:", *draw(inner), "else:", *draw(inner)]


@st.composite
def for_loop(draw: st.DrawFn, depth: int, loop: bool, function: bool) -> list[str]:
    values = draw(st.one_of(st.sampled_from(["[1, 2]", "range(2)", "[]"]), expression(2)))
    return [f"for {draw(NAME)} in {values}:", *draw(body(depth, True, function))]


@st.composite
def while_loop(draw: st.DrawFn, depth: int, loop: bool, function: bool) -> list[str]:
    test = draw(st.one_of(st.just("True"), expression(2)))
    return [f"while {test}:", *draw(body(depth, True, function)), INDENT + "break"]


@st.composite
def try_block(draw: st.DrawFn, depth: int, loop: bool, function: bool) -> list[str]:
    inner = body(depth, loop, function)
    handler = draw(st.sampled_from(["except ValueError:", f"except Exception as {draw(NAME)}:", "except TypeError:"]))
    # `break` in a `finally` is deprecated.
    end = ["finally:", *draw(body(depth, False, False))] if draw(st.booleans()) else ["else:", *draw(inner)]
    return ["try:", *draw(inner), handler, *draw(inner), *end]


@st.composite
def with_block(draw: st.DrawFn, depth: int, loop: bool, function: bool) -> list[str]:
    manager = draw(st.sampled_from(["suppress(Exception)", "nullcontext(1)", "open('/dev/null')"]))
    return [f"with {manager} as {draw(NAME)}:", *draw(body(depth, loop, function))]


@st.composite
def match_block(draw: st.DrawFn, depth: int, loop: bool, function: bool) -> list[str]:
    inner = body(depth, loop, function)
    case = [f"    case [{draw(NAME)}, *_]:", *indent(draw(inner)), "    case _:", *indent(draw(inner))]
    return [f"match {draw(expression(2))}:", *case]


@st.composite
def class_block(draw: st.DrawFn, depth: int, loop: bool, function: bool) -> list[str]:
    method = [f"def {draw(NAME)}(self):", *draw(body(depth, False, True))]
    return [f"class {draw(NAME)}:", *draw(body(depth, False, False)), *indent(method)]


@st.composite
def function_block(draw: st.DrawFn, depth: int, loop: bool, function: bool) -> list[str]:
    head = [f"@{draw(NAME)}"] if draw(st.booleans()) else []
    declared = draw(st.lists(NAME, max_size=2, unique=True))
    parameter = draw(st.sampled_from([n for n in NAMES if n not in declared]))
    declaration = [INDENT + f"global {', '.join(declared)}"] if declared else []
    start = f"def {draw(NAME)}({parameter}={draw(expression(2))}):"
    return [*head, start, *declaration, *draw(body(depth, False, True))]


COMPOUNDS = {
    "if": if_else,
    "for": for_loop,
    "while": while_loop,
    "try": try_block,
    "with": with_block,
    "match": match_block,
    "class": class_block,
    "def": function_block,
}


def program() -> st.SearchStrategy[str]:
    return block(2).map("\n".join)


def runs(source: str) -> bool:
    try:
        compile(source, "<cell>", "exec")
    except SyntaxError:
        return False
    return True


# --- Truth: what execution really reads --------------------------------------------------------------------------


class Value:
    """A value from before the cell. It can be called, added, compared and iterated; all of that runs no other code."""

    part = 1

    def __call__(self, argument: Any = None) -> Any:
        return argument

    def __iter__(self) -> Any:
        return iter([1])

    def __bool__(self) -> bool:
        return self.truth

    def __add__(self, other: Any) -> int:
        return 2

    __radd__ = __lt__ = __gt__ = __add__

    def __init__(self, truth: bool) -> None:
        self.truth = truth


class Recorder(dict[str, Any]):
    """A namespace that notes every look at a value from before."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names)
        self.before = dict(names)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if value is self.before.get(key, self):
            self.read.add(key)
        return value


class _Enough(BaseException):
    """Too many steps: random programs may recurse through each other without end."""


def execute(source: str, recorder: Recorder) -> set[str]:
    """Run the source; the names whose value from before it has read."""
    recorder.read.clear()
    with contextlib.suppress(Exception, _Enough), _budget():
        exec(compile(source, "<cell>", "exec"), recorder)
    return recorder.read & set(NAMES)


@contextlib.contextmanager
def _budget() -> Any:
    """Ends a program after some thousand lines."""
    left = 3000

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise _Enough
        return count

    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(None)


FIXED = {"suppress": contextlib.suppress, "nullcontext": contextlib.nullcontext, "__name__": "__main__"}
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def start(truths: list[bool]) -> dict[str, Any]:
    return {**FIXED, **{n: Value(t) for n, t in zip(NAMES, truths, strict=True)}}


@QUIET
@given(program().filter(runs), st.lists(st.booleans(), min_size=len(NAMES), max_size=len(NAMES)))
def test_whatever_a_cell_reads_is_among_its_reads(source: str, truths: list[bool]) -> None:
    names = start(truths)
    tree = parse(source)
    assert tree is not None
    reads = analyse(tree, names)
    missed = execute(source, Recorder(names)) - reads.names
    assert not missed or reads.everything, f"missed {missed} in\n{source}"


@QUIET
@given(
    program().filter(runs),
    program().filter(runs),
    st.lists(st.booleans(), min_size=len(NAMES), max_size=len(NAMES)),
)
def test_whatever_a_cell_reads_through_functions_of_other_cells_is_among_its_reads(
    before: str, source: str, truths: list[bool]
) -> None:
    recorder = Recorder(start(truths))
    with contextlib.suppress(Exception, _Enough), _budget():
        exec(compile("\n".join(_defined(before)), "<before>", "exec"), recorder)
    for n in NAMES:  # a number, or another name for the same value, could not be told from one that the cell makes
        value = recorder.get(n)
        alias = any(recorder.get(other) is value for other in NAMES if other != n)
        if alias or not isinstance(value, (types.FunctionType, type, Value)):
            recorder[n] = Value(truths[0])
    recorder.before = dict(recorder)
    recorder.read.clear()
    tree = parse(source)
    assert tree is not None
    reads = analyse(tree, recorder)
    missed = execute(source, recorder) - reads.names
    assert not missed or reads.everything, f"missed {missed} in\n{source}\nafter\n{before}"


def _defined(source: str) -> list[str]:
    """The source with functions under the names that cells use."""
    return [*source.splitlines(), "def f(x=1):", "    return a if x else c", "def g(x=1):", "    return f(x)"]


@QUIET
@given(program().filter(runs))
def test_what_a_cell_binds_is_among_its_binds(source: str) -> None:
    names = start([True] * len(NAMES))
    tree = parse(source)
    assert tree is not None
    reads = analyse(tree, names)
    after = dict(names)
    with contextlib.suppress(Exception, _Enough), _budget():
        exec(compile(source, "<cell>", "exec"), after)
    bound = {n for n in NAMES if n in after and after[n] is not names[n]}
    deleted = {n for n in NAMES if n not in after}
    assert bound <= reads.binds or reads.everything
    assert deleted <= reads.deletes | reads.binds or reads.everything  # `except … as x` deletes what it bound


# --- What does not matter ------------------------------------------------------------------------------------------


@st.composite
def same_program(draw: st.DrawFn) -> tuple[str, str]:
    """A program, and itself with other comments, blank lines and indentation."""
    source = draw(program().filter(runs))
    width = draw(st.sampled_from([" ", "  ", "\t", "        "]))
    lines: list[str] = []
    for line in source.splitlines():
        text = line.lstrip(" ")
        depth = (len(line) - len(text)) // len(INDENT)
        lines += draw(st.sampled_from([[], [""], ["   "], ["# x = 1"], [width * depth + "# ;"]]))
        lines.append(width * depth + text + draw(st.sampled_from(["", "  ", "  # why", " # ;"])))
    lines += draw(st.sampled_from([[], ["", ""], ["# the end"]]))
    return source, "\n".join(lines)


@QUIET
@given(same_program())
def test_comments_blank_lines_and_indentation_do_not_change_the_identity(pair: tuple[str, str]) -> None:
    one, other = pair
    assert identity(canonical(one, one), None) == identity(canonical(other, other), None)


@QUIET
@given(program().filter(runs))
def test_the_canonical_source_is_its_own_canonical_source_and_means_the_same(source: str) -> None:
    text = canonical(source, source)
    assert canonical(text, text) == text
    assert compile(text, "<c>", "exec").co_names == compile(source, "<c>", "exec").co_names


@given(st.text(max_size=60))
def test_any_text_at_all_has_a_canonical_form(text: str) -> None:
    assert len(identity(canonical(text, text), None)) == 32
    tree = parse(text)
    if tree is not None:
        analyse(tree, {})


@given(st.text(alphabet="ab;# '\"\n=1", max_size=20))
def test_a_semicolon_counts_exactly_when_python_sees_it_last(text: str) -> None:
    if parse(text) is None:
        return
    tokens = [
        t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.OP or t.string.strip()
    ]
    tokens = [t for t in tokens if t.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)]
    assert canonical(text, text).endswith(";") == bool(tokens and tokens[-1].string == ";")


# --- Fingerprints --------------------------------------------------------------------------------------------------

INPUTS = st.lists(
    st.builds(Input, st.sampled_from(["name", "file", "env"]), st.text(max_size=3), st.text(max_size=3)), max_size=6
)


@given(INPUTS, st.randoms())
def test_a_fingerprint_depends_on_the_set_of_inputs_only(items: list[Input], random: Any) -> None:
    inputs = Inputs(items)
    shuffled = list(inputs.values())
    random.shuffle(shuffled)
    assert fingerprint(Inputs(shuffled)) == fingerprint(inputs) == fingerprint(from_json(to_json(inputs)))


@given(INPUTS, INPUTS)
def test_equal_fingerprints_mean_equal_inputs(one: list[Input], other: list[Input]) -> None:
    assert (fingerprint(Inputs(one)) == fingerprint(Inputs(other))) == (Inputs(one) == Inputs(other))
