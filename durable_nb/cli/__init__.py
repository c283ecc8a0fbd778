"""The command `durable-nb`: one module for each verb, thin over the read model and the runtime."""

from durable_nb.cli._main import main

__all__ = ["main"]
