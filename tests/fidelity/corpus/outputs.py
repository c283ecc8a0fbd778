"""Section D: what cells show."""

from __future__ import annotations

from tests.fidelity.case import Case, Edit, cells

CASES = (
    Case(
        row="34",
        name="streams-interleaved",
        cells=cells("""
import sys
print('one'); print('two', file=sys.stderr); print('three', end='')
sys.stdout.write('!\\n')
---
import logging
logging.getLogger('x').warning('from logging')
print('after')
---
for i in range(3):
    print(i, end=' ', flush=True)
    print(i, file=sys.stderr)
'result'
"""),
        edits=(Edit({2: "print('changed')"}),),
        replays=(0, 1, 2),
    ),
    Case(
        row="34",
        name="subprocess-and-thread-output",
        cells=cells("""
!echo from a subprocess
---
import threading
t = threading.Thread(target=lambda: print('from a thread'))
t.start(); t.join()
---
n = len('done')
print(n)
"""),
        edits=(Edit({2: "n = len('finished')\nprint(n)"}),),
        replays=(1, 2),
        ignore=("names.t",),
    ),
    Case(
        row="35",
        name="figures-shown",
        cells=cells("""
import matplotlib.pyplot as plt
%matplotlib inline
---
fig, ax = plt.subplots(figsize=(1, 1), dpi=40)
_ = ax.plot([1, 2, 3])
---
n = len(ax.lines)
print(n)
---
_ = ax.plot([3, 1])
fig
"""),
        needs=("numpy", "matplotlib.figure"),
        probes=("len(ax.lines), ax.figure is fig", "plt.get_fignums()"),
        edits=(
            Edit({1: "fig, ax = plt.subplots(figsize=(1, 1), dpi=40)\n_ = ax.plot([5, 2, 3])"}),
            Edit({2: "n = len(ax.lines) + 1\nprint(n)"}),
        ),
    ),
    Case(
        row="35",
        name="show-twice",
        cells=cells("""
import matplotlib.pyplot as plt
%matplotlib inline
---
plt.figure(figsize=(1, 1), dpi=40); plt.plot([1, 2]); plt.show()
plt.figure(figsize=(1, 1), dpi=40); plt.plot([2, 1]); plt.show()
---
print(plt.get_fignums())
"""),
        needs=("numpy", "matplotlib.figure"),
        probes=("plt.get_fignums()",),
        edits=(Edit({2: "print(len(plt.get_fignums()))"}),),
        replays=(1, 2),
    ),
    Case(
        row="36",
        name="display-handles",
        cells=cells("""
from IPython.display import display, HTML
h = display('start', display_id='my-display')
---
for i in range(3):
    h.update(f'step {i}')
---
x = [1]
display(x, HTML('<b>bold</b>'))
---
h.update('final')
print('updated')
"""),
        probes=("h.display_id", "h.update('by probe')"),
        edits=(Edit({1: "h.update('once')"}), Edit({3: "print('not updated')"})),
    ),
    Case(
        row="36",
        name="rich-representations",
        cells=cells("""
class Rich:
    def __init__(self, n): self.n = n
    def _repr_html_(self): return f'<b>{self.n}</b>'
    def __repr__(self): return f'Rich({self.n})'
r = Rich(len('abc'))
r
---
from IPython.display import Markdown, JSON, Latex
display(Markdown('# hi'), JSON({'a': 1}), Latex('$x$'))
---
r.n = 5
r
"""),
        probes=("r, r.n",),
        edits=(
            Edit(
                {
                    0: "class Rich:\n    def __init__(self, n): self.n = n\n    def _repr_html_(self): return f'<i>{self.n}</i>'\n    def __repr__(self): return f'Rich({self.n})'\nr = Rich(len('abc'))\nr"
                }
            ),
        ),
    ),
    Case(
        row="37",
        name="clear-output-and-progress",
        cells=cells("""
from IPython.display import clear_output
for i in range(5):
    clear_output(wait=True)
    print('frame', i)
---
import sys
for i in range(4):
    sys.stdout.write(f'\\rstep {i}')
print()
---
print('a'); clear_output(); print('b')
"""),
        edits=(Edit({2: "print('c')"}),),
        replays=(0, 1, 2),
        # A plain front end keeps the carriage returns; the final state of the line is what both show.
        ignore=("cells.1.outputs",),
    ),
    Case(
        row="39",
        name="several-results-of-one-cell",
        cells=cells("""
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.ast_node_interactivity = 'all'
rows = [len('abc')]
---
rows
[9]
len(rows)
---
__.append(rows)
again = __ is rows
---
x = 1
"""),
        probes=("rows, again", "_, __, ___", "Out[2], _2", "__.append(5); __"),
        edits=(
            Edit({1: "rows\nlen(rows)"}),
            Edit({1: "rows\n[8]\nlen(rows)"}),
            Edit({0: "rows = [len('abc')]"}),
            Edit({2: "___.append(7)\nagain = ___ is rows"}),
        ),
        replays=(1, 2, 3),
    ),
    Case(
        row="39",
        name="results-of-several-cells",
        cells=cells("""
get_ipython().ast_node_interactivity = 'all'
---
[1]
[2]
---
[3]
---
___.append(10)
__.append(20)
_.append(30)
both = [__, ___]
"""),
        probes=("both", "_, __, ___", "both[0] is __, both[1] is ___"),
        edits=(Edit({1: "[4]\n[2]"}), Edit({2: "[3]\n[5]"})),
        replays=(1, 2, 3),
    ),
    Case(
        row="39",
        name="prompts-and-history",
        cells=cells("""
[len('a'), 2]
---
_
---
x = {'k': Out[1]}
x
---
_i2, In[1], len(Out), _ is x, __ is Out[2], Out[1] is Out[2], x['k'] is Out[1]
"""),
        probes=("_1 is Out[1]", "Out[1].append(5); x", "In[1]", "_3 is x"),
        edits=(Edit({0: "[len('ab'), 3]"}), Edit({2: "x = {'q': Out[1]}\nx"})),
    ),
    Case(
        row="39",
        name="result-is-a-name-changed-later",
        cells=cells("""
a = [len('a')]
a
---
a.append(2)
---
Out[1]
---
a is Out[1], a is _1
"""),
        probes=("a.append(9); Out[1]", "_1 is a"),
        edits=(Edit({1: "a.append(3)"}),),
    ),
    Case(
        row="39",
        name="semicolon-hides-a-result",
        cells=cells("""
x = [len('abc')]
x;
---
x
---
print(_)
"""),
        probes=("Out.keys()",),
        edits=(Edit({0: "x = [len('abc')]\nx"}),),
    ),
    Case(
        row="40",
        name="error-then-the-rest",
        cells=cells("""
x = [len('a')]
---
x.append(2)
raise ValueError('half-way')
---
print('x is', x)
---
y = 1 / 0
"""),
        probes=("x",),
        edits=(Edit({1: "x.append(2)"}), Edit({3: "y = 1"})),
        stop_on_error=False,
    ),
    Case(
        row="40",
        name="syntax-error-and-name-error",
        cells=cells("""
x = len('a')
---
x = = 2
---
undefined_name
---
print(x)
"""),
        probes=("x",),
        edits=(Edit({1: "x = 2"}),),
        stop_on_error=False,
    ),
    Case(
        row="41",
        name="input",
        cells=cells("""
name = input('who? ')
---
greeting = f'hello {name}'
---
print(greeting)
"""),
        answers=("bob",),
        probes=("greeting",),
        edits=(Edit({1: "greeting = f'bye {name}'"}),),
        replays=(0, 1, 2),
    ),
    Case(
        row="42",
        name="much-output",
        cells=cells("""
for i in range(3000):
    print('line', i)
---
n = i
print(n)
"""),
        probes=("n",),
        edits=(Edit({1: "n = i + 1\nprint(n)"}),),
        replays=(0, 1),
    ),
)
