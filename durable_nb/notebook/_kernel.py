"""The durable kernel: an ipykernel in which every cell is a durable step."""

from __future__ import annotations

from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp

from durable_nb.notebook._extension import load


class DurableKernel(IPythonKernel):
    """Python 3, with cells that survive the process."""

    implementation = "durable_nb"

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)  # type: ignore[no-untyped-call]
        load(self.shell, every_cell=True)


def launch() -> None:
    """Run the kernel until it is shut down."""
    IPKernelApp.launch_instance(kernel_class=DurableKernel)
