"""The data card says what the schema and the configurations say."""

import pathlib
import re
import tomllib

import numpy as np
import pytest

from lwmt_sionna.data.paths import OPTIONAL_FIELDS, PATH_FIELDS, SEQUENCE_FIELDS
from lwmt_sionna.data.storage import SCHEMA_MINOR, SCHEMA_VERSION, UNITS

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = ROOT / "experiments" / "configs"
CARD = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def rows(heading):
    """Cells of the table below a heading."""
    section = CARD.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    assert lines, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_array_is_described_with_its_type_axes_and_unit():
    described = {}
    for names, dtype, axes, unit, _ in rows(f"What is in a file: schema {_version()}"):
        for name in re.findall(r"`(\w+)`", names):
            described[name] = (dtype, axes.replace(" ", ""), unit)
    fields = PATH_FIELDS | SEQUENCE_FIELDS | OPTIONAL_FIELDS
    assert set(described) == {*fields, "bs_position", "bs_orientation"}
    for name, (dtype, axes) in fields.items():
        assert described[name] == (np.dtype(dtype).name, axes, UNITS.get(name, "")), name


def _version():
    return f"{SCHEMA_VERSION}.{SCHEMA_MINOR}"


def read(path):
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    return values | {"path": path.relative_to(CONFIGS).with_suffix("").as_posix()}


def test_every_data_set_is_named_with_its_counts():
    listed = {name.strip("`"): rest for name, *rest in rows("Data sets by name")}
    for config in map(read, CONFIGS.glob("data_*.toml")):
        scene, count, speeds, period, _ = listed.pop(config["path"])
        assert (scene, int(count)) == (config["scene"], config["num_sequences"])
        assert float(period) == pytest.approx(1e3 * config["sampling_period"])
        _assert_speeds(speeds, [config])
    for name, (_, count, speeds, _, _) in listed.items():
        kind = name.rpartition("_")[2]
        configs = [read(path) for path in CONFIGS.glob(f"pretraining/*_{kind}.toml")]
        number, _, each = count.partition(" x ")
        assert len(configs) == int(number)
        assert {config["num_sequences"] for config in configs} == {int(each)}
        _assert_speeds(speeds, configs)
    assert len(listed) == 3


def _assert_speeds(text, configs):
    stated = [float(speed) for speed in text.split("-")]
    for config in configs:
        assert config["speed_kmh"] == [stated[0], stated[-1]], config["path"]


def test_totals_of_pretraining():
    configs = [read(path) for path in CONFIGS.glob("pretraining/*.toml")]
    total = sum(config["num_sequences"] for config in configs)
    assert f"{total:,} trajectories, {total * 21:,} positions" in CARD


def test_the_example_runs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = CARD.partition("```python\n")[2].partition("```")[0]
    exec(compile(code, "docs/data.md", "exec"), {})
    assert capsys.readouterr().out.strip() == code.partition("# prints ")[2].strip()
