"""What a cell is and what it depends on, with no IPython and no pickle in it.

- identity: `parse`, `canonical`, `identity`, `Ordinals`, `is_declarative`, `session_magic`
- options: `StepOptions`, `parse_magic_line`, `parse_line_statement`, `parse_comment`, `parse_tags`,
  `resolve_error_types`
- names: `analyse` gives `Reads`; `words_of_tree` all words by which code could ask for a name, now or later
- the world: `Places`, `Observer`, `Observed`, `FileLedger`, `FileState`, `Foreseen`, `opens_by_itself`,
  `Environment`
- code: `LocalModules`, `Distributions`, `module_state`, `changed`, `Tables`
- validity: `Input`, `Inputs`, `fingerprint`, `compare`, `first_difference`, `to_json`, `from_json`, `explain`, `Reason`
"""

from __future__ import annotations

from durable_nb.cells._digest import digest, keyed_digest
from durable_nb.cells._environment import Environment, is_session_variable
from durable_nb.cells._explain import Reason, describe, explain, source_diff
from durable_nb.cells._files import MISSING, FileLedger, FileState, Foreseen
from durable_nb.cells._fingerprint import (
    ABSENT,
    KINDS,
    Difference,
    Input,
    Inputs,
    compare,
    fingerprint,
    first_difference,
    from_json,
    to_json,
)
from durable_nb.cells._imports import watch_imports
from durable_nb.cells._magics import MagicCall, as_magic
from durable_nb.cells._mentions import opens_by_itself
from durable_nb.cells._module_state import ModuleState, changed, module_state
from durable_nb.cells._modules import Distributions, LocalModules
from durable_nb.cells._observe import Observed, Observer
from durable_nb.cells._only_read import only_read
from durable_nb.cells._options import (
    StepOptions,
    parse_comment,
    parse_duration,
    parse_line_statement,
    parse_magic_line,
    parse_tags,
    resolve_error_types,
)
from durable_nb.cells._places import Places
from durable_nb.cells._reads import Reads, analyse, output_name
from durable_nb.cells._source import Ordinals, canonical, identity, is_declarative, parse, session_magic
from durable_nb.cells._tables import Tables
from durable_nb.cells._words import Words, words_in, words_of_code, words_of_tree

__all__ = [
    "ABSENT",
    "KINDS",
    "MISSING",
    "Difference",
    "Distributions",
    "Environment",
    "FileLedger",
    "FileState",
    "Foreseen",
    "Input",
    "Inputs",
    "LocalModules",
    "MagicCall",
    "ModuleState",
    "Observed",
    "Observer",
    "Ordinals",
    "Places",
    "Reads",
    "Reason",
    "StepOptions",
    "Tables",
    "Words",
    "analyse",
    "as_magic",
    "canonical",
    "changed",
    "compare",
    "describe",
    "digest",
    "explain",
    "fingerprint",
    "first_difference",
    "from_json",
    "identity",
    "is_declarative",
    "is_session_variable",
    "keyed_digest",
    "module_state",
    "only_read",
    "opens_by_itself",
    "output_name",
    "parse",
    "parse_comment",
    "parse_duration",
    "parse_line_statement",
    "parse_magic_line",
    "parse_tags",
    "resolve_error_types",
    "session_magic",
    "source_diff",
    "to_json",
    "watch_imports",
    "words_in",
    "words_of_code",
    "words_of_tree",
]
