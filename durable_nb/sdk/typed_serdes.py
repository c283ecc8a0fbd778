"""Values of classes that describe themselves: dataclasses, enums, Pydantic models, NumPy scalars and arrays, as JSON.

`TypedSerDes` reads any of them back as what it was: the payload names the class, which is imported.
`ModelSerDes(cls)` is for one class only, validates, and writes the model's plain JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from durable_nb.exceptions import SerDesError
from durable_nb.sdk.serdes import TYPE_CODEC, EncodedValue, SerDes, SerDesContext, TypeTag

T = TypeVar("T")

_CLASS = "$class"


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _import(name: str) -> type:
    module, _, qualname = name.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as exc:
        raise SerDesError(f"the stored value needs {name}, which is not there: {exc}") from exc
    if not isinstance(found, type):
        raise SerDesError(f"the stored value names {name}, which is no class")
    return found


def _is_pydantic(obj: Any) -> bool:
    return hasattr(type(obj), "model_validate") and hasattr(obj, "model_dump")


class TypedSerDes(SerDes[Any]):
    """JSON with the class of each object beside its fields. Sets and complex numbers are kept too.

    Args:
        allow: which classes may be read back, by `module:name`; None trusts the journal's own history.
    """

    def __init__(self, allow: Callable[[str], bool] | None = None) -> None:
        self._allow = allow

    def serialize(self, value: Any, serdes_context: SerDesContext) -> str:  # noqa: ARG002
        return json.dumps(self._write(value), separators=(",", ":"))

    def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:  # noqa: ARG002
        return self._read(json.loads(data))

    # --- writing ---------------------------------------------------------------------------------------------------

    def _write(self, value: Any) -> Any:
        cls = type(value)
        if value is None or cls in (bool, int, float, str):
            return value
        if cls is list:
            return [self._write(item) for item in value]
        if cls is dict:
            if all(type(key) is str for key in value) and _CLASS not in value:
                return {key: self._write(item) for key, item in value.items()}
            return _object("dict", [[self._write(key), self._write(item)] for key, item in value.items()])
        if cls in (tuple, set, frozenset):
            items = sorted(value, key=repr) if cls is not tuple else value
            return _object(cls.__name__, [self._write(item) for item in items])
        if isinstance(value, enum.Enum):
            return _object(_name(cls), value.name)
        if dataclasses.is_dataclass(value):
            fields = {one.name: self._write(getattr(value, one.name)) for one in dataclasses.fields(value)}
            return _object(_name(cls), fields)
        if _is_pydantic(value):
            return _object(_name(cls), value.model_dump(mode="json"))
        return self._write_scientific(value)

    def _write_scientific(self, value: Any) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray) and not value.dtype.hasobject:
            data = base64.b64encode(numpy.ascontiguousarray(value).tobytes()).decode("ascii")
            dtype = numpy.lib.format.dtype_to_descr(value.dtype)
            return _object("numpy.ndarray", {"dtype": dtype, "shape": list(value.shape), "data": data})
        if numpy is not None and isinstance(value, numpy.generic):
            return _object("numpy.scalar", self._write_scientific(numpy.asarray(value)))
        encoded: EncodedValue = TYPE_CODEC.encode(value)  # dates, decimals, bytes…; SerDesError for the rest
        if encoded.tag in (TypeTag.LIST, TypeTag.DICT, TypeTag.TUPLE, TypeTag.BATCH_RESULT):
            if encoded.tag is TypeTag.BATCH_RESULT:
                return _object("batch", self._write(value.to_dict()))
            raise SerDesError(f"Unsupported type: {type(value)}")
        return _object("tag", [encoded.tag.value, encoded.value])

    # --- reading ---------------------------------------------------------------------------------------------------

    def _read(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self._read(item) for item in data]
        if not isinstance(data, dict):
            return data
        if _CLASS not in data:
            return {key: self._read(item) for key, item in data.items()}
        return self._read_object(data[_CLASS], data["v"])

    def _read_object(self, name: str, value: Any) -> Any:
        reader = _READERS.get(name)
        if reader is not None:
            return reader(self, value)
        if self._allow is not None and not self._allow(name):
            raise SerDesError(f"the stored value names {name}, which this serdes does not allow")
        cls: Any = _import(name)
        if issubclass(cls, enum.Enum):
            return cls[value]
        if dataclasses.is_dataclass(cls):
            return self._read_dataclass(cls, value)
        if hasattr(cls, "model_validate"):
            return cls.model_validate(value)
        raise SerDesError(f"the stored value names {name}, which is neither dataclass, enum nor model")

    def _read_dataclass(self, cls: Any, value: Mapping[str, Any]) -> Any:
        fields = {key: self._read(item) for key, item in value.items()}
        given = {one.name for one in dataclasses.fields(cls) if one.init}
        result = cls(**{key: item for key, item in fields.items() if key in given})
        for key in fields.keys() - given:
            object.__setattr__(result, key, fields[key])
        return result


def _object(name: str, value: Any) -> dict[str, Any]:
    return {_CLASS: name, "v": value}


def _read_array(value: Mapping[str, Any]) -> Any:
    import numpy as np

    descr: Any = value["dtype"]
    dtype: Any = np.lib.format.descr_to_dtype([tuple(item) for item in descr] if isinstance(descr, list) else descr)
    return np.frombuffer(base64.b64decode(value["data"]), dtype=dtype).reshape(value["shape"]).copy()


def _read_batch(serdes: TypedSerDes, value: Any) -> Any:
    from durable_nb.sdk.concurrency.models import BatchResult

    return BatchResult.from_dict(serdes._read(value))


_READERS: dict[str, Callable[[TypedSerDes, Any], Any]] = {
    "tuple": lambda serdes, value: tuple(serdes._read(item) for item in value),
    "set": lambda serdes, value: {serdes._read(item) for item in value},
    "frozenset": lambda serdes, value: frozenset(serdes._read(item) for item in value),
    "dict": lambda serdes, value: {serdes._read(key): serdes._read(item) for key, item in value},
    "numpy.ndarray": lambda _, value: _read_array(value),
    "numpy.scalar": lambda _, value: _read_array(value["v"])[()],
    "tag": lambda _, value: TYPE_CODEC.decode(TypeTag(value[0]), value[1]),
    "batch": _read_batch,
}


class ModelSerDes(SerDes[T], Generic[T]):
    """One class: a Pydantic model or a dataclass. The payload is its plain JSON, validated when it is read."""

    def __init__(self, cls: type[T]) -> None:
        if not hasattr(cls, "model_validate_json") and not dataclasses.is_dataclass(cls):
            raise SerDesError(f"{cls.__name__} is neither a Pydantic model nor a dataclass")
        self._cls: Any = cls

    def serialize(self, value: T, serdes_context: SerDesContext) -> str:  # noqa: ARG002
        if not isinstance(value, self._cls):
            raise SerDesError(f"a {self._cls.__name__} was expected, got a {type(value).__name__}")
        model: Any = value
        if hasattr(model, "model_dump_json"):
            text: str = model.model_dump_json()
            return text
        return self._adapter().dump_json(model).decode("utf-8") if _has_pydantic() else json.dumps(_plain(model))

    def deserialize(self, data: str, serdes_context: SerDesContext) -> T:  # noqa: ARG002
        result: T
        if hasattr(self._cls, "model_validate_json"):
            result = self._cls.model_validate_json(data)
        elif _has_pydantic():
            result = self._adapter().validate_json(data)
        else:
            result = self._cls(**json.loads(data))
        return result

    def _adapter(self) -> Any:
        from pydantic import TypeAdapter

        return TypeAdapter(self._cls)


def _has_pydantic() -> bool:
    return importlib.util.find_spec("pydantic") is not None


def _plain(model: Any) -> dict[str, Any]:
    plain = dataclasses.asdict(model)
    for one in dataclasses.fields(model):
        if dataclasses.is_dataclass(getattr(model, one.name)):
            raise SerDesError(f"nested dataclasses ({one.name}) need pydantic: pip install durable_nb[pydantic]")
    return plain


__all__ = ["ModelSerDes", "TypedSerDes"]
