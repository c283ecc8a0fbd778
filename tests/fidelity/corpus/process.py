"""Section C: the state of the process and of modules."""

from __future__ import annotations

from tests.fidelity.case import Case, Edit, cells

LOCAL = """
from dataclasses import dataclass, field
from types import SimpleNamespace
SETTINGS = {'plot': {'w': 1}, 'rows': [[1], [2]]}
@dataclass
class Opts:
    width: int = 1
    rows: list = field(default_factory=list)
opts = Opts()
deep = SimpleNamespace(inner=Opts())
def area():
    return opts.width * 10 + SETTINGS['plot']['w']
"""
"""A module beside the notebook that holds settings."""

HELPER = """
class P:
    seen = []
    _made = {}
    def __init__(self, name='x'):
        self.name = name
        P._made[name] = self
    def add(self, v):
        self.seen.append(v)
class Store:
    def __init__(self):
        self._rows = []
    def insert(self, v):
        self._rows.append(v)
store = Store()
_registry = []
_cache = {}
def register_it(f):
    _registry.append(f)
    return f
def names():
    return list(_registry)
def twice(n):
    if n not in _cache:
        _cache[n] = 2 * n
    return _cache[n]
"""
"""A module beside the notebook whose classes and objects remember what was done to them."""

REMEMBERING = """
import functools, itertools
def add(x, seen=[]):
    seen.append(x)
    return list(seen)
def counter():
    counter.n += 1
    return counter.n
counter.n = 0
def make():
    n = 0
    def tick():
        nonlocal n
        n += 1
        return n
    return tick
tick = make()
_n = 0
def bump():
    global _n
    _n += 1
    return _n
ids = itertools.count()
@functools.lru_cache(None)
def slow(n):
    return n * 2
def gen():
    yield from range(100)
stream = gen()
"""
"""A module beside the notebook whose functions and iterators remember."""

WARNING = """
import warnings
def old(n):
    warnings.warn('old is old', DeprecationWarning)
    warnings.warn('do not', UserWarning)
    return n
def new():
    warnings.warn('new is new', FutureWarning)
"""
"""An installed package that warns, once at each place."""

COUNTING = """
import functools
import itertools
from collections import defaultdict
class System:
    _count = 0
    ids = itertools.count(100)
    def __init__(self):
        self.name = f"sys{System._count}"
        self.id = next(System.ids)
        System._count += 1
    def __repr__(self):
        return f"{self.name}/{self.id}/{total}"
    def __reduce__(self):
        return _again, (self.name, self.id)
def _again(name, id):
    made = System()
    made.name, made.id = name, id
    return made
total = 0
_next = itertools.count().__next__
def more():
    global total
    total += 1
    return _next()
class Club:
    pass
class Member:
    numbers = defaultdict(functools.partial(itertools.count, 1))
    def __init__(self, club):
        self.number = next(Member.numbers[club])
"""
"""An installed package that numbers what it makes."""

