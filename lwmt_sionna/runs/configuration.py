"""Configurations: frozen dataclasses with checked types, from TOML files and dictionaries."""

import dataclasses
import functools
import json
import math
import re
import reprlib
import tomllib
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import msgspec

from lwmt_sionna.runs.shipped import CONFIGS, find
from lwmt_sionna.typing import PathLike

# Of `typing.Annotated`: a list that is not empty; a pair whose first number is not the larger one.
FILLED = msgspec.Meta(min_length=1)
ORDERED = "lowest first"

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
NonNegativeInt = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Interval = Annotated[tuple[float, float], ORDERED]
PositiveInterval = Annotated[tuple[Positive, Positive], ORDERED]

# What no configuration has, and takes minutes to parse: larger files, longer paths of keys.
_MAX_TOML_BYTES = 1_000_000
_LONG_PATH = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++\s*+\.\s*+){64}""")
_MAX_INTEGER = 2**63 - 1
_MAX_SHOWN = 120
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 4, 8, 8, 8
_SHORT.maxstring = _SHORT.maxother = _MAX_SHOWN
_WORDS = {
    Any: "anything",
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "text",
    tuple: "a list",
    type(None): "nothing",
}
_BOUNDS = {
    "gt": "greater than {}",
    "ge": "of at least {}",
    "lt": "less than {}",
    "le": "of at most {}",
    "min_length": "with at least {} of them",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of all settings: every field is checked against its annotation when it is made.

    Types are strict: `True` is no integer and `"0.01"` no number; NaN and infinities are refused.
    What files hold is converted: integers to floats, lists to tuples, tables to the `Config` of the
    annotation, NumPy scalars and arrays to numbers and tuples. A subclass that relates fields to
    each other does so in a `__post_init__` of its own, after `super().__post_init__()`.

    Raises:
        ValueError: If a value does not fit its annotation; the message names key and value.

    Example:

    >>> @dataclasses.dataclass(frozen=True)
    ... class Fit(Config):
    ...     data: Annotated[tuple[str, ...], FILLED]
    ...     batch_size: PositiveInt = 32
    ...     snr_db: Interval = (0.0, 30.0)
    >>> Fit.from_dict({"data": ["a.h5"], "batch_size": True})
    ValueError: batch_size: expected an integer of at least 1. Received: batch_size=True
    """

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():  # type: ignore[arg-type]
            given = getattr(self, name)
            try:
                value = msgspec.convert(_prepare(given, hint, name), hint)
                fits = _is_ordered(value, hint)
            except _NotNumberError:
                raise ValueError(
                    f"{name}: expected finite numbers. Received: {name}={_show(given)}"
                ) from None
            except msgspec.ValidationError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{name}: expected {_describe(hint)}. Received: {name}={_show(given)}"
                )
            object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Makes a configuration of a dictionary, such as one from `to_dict`.

        Args:
            values: Dictionary from the fields' names to their values; tables are dictionaries.

        Raises:
            ValueError: If a key is unknown or missing, or a value does not fit.
        """
        if not isinstance(values, dict):
            raise ValueError(f"expected a table. Received: {_show(values)}")
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        for key in values:
            if key not in fields:
                raise ValueError(
                    f"{key}: unknown key, expected some of {', '.join(sorted(fields))}. "
                    f"Received: {key}={_show(values[key])}"
                )
        for name, field in fields.items():
            required = field.default is field.default_factory is dataclasses.MISSING
            if required and name not in values:
                raise ValueError(
                    f"{name}: expected {_describe(_hints(cls)[name])}. Received: no such key"  # type: ignore[arg-type]
                )
        return cls(**values)

    @classmethod
    def from_toml(cls, path: PathLike, overrides: dict[str, Any] | None = None) -> Self:
        """Reads a configuration from a TOML file.

        Args:
            path: Path of the file; its keys are the fields.
            overrides: Dictionary of values in place of those of the file, nested like them: what a
                command line gives. `None` among them stands for what was not given.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no TOML, a key is unknown or missing, or a value does not
                fit; the message names file, key and value.
        """
        values = _merge(read_toml(path), {} if overrides is None else overrides)
        return cls._from_file(path, values)

    @classmethod
    def variants_from_toml(
        cls, path: PathLike, overrides: dict[str, Any] | None = None
    ) -> dict[str, Self]:
        """Reads a family of configurations that share most of their settings.

        Args:
            path: Path of a TOML file. Each of its tables `[variants.NAME]` stands for the rest of
                the file with what the table says in its place.
            overrides: See `from_toml`; for all variants.

        Returns:
            Dictionary from the variants' names to the configurations; that of the file itself
            under the empty name where it has no variants.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: See `from_toml`.
        """
        common = read_toml(path)
        variants = common.pop("variants", {"": {}})
        tables = variants.values() if isinstance(variants, dict) else [variants]
        if not tables or not all(isinstance(table, dict) for table in tables):
            raise ValueError(f"{path}: variants: expected tables [variants.NAME]")
        given = {} if overrides is None else overrides
        return {
            name: cls._from_file(path, _merge(_merge(common, own), given), name)
            for name, own in variants.items()
        }

    @classmethod
    def _from_file(cls, path: PathLike, values: dict[str, Any], variant: str = "") -> Self:
        try:
            return cls.from_dict(values)
        except ValueError as error:
            where = f"{path}: [variants.{variant}] " if variant else f"{path}: "
            raise ValueError(f"{where}{error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them, for `from_dict`: tuples become lists."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read_toml(path: PathLike) -> dict[str, Any]:
    """Reads a TOML file, or the shipped configuration of this name (see `shipped.find`).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no TOML.
    """
    path = find(path, ".toml")
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no configuration here, nor one of this name in {CONFIGS}. "
            f"Received: path={path}"
        )
    if path.stat().st_size > _MAX_TOML_BYTES:
        raise ValueError(
            f"A configuration has at most {_MAX_TOML_BYTES} bytes. Received: path={path} of "
            f"{path.stat().st_size} bytes"
        )
    try:
        text = path.read_text(encoding="utf-8")
        if _LONG_PATH.search(text):
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"The file is nested too deeply. Received: path={path}") from error
    except ValueError as error:
        raise ValueError(f"The file is no TOML: {error}. Received: path={path}") from error


class _NotNumberError(Exception):
    """NaN, infinities, and integers that no array holds."""


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _members(hint: Any) -> Iterator[Any]:
    """The alternatives of an annotation."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for member in typing.get_args(hint):
            yield from _members(member)
    else:
        yield hint


