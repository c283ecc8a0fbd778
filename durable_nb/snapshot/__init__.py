"""Values to bytes and back: groups of names, their versions, blobs, process state."""

from durable_nb.snapshot import _digest_pandas  # noqa: F401 - registers its rules
from durable_nb.snapshot._bindings import EARLIER, earlier_number, result_number
from durable_nb.snapshot._blobs import FileBlobStore, Map, MemoryBlobStore, address_of
from durable_nb.snapshot._blobs_cached import CachedBlobStore, NoCopies
from durable_nb.snapshot._buffers import StoredBuffers
from durable_nb.snapshot._check import check_round_trip
from durable_nb.snapshot._counters import COUNTERS
from durable_nb.snapshot._definitions import Definitions, default_filename
from durable_nb.snapshot._digest import content_digest, digest_text
from durable_nb.snapshot._encrypted import EncryptedBlobStore
from durable_nb.snapshot._groups import Group, Version
from durable_nb.snapshot._manifest import blobs_needed, load, save
from durable_nb.snapshot._objects import open_objects
from durable_nb.snapshot._process import ProcessState, looks_secret, note_starts, settle_starts, started_in, whole_state
from durable_nb.snapshot._process_python import SysPath
from durable_nb.snapshot._scan import Problem, Scan, scan
from durable_nb.snapshot._sign import KeyFile, Keyring, decode, encode, open_signed, seal, signature
from durable_nb.snapshot._tracker import Before, Delta, Tracker
from durable_nb.snapshot._travel import PART_BYTES, Luggage, pack, unpack

__all__ = [
    "COUNTERS",
    "EARLIER",
    "PART_BYTES",
    "Before",
    "CachedBlobStore",
    "Definitions",
    "Delta",
    "EncryptedBlobStore",
    "FileBlobStore",
    "Group",
    "KeyFile",
    "Keyring",
    "Luggage",
    "Map",
    "MemoryBlobStore",
    "NoCopies",
    "Problem",
    "ProcessState",
    "Scan",
    "StoredBuffers",
    "SysPath",
    "Tracker",
    "Version",
    "address_of",
    "blobs_needed",
    "check_round_trip",
    "content_digest",
    "decode",
    "default_filename",
    "digest_text",
    "earlier_number",
    "encode",
    "load",
    "looks_secret",
    "note_starts",
    "open_objects",
    "open_signed",
    "pack",
    "result_number",
    "save",
    "scan",
    "seal",
    "settle_starts",
    "signature",
    "started_in",
    "unpack",
    "whole_state",
]
