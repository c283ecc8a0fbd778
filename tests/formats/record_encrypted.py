"""Records an encrypted store of the present format: `python -m tests.formats.record_encrypted`. Never written again."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from durable_nb.runtime import Store, open_store
from durable_nb.sdk import DurableContext, durable_execution
from durable_nb.sdk.pickle_serdes import PickleSerDes
from durable_nb.settings import Settings

HERE = Path(__file__).parent
FOLDER = HERE / "encrypted-1"
SETTINGS = Settings(key="the key of the corpus", encryption_key="the secret of the corpus")
RESULT = {"words": ["ä", None, 1.5], "large": 179_200}


@durable_execution(name="corpus")
def corpus(event: Any, context: DurableContext) -> Any:
    """Small values in rows, and a blob."""
    words = context.step(lambda _: event["words"], name="words")
    large = context.step(lambda _: bytearray(range(256)) * 700, name="large")
    return {"words": words, "large": len(large)}


def run(store: Store) -> Any:
    """Run it, or give its result back."""
    corpus.serdes = PickleSerDes(store.blobs)
    return corpus.run({"words": ["ä", None, 1.5]}, name="corpus", store=store)


def record() -> None:
    """Make the folder."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["JUPYTER_DATA_DIR"] = f"{name}/data"
        place = Path(name) / "store"
        store = open_store(place, settings=SETTINGS)
        assert run(store) == RESULT
        store.close()
        with contextlib.closing(sqlite3.connect(place / "journal.db")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copytree(place, FOLDER / "store", ignore=shutil.ignore_patterns("lock", "*-wal", "*-shm"))


if __name__ == "__main__":
    record()
