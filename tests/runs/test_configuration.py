import dataclasses
import json

import pytest

from lwmt_sionna.runs.configuration import claim_folder, from_toml, to_json


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 3
    rate: float = 0.5

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"`size` must be positive. Received: size={self.size}")


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    sizes: tuple = (1, 2)
    inner: Inner = dataclasses.field(default_factory=Inner)
    settings: dict = dataclasses.field(default_factory=dict)


def write(path, text):
    path.write_text(text)
    return path


def test_tables_become_their_dataclasses(tmp_path):
    path = write(tmp_path / "a.toml", 'name = "x"\n[inner]\nsize = 7\n[settings.one]\nk = 2\n')
    config = from_toml(Outer, path, inner=Inner)
    assert config.inner == Inner(size=7) and config.settings == {"one": {"k": 2}}
    # A table that the file leaves out has its defaults.
    assert from_toml(Outer, write(tmp_path / "b.toml", 'name = "x"'), inner=Inner).inner == Inner()


def test_overrides_replace_values_and_leave_their_neighbours(tmp_path):
    path = write(tmp_path / "a.toml", 'name = "x"\nsizes = [3]\n[inner]\nsize = 7\nrate = 0.1\n')
    overrides = {"sizes": [4, 5], "inner": {"size": 9}, "settings": {"one": {"k": 1}}}
    config = from_toml(Outer, path, overrides=overrides, inner=Inner)
    assert (config.name, config.sizes) == ("x", [4, 5])
    assert config.inner == Inner(size=9, rate=0.1) and config.settings == {"one": {"k": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Keys are missing in .*a.toml: name"),
        ('name = "x"\nsize = 2', "Unknown keys in .*a.toml; expected inner, name.*: size"),
        ('name = "x"\n[inner]\nsizes = 2', r"Unknown keys in \[inner\] of .*expected rate, size"),
        ('name = "x"\ninner = 3', r"\[inner\] of .*must be a table. Received: 3"),
        ('name = "x"\n[inner]\nsize = 0', "size=0"),
        ('name = "x"\n[inner]\nsize = "big"', r"\[inner\] of .*wrong type"),
        ("name =", "no TOML"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        from_toml(Outer, write(tmp_path / "a.toml", text), inner=Inner)
    with pytest.raises(FileNotFoundError, match=r"nothing\.toml"):
        from_toml(Outer, tmp_path / "nothing.toml")


def test_a_folder_belongs_to_one_configuration(tmp_path):
    claim_folder(tmp_path / "work", Outer("x"))
    claim_folder(tmp_path / "work", Outer("x"))
    assert json.loads((tmp_path / "work" / "config.json").read_text()) == to_json(Outer("x"))
    with pytest.raises(ValueError, match="another configuration"):
        claim_folder(tmp_path / "work", Outer("y"))
