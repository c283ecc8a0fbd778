"""The trivial cells again through real kernels and their sockets: what a front end waits for.

python -m tests.benchmarks.wire SIDE FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.benchmarks.workloads import scale, trivial
from tests.notebook.harness import Bench, Kernel


def main() -> None:
    """Run the cells in a kernel of one side; a second durable one in the same folder replays."""
    side, folder = sys.argv[1], Path(sys.argv[2])
    bench = Bench(folder / "wire", env={"JPY_SESSION_NAME": str(folder / "wire" / "notebook.ipynb")})
    seconds, statuses = [], set()
    with Kernel(bench, spec="python3" if side == "plain" else "durable_nb") as kernel:
        kernel.run("sum(range(3))")
        for source in trivial(scale()).cells:
            start = time.perf_counter()
            result = kernel.run(source)
            seconds.append(time.perf_counter() - start)
            statuses.add(str(result.durable.get("status")))
    sys.stdout.write(json.dumps({"seconds": seconds, "statuses": sorted(statuses)}) + "\n")


if __name__ == "__main__":
    main()
