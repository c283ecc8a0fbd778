"""IPython's own syntax, without IPython.

The kernel hands over cells that IPython has already turned into Python: `%time f()` is
`get_ipython().run_line_magic('time', 'f()')`. The *text* inside such a call may be Python again (`%%time`, `%timeit`,
`%%capture`), with magics of its own that nobody has transformed yet. This module recognises the calls, knows which
magics do what, and parses the text inside.
"""

from __future__ import annotations

import ast
import re
from typing import Literal

from durable_nb._dataclass import dataclass

__all__ = ["MagicCall", "as_magic", "interpolated", "parse_body", "python_body"]

Form = Literal["line", "cell", "system", "getoutput"]

SESSION = frozenset(
    {
        "alias",
        "alias_magic",
        "aimport",
        "autoawait",
        "autocall",
        "autoindent",
        "automagic",
        "autoreload",
        "cd",
        "colors",
        "config",
        "doctest_mode",
        "durable",
        "env",
        "gui",
        "load_ext",
        "matplotlib",
        "pdb",
        "popd",
        "precision",
        "pprint",
        "pushd",
        "pylab",
        "rehashx",
        "reload_ext",
        "set_env",
        "subshell",
        "unalias",
        "unload_ext",
        "xmode",
    }
)
"""Magics that set the session up: cheap, repeatable, never stored."""

PYTHON = frozenset({"capture", "durable_step", "lprun", "memit", "mprun", "prun", "time", "timeit"})
"""Magics whose text is Python that runs in the notebook's namespace."""

PROCESS = frozenset(
    {"!", "bash", "cmd", "conda", "mamba", "micromamba", "perl", "pip", "pypy", "python", "python2", "python3", "ruby"}
    | {"script", "sh", "sx", "system", "uv"}
)
"""Magics that run another program: no name of the notebook except those written as `{x}` or `$x`."""

INERT = frozenset(
    {"HTML", "SVG", "file", "html", "javascript", "js", "latex", "lsmagic", "magic", "man", "markdown", "mkdir", "pwd"}
    | {"ls", "ll", "cat", "quickref", "svg", "writefile", "dhist", "dirs", "bookmark", "debug", "pfile", "psource"}
    | {"pinfo", "pinfo2", "pdoc", "pdef", "psearch", "pycat", "page", "tb", "cp", "mv", "rm", "rmdir", "less", "more"}
)
"""Magics that read no name of the notebook except those written as `{x}` or `$x`, or shown by name."""

SHOWN_BY_NAME = frozenset({"pinfo", "pinfo2", "pdoc", "pdef", "pfile", "psource"})
"""Magics whose argument is an expression over the namespace, only looked at."""

_IPYTHON_CALLS: dict[str, Form] = {
    "run_line_magic": "line",
    "run_cell_magic": "cell",
    "system": "system",
    "getoutput": "getoutput",
}


@dataclass(frozen=True, slots=True)
class MagicCall:
    """One call that IPython made from a magic or a `!` line."""

    form: Form
    name: str
    line: str
    body: str = ""

    @property
    def is_session(self) -> bool:
        """True when the magic only sets the session up."""
        return self.form == "line" and self.name in SESSION