CASES = (
    # --- 26: random generators ------------------------------------------------------------------------------------------
    Case(
        row="26",
        name="seeded-draws",
        cells=cells("""
import random
random.seed(1)
---
a = random.random()
---
b = [random.randint(0, 99) for _ in range(3)]
---
print(a, b)
"""),
        probes=("random.random()", "a, b"),
        edits=(
            Edit({0: "import random\nrandom.seed(2)"}),
            Edit({1: "a = random.random(), random.random()"}),
            Edit({1: "a = 0"}),
            Edit({3: "print(b, a)\nprint(random.random())"}),
        ),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="26",
        name="unseeded-draws",
        cells=cells("""
import random
a = random.random()
---
b = random.random()
---
c = a < b
print(a, b, c)
"""),
        probes=("random.random()", "a, b"),
        edits=(Edit({2: "c = random.random()\nprint(a, b, c)"}),),
        replays=(0, 1, 2),
    ),
    Case(
        row="26",
        name="numpy-global-and-generator",
        cells=cells("""
import numpy as np
np.random.seed(3)
rng = np.random.default_rng(4)
---
a = np.random.rand(2)
---
b = rng.normal(size=2)
---
c = np.random.randint(0, 100), rng.integers(0, 100)
print(a, b, c)
"""),
        needs=("numpy",),
        probes=("np.random.rand()", "rng.random()", "c"),
        edits=(
            Edit({0: "import numpy as np\nnp.random.seed(5)\nrng = np.random.default_rng(4)"}),
            Edit({1: "a = np.random.rand(3)"}),
            Edit({2: "b = rng.normal(size=3)"}),
        ),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="26",
        name="draws-inside-functions",
        cells=cells("""
import random
def roll(n):
    return [random.randint(1, 6) for _ in range(n)]
random.seed(10)
---
first = roll(3)
---
r = random.Random(5)
own = r.random()
---
second = roll(2)
print(first, second, own)
"""),
        probes=("roll(4)", "r.random()"),
        edits=(Edit({1: "first = roll(4)"}), Edit({2: "r = random.Random(6)\nown = r.random()"})),
        replays=(1, 2, 3),
    ),
    Case(
        row="26",
        name="shuffle-in-place",
        cells=cells("""
import random
random.seed(0)
deck = list(range(10))
---
random.shuffle(deck)
---
hand = random.sample(deck, 3)
print(hand)
"""),
        probes=("deck", "random.choice(deck)"),
        edits=(
            Edit({1: "random.shuffle(deck); random.shuffle(deck)"}),
            Edit({0: "import random\nrandom.seed(0)\ndeck = list(range(11))"}),
        ),
        replays=(0, 1, 2),
    ),
    # --- 27: rcParams, options, warnings, logging, decimal ------------------------------------------------------------
    Case(
        row="27",
        name="set-to-what-it-is-already",
        cells=cells("""
import decimal, locale, logging, os, random, signal, socket, sys, warnings
import numpy as np
import pandas as pd
---
def all_at(k):
    random.seed(k)
    np.random.seed(k)
    os.environ['LEVEL'] = str(k)
    pd.set_option('display.max_rows', k)
    np.set_printoptions(precision=k)
    decimal.getcontext().prec = k
    logging.getLogger('mine').setLevel(k)
    sys.setrecursionlimit(3000 + k)
    socket.setdefaulttimeout(k)
    os.umask(k)
    os.chdir(os.path.join(start, f'd{k}'))
---
start = os.getcwd()
os.makedirs('d3', exist_ok=True)
os.makedirs('d4', exist_ok=True)
---
all_at(3)
---
all_at(3)
---
random.seed(3)
---
np.random.seed(3)
---
os.environ['LEVEL'] = '3'
---
os.chdir(os.path.join(start, 'd3'))
---
socket.setdefaulttimeout(3)
old = os.umask(3)
---
print(random.random(), np.random.rand(), os.environ['LEVEL'], os.path.basename(os.getcwd()), socket.getdefaulttimeout(), old)
"""),
        needs=("numpy", "numpy.random", "pandas"),
        probes=(
            "pd.get_option('display.max_rows'), np.get_printoptions()['precision'], decimal.getcontext().prec",
            "logging.getLogger('mine').level, sys.getrecursionlimit(), socket.getdefaulttimeout()",
            "os.environ['LEVEL'], os.path.basename(os.getcwd())",
        ),
        edits=(
            Edit({3: "all_at(4)"}),
            Edit({3: "all_at(4)", 4: "pass"}),
        ),
    ),
    Case(
        row="27",
        name="settings-behind-functions",
        cells=cells("""
import csv, gc, os, socket, sys, time
---
socket.setdefaulttimeout(3)
sys.setswitchinterval(0.01)
gc.disable()
---
old = csv.field_size_limit(1_000_000)
csv.register_dialect('semicolons', delimiter=';')
---
os.environ['TZ'] = 'Asia/Tokyo'
time.tzset()
---
hour = time.localtime(0).tm_hour
print(hour, old)
"""),
        probes=(
            "socket.getdefaulttimeout(), round(sys.getswitchinterval(), 4), gc.isenabled()",
            "csv.field_size_limit(), sorted(csv.list_dialects()), csv.get_dialect('semicolons').delimiter",
            "time.tzname, time.localtime(0).tm_hour",
        ),
        edits=(
            Edit({1: "pass"}),
            Edit({3: "os.environ['TZ'] = 'Europe/Athens'\ntime.tzset()"}),
            Edit({2: "old = 0\ncsv.register_dialect('semicolons', delimiter='|')"}),
        ),
    ),
    Case(
        row="27",
        name="how-the-shell-shows-results",
        cells=cells("""
class Point:
    def __init__(self, x):
        self.x = x
---
get_ipython().display_formatter.formatters['text/plain'].for_type(Point, lambda p, printer, cycle: printer.text(f'at {p.x}'))
---
p = Point(len('abc'))
p
---
get_ipython().ast_node_interactivity = 'all'
---
p.x
p.x + 1
"""),
        probes=("p", "get_ipython().ast_node_interactivity"),
        edits=(
            Edit({1: "pass"}),
            Edit({3: "pass"}),
        ),
    ),
    Case(
        row="27",
        name="a-printer-for-another",
        cells=cells("""
class Point:
    x = len('abc')
def printer(sign):
    return lambda p, target, cycle: target.text(f'{sign}{p.x}')
text = get_ipython().display_formatter.formatters['text/plain']
---
old = text.for_type(Point, printer('+'))
---
Point()
---
old = text.for_type(Point, printer('-'))
---
Point()
---
text.pop(Point);
---
print(type(Point()).__name__)
"""),
        probes=("Point in text.type_printers",),
        edits=(
            Edit({1: "old = text.for_type(Point, printer('*'))"}),
            Edit({3: "pass"}),
            Edit({5: "text.for_type(Point, printer('='))\nPoint()"}),
        ),
    ),
    Case(
        row="27",
        name="time-zone-behind-datetime",
        cells=cells("""
import os, time
from datetime import datetime
---
os.environ['TZ'] = 'Asia/Tokyo'
time.tzset()
---
local = datetime.fromtimestamp(0)
print(local)
"""),
        probes=("datetime.fromtimestamp(0) == local",),
        edits=(Edit({1: "os.environ['TZ'] = 'Europe/Athens'\ntime.tzset()"}), Edit({1: "pass"})),
        replays=(1, 2),
    ),
    Case(
        row="27",
        name="format-of-a-log-handler",
        cells=cells("""
import logging, sys
log = logging.getLogger('mine')
log.propagate = False
handler = logging.StreamHandler(sys.stdout)
log.addHandler(handler)
---
handler.setFormatter(logging.Formatter('<%(message)s>'))
---
log.warning('careful')
"""),
        probes=("len(log.handlers), log.propagate", "log.handlers[0].formatter._fmt"),
        edits=(Edit({1: "handler.setFormatter(logging.Formatter('[%(message)s]'))"}), Edit({1: "pass"})),
    ),
    Case(
        row="27",
        name="figures-are-not-drawn-by-themselves",
        cells=cells("""
import matplotlib.pyplot as plt
---
plt.ioff()
---
figure, axes = plt.subplots()
line = axes.plot([1, 2, 3])
---
print(plt.isinteractive(), len(axes.lines))
"""),
        needs=("numpy", "matplotlib", "matplotlib.pyplot"),
        probes=("plt.isinteractive(), plt.get_backend()", "len(axes.lines), line[0] is axes.lines[0]"),
        edits=(Edit({1: "plt.ion();"}), Edit({2: "figure, axes = plt.subplots()\nline = axes.plot([1, 2])"})),
    ),
    Case(
        row="27",
        name="pandas-options",
        cells=cells("""
import pandas as pd
pd.set_option('display.max_rows', 4)
---
df = pd.DataFrame({'x': range(10)})
df
---
pd.set_option('display.precision', 2)
---
pd.Series([1.23456])
"""),
        needs=("numpy", "pandas"),
        probes=("pd.get_option('display.max_rows'), pd.get_option('display.precision')", "repr(df)"),
        edits=(Edit({0: "import pandas as pd\npd.set_option('display.max_rows', 6)"}), Edit({2: "pass"})),
        replays=(1, 3),
    ),
    Case(
        row="27",
        name="numpy-print-options-and-errors",
        cells=cells("""
import numpy as np
np.set_printoptions(precision=2)
old = np.seterr(divide='ignore')
---
a = np.array([1.23456, 2.0]) / 1
print(a)
---
print(np.array([1.0]) / 0)
"""),
        needs=("numpy",),
        probes=("repr(np.array([1.23456]))", "np.geterr()['divide']"),
        edits=(Edit({0: "import numpy as np\nnp.set_printoptions(precision=4)\nold = np.seterr(divide='ignore')"}),),
    ),
    Case(
        row="27",
        name="warning-filters",
        cells=cells("""
import warnings
warnings.simplefilter('ignore')
---
warnings.warn('quiet')
print('said nothing')
---
warnings.resetwarnings()
---
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    warnings.warn('kept')
print(len(caught))
"""),
        probes=("len(caught)",),
        edits=(Edit({0: "import warnings\nwarnings.simplefilter('always')"}),),
        ignore=("names.caught",),
    ),
    Case(
        row="27",
        name="logging-set-up",
        cells=cells("""
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(levelname)s %(message)s', force=True)
log = logging.getLogger('mine')
---
log.info('hello')
---
log.setLevel(logging.ERROR)
---
log.info('not shown')
log.error('shown')
"""),
        probes=(
            "log.level, logging.getLogger().level",
            "len(logging.getLogger().handlers)",
            "log is logging.getLogger('mine')",
        ),
        edits=(
            Edit({2: "log.setLevel(logging.INFO)"}),
            Edit(
                {
                    0: "import logging, sys\nlogging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(message)s', force=True)\nlog = logging.getLogger('mine')"
                }
            ),
        ),
    ),
    Case(
        row="27",
        name="decimal-and-locale",
        cells=cells("""
import decimal, locale
decimal.getcontext().prec = 6
---
d = decimal.Decimal(1) / 7
---
decimal.getcontext().prec = 3
---
e = decimal.Decimal(1) / 7
print(d, e, locale.setlocale(locale.LC_NUMERIC, 'C'))
"""),
        probes=("decimal.Decimal(1) / 3", "decimal.getcontext().prec"),
        edits=(Edit({0: "import decimal, locale\ndecimal.getcontext().prec = 8"}), Edit({2: "pass"})),
    ),
    Case(
        row="27",
        name="rcparams-and-current-figure",
        cells=cells("""
import matplotlib.pyplot as plt
plt.rcParams['lines.linewidth'] = 5
plt.ioff()
---
fig, ax = plt.subplots()
---
plt.plot([1, 2, 3])
len(ax.lines)
---
plt.close('all')
print(plt.rcParams['lines.linewidth'], plt.get_fignums())
"""),
        needs=("numpy", "matplotlib.figure"),
        probes=(
            "len(ax.lines), ax.lines[0].get_linewidth(), ax.figure is fig",
            "plt.rcParams['lines.linewidth']",
            "plt.get_fignums()",
        ),
        edits=(Edit({0: "import matplotlib.pyplot as plt\nplt.rcParams['lines.linewidth'] = 2\nplt.ioff()"}),),
        ignore=("prompts", "cells.2.outputs"),
        refusal=True,
    ),
    Case(
        row="27",
        name="options-changed-in-place",
        cells=cells("""
import matplotlib
import matplotlib.pyplot as plt
plt.rcParams['font.sans-serif'].insert(0, 'Nobody Has This')
---
print(plt.rcParams['font.sans-serif'][0])
---
from cycler import cycler
plt.rcParams['axes.prop_cycle'] *= cycler(lw=[1, 2])
---
plt.rcParams['font.serif'].append('Nor This')
---
sizes = len(plt.rcParams['axes.prop_cycle']), plt.rcParams['font.serif'][-1]
sizes
"""),
        needs=("numpy", "matplotlib.figure"),
        probes=(
            "len(plt.rcParams['axes.prop_cycle']), plt.rcParams['font.serif'][-1], plt.rcParams['font.sans-serif'][:2]",
        ),
        edits=(
            Edit({0: "import matplotlib\nimport matplotlib.pyplot as plt"}),
            Edit({3: "plt.rcParams['font.serif'].append('But This')"}),
            Edit({2: "pass"}),
        ),
    ),
    Case(
        row="27",
        name="a-table-of-a-package-changed-in-place",
        cells=cells("""
import mimetypes
import PIL.Image as im
mimetypes.knownfiles.append('first')
---
im.MIME.update({'zz': 'image/zz'})
---
def add(name):
    im.MIME.setdefault(name, 'image/' + name)
---
add('yy')
---
found = im.MIME['zz'], im.MIME['yy'], mimetypes.knownfiles[-1]
found
"""),
        probes=("im.MIME['zz'], im.MIME['yy'], mimetypes.knownfiles[-1]",),
        edits=(
            Edit({1: "im.MIME.update({'zz': 'image/other'})"}),
            Edit({0: "import mimetypes\nimport PIL.Image as im\nmimetypes.knownfiles.append('second')"}),
        ),
    ),
    Case(
        row="27",
        name="a-name-for-a-table-of-a-package",
        cells=cells("""
from mimetypes import knownfiles
import PIL.Image as im
---
types = im.MIME
---
knownfiles.append('first')
---
types['zz'] = 'image/zz'
---
both = [types, knownfiles]
---
found = im.MIME['zz'], __import__('mimetypes').knownfiles[-1], both[0]['zz']
found
"""),
        probes=(
            "types is im.MIME, both[0] is types, knownfiles is __import__('mimetypes').knownfiles",
            "im.MIME['zz'], knownfiles[-1]",
        ),
        edits=(Edit({3: "types['zz'] = 'image/other'"}), Edit({2: "knownfiles.append('second')"})),
    ),
    Case(
        row="27",
        name="what-is-registered-with-the-shell",
        cells=cells("""
import tracemalloc
from IPython.core.magic import register_line_magic
tracemalloc.start()
---
@register_line_magic
def hello(line):
    return 'hello ' + line
---
def handler(shell, kind, value, trace, tb_offset=None):
    print('handled', kind.__name__)
---
get_ipython().set_custom_exc((KeyError,), handler)
---
greeting = %hello you
greeting, tracemalloc.is_tracing()
"""),
        probes=(
            "get_ipython().run_line_magic('hello', 'me')",
            "get_ipython().custom_exceptions, tracemalloc.is_tracing()",
        ),
        edits=(
            Edit({1: "@register_line_magic\ndef hello(line):\n    return 'bye ' + line"}),
            Edit({0: "import tracemalloc\nfrom IPython.core.magic import register_line_magic"}),
        ),
    ),
    Case(
        row="27",
        name="setters-of-the-standard-library",
        cells=cells("""
import calendar, logging
class Loud(logging.Logger):
    pass
---
calendar.setfirstweekday(6)
---
logging.addLevelName(25, 'NOTE')
logging.setLoggerClass(Loud)
---
seen = calendar.firstweekday(), logging.getLevelName(25), type(logging.getLogger('new')).__name__
seen
"""),
        probes=("calendar.firstweekday(), logging.getLevelName(25), type(logging.getLogger('newer')).__name__",),
        edits=(Edit({1: "calendar.setfirstweekday(5)"}), Edit({2: "logging.addLevelName(25, 'HINT')"})),
    ),
    Case(
        row="27",
        name="a-module-that-a-cell-makes-up",
        cells=cells("""
import sys, types
sys.modules['made_up'] = types.ModuleType('made_up')
sys.modules['made_up'].parts = [1]
---
import made_up
parts = made_up.parts
---
parts.append(3)
---
many = len(made_up.parts)
many
"""),
        probes=("made_up.parts, parts is made_up.parts, many",),
        edits=(Edit({2: "parts.append(4)"}),),
    ),
    # --- 28: environment, directory, path -------------------------------------------------------------------------------
    Case(
        row="27",
        name="warnings-that-are-shown-once",
        cells=cells("""
import sys, warnings
sys.path.insert(0, 'lib/site-packages')
import warner
---
warner.old(1)
---
x = warner.old(2)
warner.new()
---
with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    warner.old(3)
---
warner.old(4)
---
y = 1
---
warner.old(5)
warner.new()
"""),
        files={"lib/site-packages/warner.py": WARNING},
        probes=("warner.old(6)",),
        edits=(Edit({5: "y = 2\nwarner.old(1)"}), Edit({6: "warner.new()\nwarner.old(5)"})),
        replays=(1, 2, 3, 4, 5, 6),
    ),
    Case(
        row="28",
        name="environ-chdir-path",
        cells=cells("""
import os, sys
os.environ['MODE'] = 'test'
os.makedirs('sub', exist_ok=True)
---
os.chdir('sub')
---
where = os.path.basename(os.getcwd())
mode = os.environ['MODE']
---
sys.path.append('/nowhere')
os.environ.pop('MODE')
---
print(where, mode, 'MODE' in os.environ, sys.path[-1])
"""),
        probes=("os.path.basename(os.getcwd())", "os.environ.get('MODE')", "sys.path[-1]"),
        edits=(
            Edit({0: "import os, sys\nos.environ['MODE'] = 'prod'\nos.makedirs('sub', exist_ok=True)"}),
            Edit({1: "pass"}),
        ),
    ),
    Case(
        row="28",
        name="environment-read",
        cells=cells("""
import os
level = os.environ.get('MY_LEVEL', 'none')
---
text = f'level={level}'
---
print(text, os.getenv('OTHER_ONE'))
"""),
        env={"MY_LEVEL": "3"},
        probes=("text",),
        edits=(Edit(env={"MY_LEVEL": "4"}), Edit(env={"OTHER_ONE": "x"})),
        replays=(0, 1, 2),
    ),
    Case(
        row="28",
        name="umask-and-signals",
        cells=cells("""
import os, signal
old = os.umask(0o077)
---
def handler(n, frame): pass
prev = signal.signal(signal.SIGUSR1, handler)
---
print(oct(os.umask(0o077)), signal.getsignal(signal.SIGUSR1) is handler)
"""),
        probes=("oct(os.umask(0o077))", "signal.getsignal(signal.SIGUSR1) is handler"),
        edits=(Edit({0: "import os, signal\nold = os.umask(0o027)"}),),
        refusal=True,
    ),
    Case(
        row="28",
        name="recursion-limit",
        cells=cells("""
import sys
sys.setrecursionlimit(5000)
---
def depth(n): return n if n == 0 else depth(n - 1)
d = depth(2500)
---
print(d, sys.getrecursionlimit())
"""),
        probes=("sys.getrecursionlimit()", "depth(3000)"),
        edits=(Edit({2: "print(sys.getrecursionlimit())"}),),
    ),
    # --- 29: imports ----------------------------------------------------------------------------------------------------
    Case(
        row="29",
        name="local-module",
        cells=cells("""
import helper
from helper import twice as tw
---
x = tw(4)
---
y = helper.CONSTANT
---
print(x, y)
"""),
        files={"helper.py": "CONSTANT = 5\ndef twice(x):\n    return x * 2\ndef unused():\n    return 0\n"},
        probes=("tw(1), helper.twice is tw", "x, y"),
        edits=(
            Edit(files={"helper.py": "CONSTANT = 6\ndef twice(x):\n    return x * 20\ndef unused():\n    return 0\n"}),
            Edit(files={"helper.py": "CONSTANT = 5\ndef twice(x):\n    return x * 2\ndef unused():\n    return 1\n"}),
        ),
        replays=(1, 2, 3),
    ),
    Case(
        row="29",
        name="local-module-through-another",
        cells=cells("""
import outer
---
r = outer.run(3)
---
print(r)
"""),
        files={
            "outer.py": "import inner\ndef run(x):\n    return inner.f(x) + 1\n",
            "inner.py": "def f(x):\n    return x * 10\n",
        },
        probes=("outer.run(1), r",),
        edits=(Edit(files={"inner.py": "def f(x):\n    return x * 100\n"}),),
        replays=(1, 2),
    ),
    Case(
        row="29",
        name="import-with-side-effects-and-star",
        cells=cells("""
from effects import *
import effects
---
out = describe()
---
effects.STATE.append('by notebook')
---
print(out, effects.STATE, LIMIT)
"""),
        files={
            "effects.py": "print('imported')\nSTATE = ['start']\nLIMIT = 3\n__all__ = ['describe', 'LIMIT', 'STATE']\ndef describe():\n    return f'{len(STATE)} of {LIMIT}'\n"
        },
        probes=("describe(), STATE is effects.STATE", "effects.STATE"),
        edits=(
            Edit(
                files={
                    "effects.py": "print('imported')\nSTATE = ['begin']\nLIMIT = 4\n__all__ = ['describe', 'LIMIT', 'STATE']\ndef describe():\n    return f'{len(STATE)} of {LIMIT}'\n"
                }
            ),
            Edit({2: "pass"}),
        ),
    ),
    Case(
        row="29",
        name="import-as-submodule-and-reload",
        cells=cells("""
import os.path as p, importlib
import collections.abc
import conf
---
j = p.join('a', 'b')
conf.VALUE = 99
---
_ = importlib.reload(conf)
---
print(j, conf.VALUE, collections.abc.Mapping.__name__)
"""),
        files={"conf.py": "VALUE = 1\n"},
        probes=("conf.VALUE",),
        edits=(Edit(files={"conf.py": "VALUE = 2\n"}), Edit({2: "pass"})),
    ),
    Case(
        row="29",
        name="instance-of-a-local-module",
        cells=cells("""
from shapes import Box
b = Box(2)
---
b.grow()
---
print(b.size, isinstance(b, Box))
"""),
        files={
            "shapes.py": "class Box:\n    def __init__(self, size):\n        self.size = size\n    def grow(self):\n        self.size += 1\n"
        },
        probes=("b.grow(); b.size", "type(b) is Box"),
        edits=(
            Edit(
                files={
                    "shapes.py": "class Box:\n    def __init__(self, size):\n        self.size = size\n    def grow(self):\n        self.size *= 10\n"
                }
            ),
        ),
        replays=(1, 2),
    ),
    # --- 31: modules as state -------------------------------------------------------------------------------------------
    Case(
        row="29",
        name="modules-that-import-each-other",
        cells=cells("""
import sys
sys.path.insert(0, 'lib/site-packages')
---
from ring.door import Core
x = Core()
---
y = Core, x
print(type(x).__module__)
"""),
        files={
            "lib/site-packages/ring/__init__.py": "",
            "lib/site-packages/ring/door.py": "from ring.core import Core\n",
            "lib/site-packages/ring/core.py": "import ring.door\nclass Core:\n    pass\n",
        },
        probes=("type(x) is Core, y[0] is Core, y[1] is x",),
        replays=(1, 2),
    ),
    Case(
        row="31",
        name="module-attribute-as-state",
        cells=cells("""
import settings_mod as cfg
cfg.X = 3
---
y = cfg.X * 2
---
cfg.X += 1
---
z = cfg.get()
print(y, z)
"""),
        files={"settings_mod.py": "X = 0\ndef get():\n    return X\n"},
        probes=("cfg.X, cfg.get()", "y, z"),
        edits=(Edit({0: "import settings_mod as cfg\ncfg.X = 30"}), Edit({2: "pass"})),
    ),
    Case(
        row="31",
        name="state-inside-a-module-set-by-its-function",
        cells=cells("""
import counter_mod
---
counter_mod.bump()
---
counter_mod.bump()
n = counter_mod.value()
---
print(n)
"""),
        files={"counter_mod.py": "_n = 0\ndef bump():\n    global _n\n    _n += 1\ndef value():\n    return _n\n"},
        probes=("counter_mod.value()", "counter_mod.bump(); counter_mod.value()"),
        edits=(Edit({1: "pass"}), Edit({3: "print(n, counter_mod.value())"})),
    ),
    Case(
        row="31",
        name="class-attribute-of-an-installed-package",
        cells=cells("""
import string
class Custom(string.Template):
    delimiter = '%'
string.Template.flag = 'set'
---
t = Custom('hi %name').substitute(name='bob')
---
print(t, string.Template.flag)
"""),
        probes=("string.Template.flag",),
        edits=(
            Edit(
                {
                    0: "import string\nclass Custom(string.Template):\n    delimiter = '&'\nstring.Template.flag = 'other'"
                }
            ),
        ),
    ),
    # --- 32: session magics ---------------------------------------------------------------------------------------------
    Case(
        row="31",
        name="numbers-that-a-package-counts",
        cells=cells("""
import sys
sys.path.insert(0, 'lib/site-packages')
import countlib
---
a = countlib.System()
---
b = countlib.System(); c = countlib.System()
---
d = countlib.more()
---
x = 1
---
e = countlib.System(); f = countlib.more()
print(e, f)
"""),
        files={"lib/site-packages/countlib.py": COUNTING},
        probes=("countlib.System(), countlib.more(), a, b, c, d",),
        edits=(Edit({4: "x = countlib.System()"}), Edit({1: "a = 1"})),
        replays=(1, 2, 3, 4, 5),
    ),
    Case(
        row="31",
        name="numbers-of-a-package-that-the-same-cell-imports",
        cells=cells("""
import sys
sys.path.insert(0, 'lib/site-packages')
---
import countlib
a = countlib.System()
---
b = countlib.System(); c = countlib.more()
---
e = countlib.System(); f = countlib.more()
print(e, f)
"""),
        files={"lib/site-packages/countlib.py": COUNTING},
        probes=("countlib.System(), countlib.more(), b, c",),
        edits=(Edit({1: "import countlib"}), Edit({1: "import countlib\na = b = 1"})),
        replays=(1, 2, 3),
    ),
    Case(
        row="31",
        name="numbers-that-a-package-counts-for-an-object",
        cells=cells("""
import sys
sys.path.insert(0, 'lib/site-packages')
import countlib
---
club = countlib.Club()
---
one = countlib.Member(club)
---
two = countlib.Member(club)
print(one.number, two.number)
---
x = [1]
"""),
        files={"lib/site-packages/countlib.py": COUNTING},
        probes=("countlib.Member(club).number", "two.number"),
        edits=(Edit({3: "two = countlib.Member(club)"}),),
        replays=(4,),
        refusal=True,
    ),
    Case(
        row="31",
        name="inside-an-object-of-a-local-module",
        cells=cells("""
import conf
---
conf.SETTINGS['plot']['w'] = 2
---
conf.opts.width = 5
---
conf.deep.inner.rows.append(3)
---
x = conf.opts.width, conf.SETTINGS['plot']['w']
---
print(x, conf.deep.inner.rows, conf.area())
"""),
        files={"conf.py": LOCAL},
        probes=("conf.area()", "conf.deep", "conf.SETTINGS"),
        edits=(Edit({1: "pass"}), Edit({2: "pass"}), Edit({3: "pass"})),
    ),
    Case(
        row="31",
        name="part-of-an-object-of-a-local-module",
        cells=cells("""
import conf
---
plot = conf.SETTINGS['plot']
row = conf.SETTINGS['rows'][0]
inner = conf.deep.inner
---
plot['w'] = 2
---
row.append(5)
---
both = {'opts': conf.opts, 'rows': conf.opts.rows}
---
print(conf.area(), conf.SETTINGS, plot, row, both['rows'] is both['opts'].rows)
"""),
        files={"conf.py": LOCAL},
        probes=(
            "plot.update(w=3); conf.area()",
            "both['rows'].append(1); conf.opts.rows",
            "row is conf.SETTINGS['rows'][0]",
            "inner.rows.append(9); conf.deep",
        ),
        edits=(Edit({2: "plot['w'] = 4"}),),
        replays=(1, 4, 5),
    ),
    Case(
        row="31",
        name="what-is-registered-in-a-package",
        cells=cells("""
import collections.abc
import pandas as pd
---
@pd.api.extensions.register_dataframe_accessor("geo")
class Geo:
    def __init__(self, df):
        self.df = df
    def n(self):
        return len(self.df)
df = pd.DataFrame({'a': [len('x'), 2]})
---
m = df.geo.n() + 1
---
class C:
    pass
collections.abc.Sequence.register(C)
k = len('abc')
---
print(df.geo.n(), m, isinstance(C(), collections.abc.Sequence))
"""),
        needs=("pandas",),
        probes=("df.geo.n()", "isinstance(C(), collections.abc.Sequence)"),
        edits=(Edit({2: "m = 5"}),),
        replays=(2, 4),
    ),
    Case(
        row="31",
        name="classes-and-objects-of-a-local-module",
        cells=cells("""
import helper
---
p = helper.P('p')
---
p.add(1)
---
helper.store.insert(5)
---
helper.register_it('f')
---
t = helper.twice(4)
---
print(helper.P.seen, sorted(helper.P._made), helper.store._rows, helper.names(), t)
"""),
        files={"helper.py": HELPER},
        probes=(
            "helper.P.seen, sorted(helper.P._made), helper.store._rows, helper.names()",
            "helper.P._made['p'] is p",
        ),
        edits=(Edit({2: "pass"}), Edit({3: "pass"}), Edit({4: "pass"})),
        replays=(5,),
    ),
    Case(
        row="31",
        name="functions-of-a-local-module-that-remember",
        cells=cells("""
import helper
---
a = helper.add(1)
---
b = helper.counter()
---
c = helper.tick()
---
d = helper.bump()
---
s = helper.slow(3)
---
print(helper.add(2), helper.counter(), helper.tick(), helper.bump(), helper.slow(3), a, b, c, d, s)
"""),
        files={"helper.py": REMEMBERING},
        probes=("helper.add(3), helper.counter(), helper.tick(), helper.bump()",),
        edits=(Edit({1: "a = 1"}), Edit({3: "c = 1"})),
        replays=(5,),
    ),
    Case(
        row="31",
        name="iterators-of-a-local-module",
        cells=cells("""
import helper
---
a = next(helper.ids)
---
b = next(helper.stream)
---
print(a, b, next(helper.ids), next(helper.stream))
"""),
        files={"helper.py": REMEMBERING},
        probes=("next(helper.ids), next(helper.stream)",),
        edits=(Edit({1: "a = 1"}),),
    ),
    Case(
        row="32",
        name="session-magics",
        cells=cells("""
%env COLOUR=blue
---
%alias_magic tt timeit
import os
c = os.environ['COLOUR']
---
%precision 3
---
x = 3.14159265
x
---
print(c)
"""),
        probes=("os.environ['COLOUR']", "get_ipython().find_line_magic('tt') is not None"),
        edits=(Edit({0: "%env COLOUR=red"}), Edit({2: "%precision 5"})),
    ),
    Case(
        row="32",
        name="cd-magic",
        cells=cells("""
%mkdir -p inner
%cd -q inner
---
import os
here = os.path.basename(os.getcwd())
---
%cd -q ..
---
print(here, os.path.basename(os.getcwd()))
"""),
        probes=("os.path.basename(os.getcwd())", "here"),
        edits=(Edit({2: "pass"}),),
    ),
    # --- 33: shell commands and files -----------------------------------------------------------------------------------
    Case(
        row="33",
        name="shell-writes-a-file",
        cells=cells("""
!echo hello > out.txt
---
text = open('out.txt').read()
---
lines = !cat out.txt
print(lines, text)
"""),
        probes=("text", "list(lines)"),
        edits=(Edit({0: "!echo bye > out.txt"}), Edit(files={"out.txt": None})),
    ),
    Case(
        row="33",
        name="bash-cell",
        cells=cells("""
%%bash
echo from bash
mkdir -p made
echo 1,2 > made/a.csv
---
import csv
rows = list(csv.reader(open('made/a.csv')))
---
print(rows)
"""),
        probes=("rows",),
        edits=(Edit({0: "%%bash\necho from bash\nmkdir -p made\necho 3,4 > made/a.csv"}),),
    ),
)
