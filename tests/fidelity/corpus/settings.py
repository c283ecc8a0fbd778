"""One thing set twice to the same: an edit of the first or second setting must reach whoever looks at it.

A cell that sets what is set already changes nothing that a comparison could see, and still decides what is there when the
earlier one is edited. Each line is a way to set something, `K` standing for what it is set to, and a look at it.
"""

from __future__ import annotations

from tests.fidelity.case import Case, Edit

FIRST, SECOND = "3", "4"

WAYS: tuple[tuple[str, str, str, str], ...] = (
    ("random", "import random", "random.seed(K)", "random.random()"),
    ("numpy-random", "import numpy as np", "np.random.seed(K)", "np.random.rand()"),
    ("numpy-seed-by-name", "from numpy.random import seed, rand", "seed(K)", "rand()"),
    ("environ", "import os", "os.environ['LEVEL'] = 'K'", "os.environ['LEVEL']"),
    ("environment-updated", "import os", "os.environ.update(LEVEL='K')", "os.environ['LEVEL']"),
    ("env-magic", "import os", "%env LEVEL=K", "os.environ['LEVEL']"),
    (
        "chdir",
        "import os\nos.makedirs('d3',exist_ok=True)\nos.makedirs('d4',exist_ok=True)\nstart=os.getcwd()",
        "os.chdir(start+'/dK')",
        "os.path.basename(os.getcwd())",
    ),
    (
        "cdmagic",
        "import os\nos.makedirs('d3',exist_ok=True)\nos.makedirs('d4',exist_ok=True)\nstart=os.getcwd()",
        "%cd -q {start}/dK",
        "os.path.basename(os.getcwd())",
    ),
    (
        "pandas-options",
        "import pandas as pd",
        "pd.set_option('display.max_rows', K)",
        "pd.get_option('display.max_rows')",
    ),
    ("numpy-options", "import numpy as np", "np.set_printoptions(precision=K)", "np.get_printoptions()['precision']"),
    ("decimal", "import decimal", "decimal.getcontext().prec = K", "decimal.getcontext().prec"),
    ("logging", "import logging", "logging.getLogger('mine').setLevel(K)", "logging.getLogger('mine').level"),
    ("recursion-limit", "import sys", "sys.setrecursionlimit(3000+K)", "sys.getrecursionlimit()"),
    ("socket", "import socket", "socket.setdefaulttimeout(K)", "socket.getdefaulttimeout()"),
    ("umask", "import os", "old = os.umask(K)", "oct(os.umask(0))"),
    (
        "rcparams",
        "import matplotlib.pyplot as plt",
        "plt.rcParams['lines.linewidth'] = K",
        "plt.rcParams['lines.linewidth']",
    ),
    (
        "style",
        "import matplotlib.pyplot as plt\nNAMES={3:'ggplot',4:'grayscale'}",
        "plt.style.use(NAMES[K])",
        "plt.rcParams['axes.facecolor'], plt.rcParams['grid.color'], plt.rcParams['image.cmap']",
    ),
    (
        "warning-filter",
        "import warnings",
        "warnings.filterwarnings('ignore', message='mK')",
        "[f[1].pattern for f in warnings.filters if f[1]]",
    ),
    (
        "simple-warning-filter",
        "import warnings\nACTIONS={3:'ignore',4:'error'}",
        "warnings.simplefilter(ACTIONS[K])",
        "warnings.filters[0][0]",
    ),
    ("import-path", "import sys", "sys.path.insert(0,'/pK')", "[p for p in sys.path if p.startswith('/p')]"),
    ("time-zone", "import os, time", "os.environ['TZ']='Etc/GMT-K'\ntime.tzset()", "time.localtime(0).tm_hour"),
    (
        "locale",
        "import locale",
        "locale.setlocale(locale.LC_NUMERIC, {3:'C',4:'C.UTF-8'}[K])",
        "locale.setlocale(locale.LC_NUMERIC)",
    ),
    ("seterr", "import numpy as np", "s=np.seterr(divide={3:'ignore',4:'raise'}[K])", "np.geterr()['divide']"),
    ("attribute-of-a-local-module", "import helper", "helper.level = K", "helper.level"),
    ("class-attribute", "class C: pass", "C.level = K", "C.level"),
    ("attribute-of-a-library", "import collections", "collections.level = K", "collections.level"),
    ("file", "from pathlib import Path", "n = Path('f').write_text('K')", "Path('f').read_text()"),
    ("file-by-a-program", "import os", "!echo K > g", "open('g').read()"),
    (
        "file-removed",
        "from pathlib import Path",
        "Path('hK').write_text('a'); Path('hK').unlink()",
        "Path('h').exists()",
    ),
    (
        "figure",
        "import matplotlib.pyplot as plt\nimport matplotlib\nmatplotlib.use('Agg')",
        "f = plt.figure(K)",
        "plt.get_fignums()",
    ),
    ("list-item", "c = [0]", "c[0] = K", "c"),
    ("dict-item", "c = dict()", "c['a'] = K", "c"),
    ("attribute", "import types\no = types.SimpleNamespace(a=0)", "o.a = K", "o"),
    ("global", "v = 0\ndef put(k):\n    global v\n    v = k", "put(K)", "v"),
    ("globals", "v = 0", "globals()['v'] = K", "v"),
    ("setattr-on-a-module", "import helper", "setattr(helper,'level',K)", "helper.level"),
    ("walrus", "v=0", "(v := K)", "v"),
    ("with-target", "import contextlib", "with contextlib.nullcontext(K) as v: pass", "v"),
    ("loop-variable", "v=0", "for v in [K]: pass", "v"),
    ("capture", "v=0", "%%capture v\nprint(K)", "str(v)"),
    (
        "signal",
        "import signal",
        "s=signal.signal(signal.SIGUSR1, {3:signal.SIG_IGN,4:signal.SIG_DFL}[K])",
        "str(signal.getsignal(signal.SIGUSR1))",
    ),
    ("collector", "import gc", "gc.set_threshold(70K)", "gc.get_threshold()"),
    ("shown-statements", "x=1", "get_ipython().ast_node_interactivity = {3:'all',4:'none'}[K]", "x\nx"),
    (
        "config-of-the-shell",
        "x=1/3",
        "import IPython\nget_ipython().config.InteractiveShell.x = K",
        "get_ipython().config.InteractiveShell.x",
    ),
    (
        "limits",
        "import resource",
        "resource.setrlimit(resource.RLIMIT_CORE,(K, resource.getrlimit(resource.RLIMIT_CORE)[1]))",
        "resource.getrlimit(resource.RLIMIT_CORE)[0]",
    ),
    ("context-variable", "import contextvars\ncv=contextvars.ContextVar('cv',default=0)", "cv.set(K);", "cv.get()"),
    ("thread-local", "import threading\ntl=threading.local()", "tl.v = K", "tl.v"),
    ("builtins", "import builtins", "builtins.level = K", "level"),
    ("int-digits", "import sys", "sys.set_int_max_str_digits(100K)", "sys.get_int_max_str_digits()"),
    ("argv", "import sys", "sys.argv = ['a','K']", "sys.argv"),
    ("attribute-of-sys", "import faulthandler", "import sys; sys.ps9 = K", "sys.ps9"),
    (
        "virtual-subclass",
        "import abc\nclass A(abc.ABC): pass\nclass B : pass",
        "A.register(B) if K==3 else None;",
        "issubclass(B,A)",
    ),
    ("random-state", "import random", "random.setstate(random.Random(K).getstate())", "random.random()"),
)
"""Name, what is imported before, the setting, the look."""


def _case(name: str, before: str, setting: str, look: str) -> Case:
    first, second = setting.replace("K", FIRST), setting.replace("K", SECOND)
    return Case(
        row="28",
        name=f"set-again-{name}",
        cells=(before, first, "y = sum(range(3))", first, look if "\n" in look else f"print({look})"),
        edits=(Edit({1: second}), Edit({1: "pass"}), Edit({1: second, 3: "pass"}), Edit({3: second})),
        files={"helper.py": "level = 0\n"},
        needs=("numpy", "numpy.random", "pandas", "matplotlib", "matplotlib.pyplot"),
    )


CASES = tuple(_case(*way) for way in WAYS)
