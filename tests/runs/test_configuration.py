"""Configurations are right in every field, or one sentence that names the key."""

import dataclasses
from typing import Annotated, Literal

import numpy as np
import pytest

from lwmt_sionna.runs.configuration import (
    FILLED,
    Config,
    Interval,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Share,
)


@dataclasses.dataclass(frozen=True)
class Inner(Config):
    size: PositiveInt = 3
    kind: Literal["small", "large"] = "small"

    def __post_init__(self):
        super().__post_init__()
        if self.size == 13:
            raise ValueError(f"`size` must be lucky. Received: size={self.size}")


@dataclasses.dataclass(frozen=True)
class Outer(Config):
    data: Annotated[tuple[str, ...], FILLED]
    batch_size: PositiveInt = 32
    limit: NonNegativeInt = 0
    rate: Positive = 1e-3
    decay: NonNegative = 0.0
    share: Share = 0.5
    snr_db: Interval = (0.0, 30.0)
    patch: tuple[int, int] = (4, 4)
    most: PositiveInt | None = None
    compile: bool = True
    inner: Inner = dataclasses.field(default_factory=Inner)
    regimes: tuple[Inner, ...] = ()
    named: dict[str, Inner] = dataclasses.field(default_factory=dict)
    settings: dict[str, dict] = dataclasses.field(default_factory=dict)


def test_what_files_hold_becomes_what_annotations_say():
    config = Outer.from_dict(
        {
            "data": ["a.h5"],
            "rate": 1,
            "snr_db": [5, 15],
            "inner": {"size": 7},
            "regimes": [{"size": 1}, {"kind": "large"}],
            "named": {"one": {"size": 2}},
            "settings": {"one": {"k": 2}},
        }
    )
    assert config.data == ("a.h5",)
    assert (config.rate, config.snr_db) == (1.0, (5.0, 15.0))
    assert all(isinstance(value, float) for value in (config.rate, *config.snr_db))
    assert config.inner == Inner(size=7)
    assert config.regimes == (Inner(size=1), Inner(kind="large"))
    assert config.named == {"one": Inner(size=2)}
    assert config.settings == {"one": {"k": 2}}


def test_numbers_of_numpy_are_numbers():
    config = Outer(
        data=("a.h5",), batch_size=np.int64(4), rate=np.float32(0.5), patch=np.array([2, 8])
    )
    assert (config.batch_size, config.rate, config.patch) == (4, 0.5, (2, 8))
    assert type(config.batch_size) is int and type(config.rate) is float


def test_a_configuration_survives_its_dictionary():
    config = Outer(data=("a.h5",), regimes=(Inner(2),), named={"one": Inner(4)}, most=3)
    assert Outer.from_dict(config.to_dict()) == config
    assert dataclasses.replace(config, rate=2).rate == 2.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"batch_size": True},
            "batch_size: expected an integer of at least 1. Received: batch_size=True",
        ),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1"),
        ({"batch_size": 2.0}, "batch_size: expected an integer of at least 1"),
        ({"batch_size": 10**30}, "batch_size: expected finite numbers"),
        ({"limit": -1}, "limit: expected an integer of at least 0"),
        ({"rate": "0.01"}, "rate: expected a number greater than 0. Received: rate='0.01'"),
        ({"rate": float("nan")}, "rate: expected finite numbers. Received: rate=nan"),
        ({"snr_db": [0.0, float("inf")]}, "snr_db: expected finite numbers"),
        ({"snr_db": [3.0, 1.0]}, "snr_db: expected a list of 2 (a number, a number), lowest first"),
        ({"snr_db": [1.0, 2.0, 3.0]}, "snr_db: expected a list of 2"),
        ({"share": 1.5}, "share: expected a number of at least 0 and of at most 1"),
        ({"compile": 1}, "compile: expected true or false"),
        ({"most": "all"}, "most: expected an integer of at least 1 or nothing"),
        ({"data": []}, "data: expected a list, each text, with at least 1 of them"),
        ({"data": "a.h5"}, "data: expected a list, each text"),
        ({"inner": 3}, "inner: expected a table of Inner. Received: inner=3"),
        ({"inner": {"size": 0}}, "[inner] size: expected an integer of at least 1"),
        ({"inner": {"sizes": 2}}, "[inner] sizes: unknown key, expected some of kind, size"),
        ({"inner": {"size": 13}}, "[inner] `size` must be lucky. Received: size=13"),
        ({"regimes": [{}, {"kind": "wide"}]}, "[regimes.1] kind: expected one of 'small', 'large'"),
        ({"named": {"one": {"size": 0}}}, "[named.one] size: expected"),
        ({"size": 2}, "size: unknown key, expected some of batch_size, compile"),
    ],
)
def test_wrong_values_name_their_keys(tmp_path, values, message):
    with pytest.raises(ValueError) as error:
        Outer.from_dict({"data": ["a.h5"], **values})
    assert str(error.value).startswith(message)


