"""Whether a store is encrypted, and its key.

A store is encrypted from its first byte or not at all. It says so twice: in its database, which then refuses to be
opened without a key, and in the file `encrypted`, which holds the salt of the key and a sealed word that tells a right
key from a wrong one.

The key is made from a secret: `DURABLE_NB_ENCRYPTION_KEY`, or the one that the system's keyring keeps for durable_nb
when that variable is the word `keyring`. A new store is encrypted when the variable is set. An encrypted store opens
without the variable when the keyring has the secret.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from durable_nb.codecs import Cipher, derive
from durable_nb.exceptions import StoreError, StoreUnreadableError, ValidationError

__all__ = ["KEYRING", "cipher_of", "is_encrypted"]

KEYRING = "keyring"
"""The value of the variable that means the system's keyring."""

_FILE = "encrypted"
_SERVICE, _USER = "durable_nb", "encryption"
_WORD = b"durable_nb"
_CONTEXT = b"check"


def is_encrypted(place: Path) -> bool:
    """Whether the store in a directory says that it is encrypted."""
    return (place / _FILE).exists()


def cipher_of(place: Path, secret: str | None, *, new: bool) -> Cipher | None:
    """What opens a store; None when it is not encrypted.

    Args:
        place: the store's directory.
        secret: what `DURABLE_NB_ENCRYPTION_KEY` says.
        new: whether the store has no database yet.

    Raises:
        StoreUnreadableError: it is encrypted and the key is missing or wrong; or it is not, and a key is set.
    """
    if not is_encrypted(place):
        if secret is None:
            return None
        if not new:
            raise StoreUnreadableError(
                str(place),
                f"it is not encrypted (it has no file {_FILE!r}), and DURABLE_NB_ENCRYPTION_KEY is set: "
                "unset it, or use another store",
            )
        _begin(place, _secret_for_new(secret))
    salt, check = _facts(place)
    try:
        known = _keyring_secret() if secret in (None, KEYRING) else secret
    except ValidationError as exc:
        raise StoreUnreadableError(
            str(place), f"it is encrypted, DURABLE_NB_ENCRYPTION_KEY does not say its key, and {exc}"
        ) from exc
    if known is None:
        raise StoreUnreadableError(
            str(place), "it is encrypted: set DURABLE_NB_ENCRYPTION_KEY, or keep its key in this system's keyring"
        )
    cipher = Cipher(derive(known, salt))
    try:
        right = b"".join(cipher.open(check, _CONTEXT)) == _WORD
    except StoreError:
        right = False
    if not right:
        raise StoreUnreadableError(str(place), "it is encrypted with another key")
    return cipher


def _begin(place: Path, secret: str) -> None:
    """Say that a new store is encrypted; whoever is first decides the salt."""
    salt = secrets.token_bytes(16)
    check = b"".join(Cipher(derive(secret, salt)).seal([_WORD], _CONTEXT))
    facts = {"format": 1, "cipher": "AES-256-GCM", "kdf": "scrypt", "salt": salt.hex(), "check": check.hex()}
    temporary = os.path.join(place, f"{_FILE}-{os.getpid()}-{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    try:
        data = memoryview(json.dumps(facts).encode("ascii"))
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    with contextlib.suppress(FileExistsError):
        os.link(temporary, os.path.join(place, _FILE))
    os.unlink(temporary)
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _facts(place: Path) -> tuple[bytes, bytes]:
    try:
        facts: Any = json.loads(_read(place))
        if facts["format"] != 1:
            raise StoreUnreadableError(str(place), "a newer durable_nb encrypted it")
        return bytes.fromhex(facts["salt"]), bytes.fromhex(facts["check"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as exc:
        raise StoreUnreadableError(
            str(place), f"its file {_FILE!r} is damaged ({type(exc).__name__}): put a copy of it back"
        ) from exc


def _read(place: Path) -> bytes:
    # Neither through a link nor waiting for a pipe.
    handle = os.open(os.path.join(place, _FILE), os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    try:
        return os.read(handle, 4096)
    finally:
        os.close(handle)


def _secret_for_new(secret: str) -> str:
    if secret != KEYRING:
        return secret
    with _one_at_a_time():  # two first stores at once must not replace each other's secret
        found = _keyring_secret()
        if found is None:
            found = secrets.token_urlsafe(32)
            _keyring().set_password(_SERVICE, _USER, found)
    return found


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    from jupyter_core.paths import jupyter_data_dir

    folder = Path(jupyter_data_dir()) / "durable_nb"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / "encryption.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _keyring_secret() -> str | None:
    """The secret in the system's keyring; None when it answers that it has none.

    Raises:
        ValidationError: it cannot be asked. Whoever took that for "none" would put a new secret over the old one.
    """
    keyring = _keyring()
    try:
        found: str | None = keyring.get_password(_SERVICE, _USER)
    except Exception as exc:  # each backend has its own errors
        why = f"{type(exc).__name__}: {exc}".splitlines()[0]
        raise ValidationError(f"the system's keyring cannot be read ({why}): unlock it, or set the variable") from exc
    return found


def _keyring() -> Any:
    try:
        import keyring
    except ImportError:
        raise ValidationError(
            "the system's keyring needs the package keyring: pip install 'durable_nb[encryption]'"
        ) from None
    return keyring
