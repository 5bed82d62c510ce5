"""The scenes of this project: built again byte by byte, closed, outdoors, loaded by Sionna RT."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from lwmt_sionna.rt.cities import CITIES, build_city, city_config
from lwmt_sionna.rt.scenes.meshes import join, winding_number

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCENES = ROOT / "scenes"
NAMES = sorted(path.parent.name for path in SCENES.glob("*/city.toml"))
CARRIER = 3.5e9


def build(*arguments):
    return subprocess.run(
        [sys.executable, SCENES / "build.py", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def files(folder):
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


def test_every_kind_is_there_and_one_of_them_twice():
    kinds = [city_config(SCENES / name / "city.toml").kind for name in NAMES]
    assert set(kinds) == set(CITIES)
    assert len(kinds) >= 6


def test_building_again_gives_the_committed_files(tmp_path):
    done = build("--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        committed, built = files(SCENES / name), files(tmp_path / name)
        assert set(committed) - {"city.toml", "thumbnail.png"} == set(built)
        for key in built:
            assert built[key].read_bytes() == committed[key].read_bytes(), f"{name}/{key}"


def test_scenes_are_small_and_complete():
    total = sum(p.stat().st_size for p in SCENES.rglob("*") if p.suffix in (".ply", ".png"))
    assert total < 2_000_000
    for name in NAMES:
        assert (SCENES / name / "thumbnail.png").read_bytes()[:4] == b"\x89PNG"
        readme = (SCENES / name / "README.md").read_text()
        assert "Licence: Apache-2.0" in readme and "Origin: synthetic" in readme


@pytest.mark.parametrize("kind", CITIES)
@pytest.mark.parametrize("seed", [1, 11])
def test_cities_of_any_seed_are_sound(kind, seed):
    city = city_config({"kind": kind, "seed": seed}).layout()
    solids = [each for each in city.objects if each.material != "medium_dry_ground"]
    solids = [each.mesh for each in solids if each.name not in ("ground", "road")]
    for mesh in solids:
        assert mesh.areas.min() > 1e-3
        miswound, shared = mesh.num_miswound_edges()
        assert miswound == 0 and shared == 3 * len(mesh.faces) / 2
        assert mesh.volume > 0
        assert mesh.bounds[0][2] >= -1e-9
    whole = join(solids)
    assert len(city.base_stations) >= 3
    # No base station within a wall, and none higher than a mast over what stands there.
    assert np.abs(winding_number(whole, city.base_stations)).max() < 0.1
    # All buildings stand on the ground, which does not overlap itself.
    grounds = join([each.mesh for each in city.objects if each.name in ("ground", "road")])
    (x0, y0, _), (x1, y1, _) = grounds.bounds
    assert grounds.areas.sum() == pytest.approx((x1 - x0) * (y1 - y0))
    assert np.all(whole.bounds[0][:2] > (x0, y0)) and np.all(whole.bounds[1][:2] < (x1, y1))


def test_another_seed_is_another_city(tmp_path):
    first = build_city(city_config({"kind": "old_town", "seed": 1}), tmp_path / "1")
    second = build_city(city_config({"kind": "old_town", "seed": 2}), tmp_path / "2")
    assert first["base_stations"] != second["base_stations"]
    assert json.loads((tmp_path / "1" / "city.json").read_text()) == first


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "atlantis"}, "street_canyon.*'atlantis'"),
        ({"kind": "campus", "towers": 3}, "towers: unknown key, expected.*buildings"),
        (
            {"kind": "campus", "height": [20.0, 3.0]},
            r"height: expected.*lowest first.*height=\[20.0, 3.0\]",
        ),
        ({"kind": "campus", "trees": 3.5}, "trees: expected an integer.*trees=3.5"),
        ({"kind": "campus", "facades": ["gold"]}, "facades: expected.*gold"),
        ({"kind": "campus", "buildings": 500}, "no room.*buildings=500"),
        ({"kind": "street_canyon", "cross_streets": 30}, "cross_streets=30"),
        ({"kind": "street_canyon", "cars": 900}, "room for .* cars=900"),
        ({"kind": "suburb", "lawn": "grass"}, "lawn: expected one of.*'grass'"),
    ],
)
def test_wrong_parameters_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        city_config(values).layout()


def test_the_builder_takes_parameters_and_refuses_wrong_ones(tmp_path):
    out = tmp_path / "my city"
    done = build("--kind", "manhattan_grid", "--seed", 4, "--set", "blocks=[2,2]", "--out", out)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "city.json").read_text())["num_buildings"] == 4
    for arguments, word in (
        (("--kind", "campus"), "--out"),
        (("--kind", "campus", "--out", out, "--set", "height=tall"), "height=tall"),
        (("atlantis",), "atlantis"),
    ):
        done = build(*arguments)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert word in done.stderr


@pytest.mark.rt
def test_sionna_rt_loads_every_scene():
    from lwmt_sionna.rt import load_scene

    for name in NAMES:
        loaded = load_scene(name, CARRIER)
        facts = json.loads((SCENES / name / "city.json").read_text())
        assert loaded.name == name
        assert loaded.cars == tuple(facts["cars"])
        rng = np.random.default_rng(0)
        lower, upper = loaded.bounds
        points = rng.uniform(lower[:2] + 1, upper[:2] - 1, (2000, 2))
        height, is_ground = loaded.drop_to_ground(points)
        # Open ground, and what stands on it, are both there; below a roof is no ground.
        assert 0.2 < is_ground.mean() < 0.97
        np.testing.assert_allclose(height[is_ground], 0.0, atol=1e-3)
        assert height[~is_ground].min() > 0.5


@pytest.mark.rt
def test_scenes_are_found_by_name_path_and_folder(tmp_path, monkeypatch):
    from lwmt_sionna.rt import resolve_scene

    assert resolve_scene("munich").origin == "sionna"
    assert resolve_scene("canyon").origin == "own"
    build_city(city_config({"kind": "campus"}), tmp_path / "my_campus")
    for name in (tmp_path / "my_campus", tmp_path / "my_campus" / "scene.xml"):
        found = resolve_scene(name)
        assert (found.name, found.origin) == ("my_campus", "file")
        assert found.facts["config"]["kind"] == "campus"
    with pytest.raises(ValueError, match=r"munich.*old_town.*my_campus"):
        resolve_scene("my_campus")
    monkeypatch.setenv("LWMT_SCENES", str(tmp_path))
    assert resolve_scene("my_campus").origin == "own"


def test_words_of_names_tell_ground_and_cars():
    from lwmt_sionna.rt.scenes.files import is_car_name, is_ground_name

    assert all(map(is_ground_name, ["ground", "mesh-Plane", "GroundPlane", "osm_roads", "floor_2"]))
    assert not any(map(is_ground_name, ["Broadway", "Airplane", "Undergroundcafe", "wall"]))
    assert all(map(is_car_name, ["car_3", "Bus", "cars", "TruckRed"]))
    assert not any(map(is_car_name, ["Carlton_Hotel", "Busan", "cargo"]))