def test_a_required_key():
    with pytest.raises(ValueError, match=r"data: expected a list.*Received: no such key"):
        Outer.from_dict({})


def test_variants_stand_for_the_rest_of_their_file(tmp_path):
    path = tmp_path / "family.toml"
    common = 'data = ["x"]\nrate = 0.1\n[inner]\nsize = 7\nkind = "large"\n'
    path.write_text(common)
    assert Outer.variants_from_toml(path) == {"": Outer.from_toml(path)}
    path.write_text(common + "[variants.fast]\nrate = 1.0\n[variants.wide]\ninner.size = 9\n")
    variants = Outer.variants_from_toml(path, {"batch_size": 8})
    assert variants == {
        "fast": Outer(("x",), 8, rate=1.0, inner=Inner(7, "large")),
        "wide": Outer(("x",), 8, rate=0.1, inner=Inner(9, "large")),
    }
    with pytest.raises(ValueError, match=r"variants: unknown key"):
        Outer.from_toml(path)
    path.write_text(common + "[variants.odd]\nrate = -1.0\n")
    with pytest.raises(ValueError, match=r"family.toml: \[variants.odd\] rate: .*rate=-1.0"):
        Outer.variants_from_toml(path)
    path.write_text("variants = 3\n" + common)
    with pytest.raises(ValueError, match=r"family.toml: variants: expected tables"):
        Outer.variants_from_toml(path)


def test_overrides_replace_values_and_leave_their_neighbours(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('data = ["x"]\nrate = 0.1\n[inner]\nsize = 7\nkind = "large"\n')
    overrides = {
        "data": ["y"],
        "rate": None,
        "inner": {"size": 9, "kind": None},
        "settings": {"one": {"k": 1}},
    }
    config = Outer.from_toml(path, overrides)
    assert (config.data, config.rate) == (("y",), 0.1)
    assert config.inner == Inner(size=9, kind="large")
    assert config.settings == {"one": {"k": 1}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data = 3", "data: expected a list"),
        (b'data = ["x"]\n[inner]\nsize = true', "[inner] size: expected an integer"),
        (b"data =", "no TOML"),
        (b"\xff\xfe\x00", "no TOML"),
        (b"x = " + b"9" * 5000, "no TOML"),
        (b"x = " + b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"x = " + b"{a=" * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
        (b"a." * 200_000 + b"a = 1", "nested too deeply"),
        (b"[" + b"a." * 200_000 + b"a]", "nested too deeply"),
        (b"[a.b.c.d.e]\n" * 2, "no TOML"),
        (b"x = '" + b"a" * 900_000 + b"'", "x: unknown key"),
        (b"x.y.z." * 10 + b"w = 1", "x: unknown key"),
        (b"#" * 3_000_000, "at most 1000000 bytes"),
    ],
)
def test_wrong_files_name_themselves(tmp_path, content, message):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        Outer.from_toml(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.toml"):
        Outer.from_toml(tmp_path / "nothing.toml")
