"""`durable-nb key`: the keys that sign your records, and those that you trust."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export", "import_", "register", "rotate"]


def register(app: typer.Typer) -> None:
    """Add the verb with its three forms."""
    group = typer.Typer(help="The keys that sign your records, and those that you trust.", no_args_is_help=True)
    group.command(name="export")(export)
    group.command(name="import")(import_)
    group.command(name="rotate")(rotate)
    app.add_typer(group, name="key")


def export(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Made with mode 0600; else it is printed.")
    ] = None,
) -> int:
    """Write the key that signs, for another machine of yours or for your team. It is a secret."""
    from durable_nb.cli._exit import Complaint
    from durable_nb.snapshot import KeyFile

    text = KeyFile().keys(create=True)[0].hex() + "\n"
    if file is None:
        sys.stdout.write(text)
        return 0
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise Complaint(f"the key was not written: {exc}") from None
    with os.fdopen(handle, "w", encoding="ascii") as opened:
        opened.write(text)
    sys.stdout.write(f"the key is in {file}: who has it can sign records that you load\n")
    return 0


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `key export` wrote it.")],
    sign: Annotated[bool, typer.Option("--sign", help="Also sign with it from now on, as a team does.")] = False,
) -> int:
    """Trust records that are signed with this key, as you trust your own."""
    from durable_nb.cli._exit import Complaint
    from durable_nb.snapshot import KeyFile

    try:
        if file.stat().st_size > 1 << 16:
            raise Complaint(f"{file} is no key file")
        keys = [bytes.fromhex(line) for line in file.read_text(encoding="ascii").split()]
    except (OSError, ValueError) as exc:
        raise Complaint(f"{file} is no key file ({exc})") from None
    if not keys or any(len(key) < 32 for key in keys):
        raise Complaint(f"{file} is no key file")
    new = KeyFile().add(keys, sign=sign)
    known = "is trusted now" if new else "was trusted already"
    sys.stdout.write(f"the key {known}{', and signs' if sign else ''}\n")
    return 0


def rotate(
    forget: Annotated[
        bool, typer.Option("--forget", help="Do not trust the old keys any more: what they signed runs again.")
    ] = False,
) -> int:
    """Sign with a new key from now on; records of the old one stay trusted unless you forget it."""
    from durable_nb.snapshot import KeyFile

    KeyFile().rotate(forget=forget)
    kept = "the old ones are forgotten" if forget else "records of the old one stay trusted"
    sys.stdout.write(f"records are signed with a new key now; {kept}\n")
    return 0
