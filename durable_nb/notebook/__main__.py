"""Start the durable kernel: `python -m durable_nb.notebook -f CONNECTION_FILE` (the kernelspec's command)."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # As `python -m ipykernel_launcher` does: the working directory must not shadow installed packages at start-up, and
    # IPython puts it back for the user.
    if sys.path[0] == "" or Path(sys.path[0]) == Path.cwd():
        del sys.path[0]
    from durable_nb.notebook._kernel import launch

    launch()