def _bare(hint):
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _prepare(value, hint, where):
    """What msgspec does not know: NumPy, tables of `Config`, numbers that are none."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise _NotNumberError
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise _NotNumberError
    kinds = [_bare(member) for member in _members(hint)]
    if isinstance(value, dict):
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Config):
                try:
                    return kind.from_dict(value)
                except ValueError as error:
                    raise ValueError(f"[{where}] {error}") from error
        inner = next((typing.get_args(k)[1] for k in kinds if typing.get_args(k)[1:]), Any)
        return {key: _prepare(item, inner, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        inner = next((typing.get_args(k)[0] for k in kinds if typing.get_args(k)), Any)
        return [_prepare(item, inner, f"{where}.{index}") for index, item in enumerate(value)]
    return value


def _is_ordered(value, hint):
    return value is None or all(
        value[0] <= value[1]
        for member in _members(hint)
        if ORDERED in getattr(member, "__metadata__", ())
    )


def _describe(hint):
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        words = [_describe(arguments[0])]
        for note in arguments[1:]:
            if isinstance(note, msgspec.Meta):
                bounds = {name: getattr(note, name) for name in _BOUNDS}
                stated = [_BOUNDS[n].format(v) for n, v in bounds.items() if v is not None]
                words.append(" and ".join(stated))
            else:
                words.append(str(note))
        return (", " if _is_list(arguments[0]) else " ").join(words)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list, each {_describe(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)} ({', '.join(map(_describe, arguments))})"
    if isinstance(hint, type) and issubclass(hint, Config):
        return f"a table of {hint.__name__}"
    return _WORDS.get(origin if origin in _WORDS else hint, str(hint))


def _is_list(hint):
    return typing.get_origin(hint) in (tuple, list) or hint in (tuple, list)


def _show(value):
    text = _SHORT.repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _merge(values, overrides):
    """`values` with those of `overrides` that are not `None` in their place, table by table."""
    merged = dict(values)
    for name, value in overrides.items():
        if isinstance(value, dict) and isinstance(merged.get(name, {}), dict):
            merged[name] = _merge(merged.get(name, {}), value)
        elif value is not None:
            merged[name] = value
    return merged
