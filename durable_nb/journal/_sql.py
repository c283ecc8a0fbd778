"""Named queries and numbered migrations, read from the `.sql` files of a dialect."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def queries(dialect: str) -> dict[str, str]:
    """The queries of `sql/<dialect>/queries.sql` by the name in their `-- name:` line."""
    text = files(__package__).joinpath("sql", dialect, "queries.sql").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for block in text.split("-- name: ")[1:]:
        name, _, body = block.partition("\n")
        found[name.strip()] = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
    return found


@cache
def migrations(dialect: str) -> tuple[str, ...]:
    """The migration scripts in order; a store's format version is how many of them it has had."""
    folder = files(__package__).joinpath("sql", dialect, "migrations")
    scripts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return tuple(script.read_text(encoding="utf-8") for script in scripts)
