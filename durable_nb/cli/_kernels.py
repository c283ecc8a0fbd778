"""How the commands reach the kernels that they start: through sockets in a folder of their own, not through ports.

A free port that is looked up for one kernel may be taken by another before the kernel binds it; with many runs at once,
as in CI, that happens. A folder that only this user can enter also keeps other users of the machine out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def own_sockets(client: Any) -> Iterator[None]:
    """Let an `nbclient.NotebookClient` start its kernel with sockets in a new folder, which goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="dnb-", ignore_cleanup_errors=True) as folder:
        manager = client.create_kernel_manager()
        manager.transport = "ipc"
        manager.ip = str(Path(folder) / "k")
        yield
