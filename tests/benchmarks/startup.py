"""What start-up costs: the import of the package, and of its extension in a real kernel that runs.

python -m tests.benchmarks.startup import|extension FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

_LOAD = """
import time as clock
began = clock.perf_counter()
get_ipython().run_line_magic("load_ext", "durable_nb")
print(clock.perf_counter() - began)
"""


def importing() -> float:
    """Seconds for `import durable_nb`."""
    start = time.perf_counter()
    import durable_nb  # noqa: F401 - the import is what is measured

    return time.perf_counter() - start


def extension(folder: Path) -> float:
    """Seconds for `%load_ext durable_nb` in a plain kernel."""
    from tests.notebook.harness import Bench, Kernel

    with Kernel(Bench(folder / "kernel"), spec="python3") as kernel:
        return float(kernel.run(_LOAD).stdout)


def main() -> None:
    """As the arguments say."""
    seconds = importing() if sys.argv[1] == "import" else extension(Path(sys.argv[2]))
    sys.stdout.write(json.dumps({"seconds": [seconds]}) + "\n")


if __name__ == "__main__":
    main()
