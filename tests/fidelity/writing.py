"""Random notebooks: cells that bind, alias, mutate, define, delete, raise, draw, read and write files, show and import.

Names are few, so that cells meet; statements look before they act, so that most cells succeed. Nothing depends on the
clock or on identity, so that two kernels that start from one seed can be compared exactly.
"""

from __future__ import annotations

from hypothesis import strategies as st

PREAMBLE = "import os, random, pathlib\nimport numpy as np\nimport helper"
START = "a, b, c, d = 1, [2], {'k': [3]}, 'four'"
HELPER = """\
VALUE = {value}
STATE = []
OPTIONS = {{'k': {{'w': [1]}}}}
class Box:
    seen = []
    def __init__(self, v):
        self.v = v
    def add(self, v):
        self.seen.append(v)
        return self.seen
BOX = Box(0)
def f(x):
    return [x, VALUE, OPTIONS['k']['w'][-1]]
def push(x):
    STATE.append(x)
    return len(STATE)
"""

names = st.sampled_from(["a", "b", "c", "d", "e"])
numbers = st.integers(0, 9)
FILES = ("one.txt", "two.txt")
files = st.sampled_from(FILES)

SIMPLE = (
    "{x} = {n}",
    "{x} = [{n}, {m}]",
    "{x} = {{'k': {n}, 'l': [{m}]}}",
    "{x} = {{{n}, {m}, 'w', 'q{n}'}}",
    "{x} = 'text{n}' * 3",
    "{x} = {y}",
    "{x} = [{y}, {y}]",
    "{x} = {{'k': {y}, 'm': {n}}}",
    "{x} = ({y}, {n})",
    "{x}, {y} = {y}, {x}",
    "{x} = list({y}) if isinstance({y}, (list, tuple, set)) else [{y}]",
    "if isinstance({x}, list): {x}.append({n})",
    "if isinstance({x}, list): {x}.append({y} if {y} is not {x} else {n})",
    "if isinstance({x}, list) and {x}: {x}[0] = {n}",
    "if isinstance({x}, list) and {x} and isinstance({x}[0], list): {x}[0].append({n})",
    "if isinstance({x}, list) and len({x}) > 1: del {x}[0]",
    "if isinstance({x}, dict): {x}['k'] = {n}",
    "if isinstance({x}, dict) and isinstance({x}.get('k'), list): {x}['k'].append({n})",
    "if isinstance({x}, dict): {x}.pop('l', None)",
    "if isinstance({x}, set): {x}.add({n})",
    "if isinstance({x}, tuple) and isinstance({x}[0], list): {x}[0].append({n})",
    "if isinstance({x}, (int, float)): {x} += {n}",
    "for {x} in range({n}): pass",
    "{x} = [v * 2 for v in {y} if isinstance(v, int)] if isinstance({y}, list) else {n}",
    "{x} = len({y}) if hasattr({y}, '__len__') else -1",
    "{x} = type({y}).__name__",
    "{x} = {y} is {z}",
    "try:\n    del {x}\nexcept NameError:\n    pass",
)
ARRAYS = (
    "{x} = np.arange({n}, {n} + 6)",
    "{x} = np.zeros(({n} % 3 + 2, 3))",
    "{x} = {y}[1:4] if isinstance({y}, np.ndarray) else np.ones(4)",
    "{x} = {y}[::2] if isinstance({y}, np.ndarray) else np.ones(5)",
    "{x} = {y}.T if isinstance({y}, np.ndarray) else np.eye(2)",
    "if isinstance({x}, np.ndarray) and {x}.size: {x}.flat[0] = {n}",
    "if isinstance({x}, np.ndarray): {x} += 1",
    "if isinstance({x}, np.ndarray): {x} = {x} * 2",
    "{x} = {y}.copy() if isinstance({y}, np.ndarray) else np.full(3, {n})",
    "{x} = float({y}.sum()) if isinstance({y}, np.ndarray) else 0.5",
    "{x} = np.array([{n}, [{m}], 'o'], dtype=object)",
)
CODE = (
    "def f():\n    return ({x}, {n})",
    "def f(v={n}):\n    return [v, {x}]",
    "def g(kept=[]):\n    kept.append({n})\n    return kept",
    "def g():\n    if isinstance({x}, list):\n        {x}.append({n})\n    return {x}",
    "def h():\n    global {x}\n    {x} = [{n}]",
    "def h():\n    global {x}\n    {x} = {y}\n    return f()",
    "def make(n):\n    box = [n]\n    def add(k):\n        box.append(k)\n        return len(box)\n    def look():\n        return box\n    return add, look",
    "add, look = make({n})",
    "{x} = add({n})",
    "{x} = look()",
    "{x} = f()",
    "{x} = g()",
    "h()",
    "{x} = f",
    "{x} = lambda: ({y}, {n})",
    "{x} = {y}() if callable({y}) and not isinstance({y}, type) else {n}",
    "class K:\n    tag = {n}\n    def __init__(self, v):\n        self.v = v\n    def bump(self):\n        self.v = (self.v, self.tag)\n        return self",
    "class K:\n    items = []\n    def __init__(self, v):\n        self.v = v\n        self.items.append({n})\n    def bump(self):\n        return self.items",
    "{x} = K({y})",
    "if isinstance({x}, K): {x}.v = {n}",
    "{x} = {y}.bump() if hasattr({y}, 'bump') else {n}",
    "{x} = isinstance({y}, K)",
    "if hasattr({x}, 'bump'): {x}.bump()",
    "class L(K):\n    pass",
    "{x} = L({y})",
    "class M(type):\n    made = []\n    def __call__(cls, *given):\n        M.made.append({n})\n        return super().__call__(*given)",
    "class N(metaclass=M):\n    pass\n{x} = N",
    "if isinstance({x}, type): {y} = {x}({n}) if {x} is K else type({x}).__name__",
    "K.tag = {n}",
    "f.note = {x}",
)
OUTSIDE = (
    "random.seed({n})",
    "{x} = random.random()",
    "{x} = random.randint(0, 99)",
    "np.random.seed({n})",
    "{x} = np.random.rand()",
    "rng = np.random.default_rng({n})",
    "{x} = float(rng.random())",
    "if isinstance({x}, list): random.shuffle({x})",
    "{x} = pathlib.Path('{p}').write_text('{n}')",
    "with open('{p}', 'w') as out: print({x} if isinstance({x}, (int, str)) else {n}, file=out)",
    "{x} = open('{p}').read() if os.path.exists('{p}') else None",
    "{x} = pathlib.Path('{p}').read_text()",
    "{x} = helper.f({n})",
    "{x} = helper.VALUE",
    "{x} = helper.push({n})",
    "helper.VALUE = {n}",
    "helper.OPTIONS['k']['w'].append({n})",
    "{x} = helper.OPTIONS['k']",
    "if isinstance({x}, dict) and isinstance({x}.get('w'), list): {x}['w'].append({n})",
    "{x} = helper.Box({n})",
    "{x} = helper.BOX",
    "if isinstance({x}, helper.Box): {x}.v = {n}",
    "if isinstance({x}, helper.Box): {x}.add({n})",
    "{x} = len(helper.Box.seen), helper.BOX.v",
    "os.environ['SOME_MODE'] = '{n}'",
    "{x} = os.environ.get('SOME_MODE')",
    "exec('{x} = [{n}]')",
    "globals()['{x}'] = {y}",
    "{x} = eval('{y}')",
    "{x} = sorted(k for k in globals() if len(k) == 1)",
    "it = iter([{n}, {m}, 7])",
    "{x} = next(it, None)",
    "raise ValueError({n})",
    "{x} = 1 / ({n} % 3)",
)
SHOWN = (
    "print({x})",
    "print({x}, end='')",
    "{x}",
    "{x};",
    "display({x})",
    "print({x}, {y} is {x})",
    "import sys; print({n}, file=sys.stderr)",
    "[{x}, {y}]",
    "_",
)


@st.composite
def statements(draw: st.DrawFn) -> str:
    """One statement."""
    kind = draw(st.sampled_from([SIMPLE, SIMPLE, SIMPLE, ARRAYS, CODE, CODE, OUTSIDE]))
    return fill(draw, draw(st.sampled_from(kind)))


def fill(draw: st.DrawFn, template: str) -> str:
    """A template with names and numbers."""
    return template.format(x=draw(names), y=draw(names), z=draw(names), n=draw(numbers), m=draw(numbers), p=draw(files))


@st.composite
def sources(draw: st.DrawFn) -> str:
    """One cell."""
    lines = draw(st.lists(statements(), min_size=1, max_size=3))
    if draw(st.integers(0, 2)) == 0:
        lines.append(fill(draw, draw(st.sampled_from(SHOWN))))
    return "\n".join(lines)
