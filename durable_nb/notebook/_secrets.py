"""Which names hold secrets: their values are never written."""

from __future__ import annotations

import re

from durable_nb.settings import is_listed_secret

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ALONE = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials", "apikey"}
)
_KEY_OF = frozenset({"api", "private", "access", "secret", "encryption", "signing", "auth"})
_TOKEN_LENGTH = 16


def is_secret(name: str, value: object) -> bool:
    """Whether a variable looks like a secret: text under a name such as `password`, `api_key` or `access_token`.

    A bare `token` is a secret only when it is long and has no spaces: language models have tokens too. What the user
    lists in `DURABLE_NB_SECRETS` is one whatever its value is.
    """
    if is_listed_secret(name):
        return True
    if not isinstance(value, str | bytes) or not value:
        return False
    words = [word.lower() for word in _WORDS.findall(name)]
    if not _ALONE.isdisjoint(words):
        return True
    if words[-1:] == ["key"] and not _KEY_OF.isdisjoint(words):
        return True
    return words[-1:] == ["token"] and len(value) >= _TOKEN_LENGTH and len(value.split()) == 1
