"""The application: verbs put together, and the boundary at which every expected error becomes one line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import typer

from durable_nb.cli._exit import Complaint, ExitCode
from durable_nb.cli._parameters import join_pairs
from durable_nb.exceptions import DurableExecutionsError

__all__ = ["main"]

VERBS = (
    *("run", "plan", "ls", "show", "why", "resolve", "forget"),
    *("push", "pull"),
    *("verify", "audit", "gc", "trust", "key"),
    *("invoke", "worker", "callback", "cancel"),
)
"""Modules of this package that have a `register(app)`, in the order of the help text."""


def build() -> typer.Typer:
    """The application with all its verbs."""
    app = typer.Typer(
        name="durable-nb",
        help="Run notebooks and durable functions so that what was done is never done again.",
        add_completion=False,
        # Plain help and plain errors: an error is one line, also in a log file.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for verb in VERBS:
        importlib.import_module(f"durable_nb.cli.{verb}").register(app)
    return app


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        sys.stdout.write(f"durable-nb {installed('durable_nb')}\n")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_version
    ),
) -> None:
    """Options of the command itself; `_version` has done their work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (see `ExitCode`)."""
    try:
        given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        code = build()(args=join_pairs(given) if given[:1] == ["run"] else given, standalone_mode=False)
    except Complaint as complaint:
        return _complain(complaint.line, complaint.code)
    except DurableExecutionsError as error:
        return _complain(str(error), ExitCode.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader has gone (`durable-nb ls | head`); the interpreter must not stumble over it when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:
        # The parser's own errors have no public common class over the releases of typer that we accept.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        return _complain(message(), ExitCode.USAGE)
    return code if isinstance(code, int) else ExitCode.OK


def _complain(line: str, code: ExitCode) -> ExitCode:
    text = " ".join(part.strip() for part in line.splitlines() if part.strip())
    sys.stderr.write(f"durable-nb: {text}\n")
    return code