def as_magic(node: ast.AST) -> MagicCall | None:
    """The magic that `node` calls, when it is a call as IPython writes them, with constant text."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return None
    owner = node.func.value
    if not (isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "get_ipython"):
        return None
    form = _IPYTHON_CALLS.get(node.func.attr)
    texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if form is None or len(texts) != len(node.args) or node.keywords or owner.args or owner.keywords:
        return None
    if form == "line" and len(texts) == 2:
        return MagicCall(form, texts[0], texts[1])
    if form == "cell" and len(texts) == 3:
        return MagicCall(form, texts[0], texts[1], texts[2])
    if form in ("system", "getoutput") and len(texts) == 1:
        return MagicCall(form, "!", texts[0])
    return None


_OPTIONS: dict[str, str] = {"timeit": "nrt", "prun": "lsTD", "lprun": "fmDTsruz", "mprun": "fT", "memit": "rit"}
"""Single-letter options of the Python magics that take a value."""


def python_body(call: MagicCall) -> str | None:
    """The Python that a magic runs, or None when it runs none. Its options are left out."""
    if call.name not in PYTHON or call.form not in ("line", "cell"):
        return None
    if call.name == "capture":
        return call.body
    if call.name == "durable_step":
        return call.body if call.form == "cell" else _after_long_options(call.line)
    statement = _after_options(call.line, _OPTIONS.get(call.name, ""))
    # `%%timeit setup` runs the line first; the cell forms of the others have nothing but options on the line.
    return f"{statement}\n{call.body}" if call.form == "cell" else statement


def capture_target(call: MagicCall) -> str | None:
    """The name that `%%capture NAME`, `%%bash --out NAME` or `%timeit -o` style magics bind."""
    if call.name == "capture":
        words = [w for w in call.line.split() if not w.startswith("-")]
        return words[0] if words and words[0].isidentifier() else None
    return None


def bound_by_script(call: MagicCall) -> tuple[str, ...]:
    """Names that `%%bash --out NAME --err NAME --proc NAME` bind."""
    if call.form != "cell" or call.name not in PROCESS:
        return ()
    return tuple(re.findall(r"--(?:out|err|proc)[= ]+([A-Za-z_]\w*)", call.line))


def _after_options(line: str, valued: str) -> str:
    rest = line.lstrip()
    while rest.startswith("-") and len(rest) > 1:
        word, _, rest_after = rest.partition(" ")
        rest = rest_after.lstrip()
        if word == "--":
            break
        if not word.startswith("--") and len(word) == 2 and word[1] in valued:
            rest = rest.partition(" ")[2].lstrip()
    return rest


def _after_long_options(line: str) -> str:
    rest = line.lstrip()
    while rest.startswith("--"):
        word, _, rest_after = rest.partition(" ")
        rest = rest_after.lstrip()
        if word == "--":
            break
        if "=" not in word and word not in {"--at-most-once", "--force", "--no-store-output", "--quiet"}:
            rest = rest.partition(" ")[2].lstrip()
    return rest


_LINE_MAGIC = re.compile(r"^(\s*)%(\w+)[ \t]*(.*)$", re.DOTALL)
_SYSTEM = re.compile(r"^(\s*)!{1,2}(.*)$", re.DOTALL)
_ASSIGN = re.compile(r"^(\s*)([\w.,\[\]'\" ]+?)\s*=\s*([%!])(.*)$", re.DOTALL)
_HELP = re.compile(r"^(\s*)(?:\?{1,2}([\w.*]+)|([\w.*]+)\?{1,2})\s*$")


def parse_body(text: str) -> ast.Module | None:
    """The tree of Python text that may contain magics; None when it is no such text."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    cell = re.match(r"\A\s*%%(\w+)[ \t]*([^\n]*)\n?(.*)\Z", text, re.DOTALL)
    if cell:
        source = f"get_ipython().run_cell_magic({cell[1]!r}, {cell[2]!r}, {cell[3]!r})"
    else:
        source = "\n".join(_plain(line) for line in text.split("\n"))
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _plain(line: str) -> str:
    if match := _ASSIGN.match(line):
        indent, target, sign, rest = match.groups()
        if sign == "!":
            return f"{indent}{target} = get_ipython().getoutput({rest!r})"
        name, _, argument = rest.partition(" ")
        return f"{indent}{target} = get_ipython().run_line_magic({name!r}, {argument!r})"
    if match := _LINE_MAGIC.match(line):
        return f"{match[1]}get_ipython().run_line_magic({match[2]!r}, {match[3]!r})"
    if match := _SYSTEM.match(line):
        return f"{match[1]}get_ipython().system({match[2]!r})"
    if match := _HELP.match(line):
        return f"{match[1]}get_ipython().run_line_magic('pinfo', {match[2] or match[3]!r})"
    return line


_DOLLAR = re.compile(r"(?<!\$)\$([A-Za-z_]\w*)")


def interpolated(text: str) -> tuple[list[ast.expr], bool]:
    """Expressions that IPython expands in a command line, and whether something in braces could not be read."""
    found: list[ast.expr] = [ast.Name(name, ast.Load()) for name in _DOLLAR.findall(text)]
    if "{" not in text:
        return found, False
    # IPython expands `{expression}` with a Formatter; an f-string of the same text has the same fields.
    try:
        tree = ast.parse(f"f{text!r}", mode="eval")
    except (SyntaxError, ValueError):
        return found, bool(re.search(r"\{[^}]*[A-Za-z_][^}]*\}", text))
    found.append(tree.body)
    return found, False
