"""`dataclass` as the standard library has it, for classes that are defined when a kernel starts.

The library's decorator writes up to six functions for each class as text and compiles each of them. For the fifty
classes that an extension needs before the first cell, that was half of the time of loading it. Here only `__init__` is
written; the others are made of the fields when they are called, and do the same. What comes out is a dataclass:
`fields`, `replace` and `asdict` work on it, its pickles are the same bytes, and type checkers see the library's own.

`__init__` of a frozen class sets a field through the slot's descriptor, in half of the time of `object.__setattr__`.

Not here, since nothing of ours needs it: ordering, `InitVar`, and a frozen class without slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - meant to be imported from here
else:
    from collections.abc import Callable
    from dataclasses import MISSING, FrozenInstanceError, fields
    from dataclasses import dataclass as _library
    from operator import attrgetter
    from reprlib import recursive_repr

    def dataclass(*, frozen: bool = False, slots: bool = False, kw_only: bool = False, eq: bool = True):
        """See `dataclasses.dataclass`."""
        if frozen and not slots:
            raise TypeError("a frozen class needs slots here")

        def define(cls: type) -> type:
            own = vars(cls)
            if not own.get("__doc__"):
                cls.__doc__ = cls.__name__  # the library would ask for the signature
            made = _library(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
            if "__init__" not in own:
                made.__init__ = _init(made, frozen=frozen)
            if "__repr__" not in own:
                made.__repr__ = _repr
            if eq and "__eq__" not in own:
                made.__eq__ = _equality(made)
            if eq and own.get("__hash__") is None:
                made.__hash__ = _hash(made) if frozen else None
            if frozen:
                _freeze(made)
            return made

        return define

    def _init(cls: type, *, frozen: bool) -> Callable[..., None]:
        """Its `__init__`: every field in its order, the defaults of the class, then `__post_init__`."""
        given: list[str] = []
        named: list[str] = []
        lines: list[str] = []
        names: dict[str, object] = {"MISSING": MISSING}
        annotations: dict[str, object] = {}
        for number, one in enumerate(fields(cls)):
            value = one.name
            if one.init:
                text = one.name
                annotations[one.name] = one.type
                if one.default is not MISSING:
                    names[f"d{number}_"] = one.default
                    text += f"=d{number}_"
                elif one.default_factory is not MISSING:
                    text += "=MISSING"
                (named if one.kw_only else given).append(text)
            elif one.default is not MISSING:
                names[f"d{number}_"] = one.default
                value = f"d{number}_"
            elif one.default_factory is MISSING:
                continue
            if one.default_factory is not MISSING:
                names[f"f{number}_"] = one.default_factory
                value = f"f{number}_() if {value} is MISSING else {value}" if one.init else f"f{number}_()"
            if frozen:
                names[f"s{number}_"] = getattr(cls, one.name).__set__
                lines.append(f" s{number}_(self, {value})")
            else:
                lines.append(f" self.{one.name} = {value}")
        if hasattr(cls, "__post_init__"):
            lines.append(" self.__post_init__()")
        head = ", ".join(["self", *given, *(["*", *named] if named else [])])
        found: dict[str, Callable[..., None]] = {}
        body = "\n".join(lines or [" pass"])
        exec(f"def __init__({head}):\n{body}", names, found)  # noqa: S102 - as the library does
        init = found["__init__"]
        init.__annotations__ = {**annotations, "return": None}
        init.__qualname__ = f"{cls.__qualname__}.__init__"
        init.__module__ = cls.__module__
        return init

    @recursive_repr()
    def _repr(self: object) -> str:
        shown = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
        return f"{type(self).__qualname__}({shown})"

    def _equality(cls: type) -> Callable[[object, object], bool]:
        """Equality with what is of the same class."""
        values = _values([one.name for one in fields(cls) if one.compare])

        def __eq__(self: object, other: object) -> bool:  # noqa: N807
            if other.__class__ is not self.__class__:
                return NotImplemented
            return values(self) == values(other)

        return __eq__

    def _hash(cls: type) -> Callable[[object], int]:
        values = _values([one.name for one in fields(cls) if (one.compare if one.hash is None else one.hash)])

        def __hash__(self: object) -> int:  # noqa: N807
            return hash(values(self))

        return __hash__

    def _values(names: list[str]) -> Callable[[object], tuple[object, ...]]:
        if len(names) > 1:
            return attrgetter(*names)
        return lambda of: tuple(getattr(of, name) for name in names)

    def _freeze(cls: type) -> None:
        names = tuple(one.name for one in fields(cls))

        def __setattr__(self: object, name: str, value: object) -> None:  # noqa: N807
            if type(self) is cls or name in names:
                raise FrozenInstanceError(f"cannot assign to field {name!r}")
            super(cls, self).__setattr__(name, value)

        def __delattr__(self: object, name: str) -> None:  # noqa: N807
            if type(self) is cls or name in names:
                raise FrozenInstanceError(f"cannot delete field {name!r}")
            super(cls, self).__delattr__(name)

        def __getstate__(self: object) -> list[object]:  # noqa: N807
            return [getattr(self, name) for name in names]

        def __setstate__(self: object, state: list[object]) -> None:  # noqa: N807
            for name, value in zip(names, state, strict=False):
                object.__setattr__(self, name, value)

        cls.__setattr__, cls.__delattr__ = __setattr__, __delattr__
        own = vars(cls)
        if "__getstate__" not in own:
            cls.__getstate__ = __getstate__
        if "__setstate__" not in own:
            cls.__setstate__ = __setstate__


__all__ = ["dataclass"]
