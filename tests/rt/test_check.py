"""`check-scene` finds every planted fault, and passes what is good."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lwmt_sionna.rt import Mesh, read_mesh, write_ply
from lwmt_sionna.rt.cities import build_city, city_config

pytestmark = pytest.mark.rt

ROOT = pathlib.Path(__file__).resolve().parents[2]
OWN = sorted(path.parent.name for path in (ROOT / "scenes").glob("*/scene.xml"))
CARRIER = 3.5e9
STATION = (0.0, 0.0, 10.0)


@pytest.fixture
def city(tmp_path):
    """A small city without a fault; its crossing lies at the origin."""
    values = {"kind": "manhattan_grid", "blocks": [2, 2], "height": [12.0, 30.0], "seed": 3}
    build_city(city_config(values), tmp_path / "city")
    return tmp_path / "city"


def check(folder, station=STATION, carrier=CARRIER):
    from lwmt_sionna.rt.tracing.check import check_scene

    return check_scene(folder / "scene.xml", carrier, [station], coverage=False)


def the_fault(folder, *words, station=STATION, carrier=CARRIER):
    """The only fault there is, checked to hold the words."""
    faults = check(folder, station, carrier).faults
    assert len(faults) == 1, faults
    for word in words:
        assert word in faults[0].text, faults[0]
    return faults[0].check


def edit(folder, pattern, replacement):
    path = folder / "scene.xml"
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1
    path.write_text(text)


def a_mesh(folder):
    return next(iter(sorted((folder / "meshes").glob("buildings_*.ply"))))


def test_a_good_city_passes(city):
    report = check(city)
    assert report.is_fit
    assert {finding.level for finding in report.findings} == {"ok"}


def test_missing_mesh(city):
    name = a_mesh(city).name
    a_mesh(city).unlink()
    assert the_fault(city, name, "1 of") == "meshes"


def test_unknown_material(city):
    edit(city, r'name="type" value="\w+"', 'name="type" value="granite"')
    assert the_fault(city, "granite", "expected one of", "concrete") == "materials"


def test_material_without_definition(city):
    edit(city, r'<ref id="\w+"', '<ref id="nowhere"')
    assert the_fault(city, "'nowhere'", "not defined in the file") == "materials"


def test_picture_material(city):
    edit(city, r'type="itu-radio-material" id="\w+"', 'type="diffuse" id="paint"')
    edit(city, r'<ref id="\w+"', '<ref id="paint"')
    faults = [finding.text for finding in check(city).faults]
    assert any("'paint'" in text and "itu_concrete" in text for text in faults), faults


def test_carrier_out_of_range(city):
    assert check(city, carrier=28e9).is_fit
    edit(city, r'name="type" value="\w+"', 'name="type" value="wet_ground"')
    assert check(city).is_fit
    assert the_fault(city, "wet_ground", "1 to 10 GHz", "28 GHz", carrier=28e9) == "materials"


def test_floating_base_station(city):
    assert the_fault(city, "(0, 0, 150)", "150 m", station=(0.0, 0.0, 150.0)) == "base station"


def test_base_station_in_a_wall_below_ground_and_outside(city):
    inside = (40.0, 30.0, 5.0)
    assert the_fault(city, "inside of a mesh", station=inside) == "base station"
    assert the_fault(city, "below the ground", station=(0.0, 0.0, -2.0)) == "base station"
    assert the_fault(city, "outside of the scene", station=(900.0, 0.0, 9.0)) == "base station"


def test_base_station_on_a_wall_may_be_high(city):
    values = {"kind": "manhattan_grid", "blocks": [1, 1], "height": [90.0, 90.0], "seed": 3}
    facts = build_city(city_config(values), city)
    side = facts["extent"][1] / 2 - 15.0
    assert check(city, station=(0.0, side + 1.0, 60.0)).is_fit
    assert not check(city, station=(0.0, side + 6.0, 60.0)).is_fit


def test_inverted_normals(city):
    mesh = read_mesh(a_mesh(city))
    faces = mesh.faces.copy()
    faces[::3] = faces[::3, ::-1]
    write_ply(a_mesh(city), Mesh(mesh.vertices, faces))
    assert the_fault(city, "inverted normals", a_mesh(city).stem) == "faces"


def test_faces_without_area(city):
    mesh = read_mesh(a_mesh(city))
    degenerate = np.concatenate([mesh.faces, [[0, 1, 1], [2, 3, 2]]])
    write_ply(a_mesh(city), Mesh(mesh.vertices, degenerate))
    assert the_fault(city, "2 faces have no area", a_mesh(city).stem) == "faces"


def test_no_ground(city):
    edit(city, r'<shape type="ply" id="mesh-ground"', '<shape type="ply" id="mesh-base"')
    assert the_fault(city, "no object is named like ground", "base") == "ground"


def test_y_up(city):
    for path in (city / "meshes").glob("*.ply"):
        mesh = read_mesh(path)
        write_ply(path, Mesh(mesh.vertices[:, [1, 2, 0]], mesh.faces))
    assert the_fault(city, "y up") == "ground"


@pytest.mark.parametrize(("scale", "unit"), [(1e3, "millimetres"), (1e-3, "kilometres")])
def test_scale_off_by_a_thousand(city, scale, unit):
    for path in (city / "meshes").glob("*.ply"):
        mesh = read_mesh(path)
        write_ply(path, Mesh(scale * mesh.vertices, mesh.faces))
    faults = check(city, station=np.array(STATION) * scale).faults
    units = [finding for finding in faults if finding.check == "units"]
    assert len(units) == 1 and unit in units[0].text, faults


def test_path_with_spaces(city):
    spaced = city.with_name("my city")
    shutil.move(city, spaced)
    assert the_fault(spaced, "spaces", "my city/scene.xml") == "path"


def test_mesh_name_with_spaces(city):
    mesh = a_mesh(city)
    mesh.rename(mesh.with_name("my house.ply"))
    edit(city, f"meshes/{mesh.name}", "meshes/my house.ply")
    assert the_fault(city, "my house.ply") == "meshes"


def test_damaged_mesh_and_xml(city):
    data = a_mesh(city).read_bytes()
    a_mesh(city).write_bytes(data[: len(data) // 2])
    assert the_fault(city, "damaged", a_mesh(city).name) == "meshes"
    (city / "scene.xml").write_text("<scene>")
    assert the_fault(city, "no XML") == "load"


def test_vertices_of_their_own_are_warned_of(city):
    for path in (city / "meshes").glob("*.ply"):
        mesh = read_mesh(path)
        corners = mesh.corners.reshape(-1, 3)
        write_ply(path, Mesh(corners, np.arange(len(corners)).reshape(-1, 3)))
    report = check(city)
    assert report.is_fit
    warned = [finding.text for finding in report.findings if finding.level == "warning"]
    assert len(warned) == 1 and "do not diffract" in warned[0]


@pytest.mark.parametrize("name", OWN)
def test_own_scenes_pass_with_coverage(name):
    from lwmt_sionna.rt import resolve_scene
    from lwmt_sionna.rt.tracing.check import check_scene

    stations = resolve_scene(name).facts["base_stations"]
    report = check_scene(name, CARRIER, stations, coverage=False)
    assert report.is_fit, report.faults
    covered = check_scene(name, CARRIER, stations[-1:])
    assert covered.coverage[0]["covered_share"] > 0.2
    assert -110 < covered.coverage[0]["median_gain_db"] < -60


@pytest.mark.parametrize(
    ("name", "station"),
    [
        ("simple_street_canyon", (-20.0, 3.0, 15.0)),
        ("simple_street_canyon_with_cars", (-20.0, 3.0, 15.0)),
        ("etoile", (-51.5, 152.1, 20.7)),
        ("munich", (8.5, 21.0, 27.0)),
    ],
)
def test_scenes_of_sionna_pass(name, station):
    from lwmt_sionna.rt.tracing.check import check_scene

    report = check_scene(name, CARRIER, [station], coverage=False)
    assert report.is_fit, report.faults


@pytest.mark.slow
@pytest.mark.parametrize("name", ["florence", "san_francisco"])
def test_large_scenes_of_sionna_pass(name):
    from lwmt_sionna.rt.tracing.check import check_scene

    assert check_scene(name, CARRIER).is_fit


def test_coverage_agrees_with_traced_positions():
    """The map and the paths of a solve are two ways to the same power."""
    from lwmt_sionna.rt import TracingConfig, coverage_map, ground_map, load_scene, trace_positions

    loaded = load_scene("simple_street_canyon", CARRIER)
    ground = ground_map(loaded, 1.0, lower=(0.0, -4.0), upper=(30.0, 4.0))
    config = TracingConfig(max_depth=1, diffraction=False)
    gain = coverage_map(loaded, (-20.0, 3.0, 15.0), ground, config=config)
    xy = ground.centres.reshape(-1, 2)
    position = np.column_stack([xy, ground.height.reshape(-1) + 1.5])
    traced = trace_positions(loaded, (-20.0, 3.0, 15.0), (0, 0, 0), position, 0 * position, config)
    traced_db = 10 * np.log10(np.sum(np.abs(traced["a"]) ** 2, axis=(1, 2, 3)))
    # Averages over cells of a square metre against points at their centres.
    assert np.abs(np.median(gain.ravel() - traced_db)) < 0.5
    assert np.quantile(np.abs(gain.ravel() - traced_db), 0.9) < 2.0


def is_picture(path):
    """Whether it has dark and light places."""
    return np.ptp(np.asarray(Image.open(path).convert("L"))) > 100


def test_command_line(city, tmp_path, capsys):
    from lwmt_sionna.rt.__main__ import main

    arguments = ["check-scene", city, "--base-station", 0, 0, 10, "--out", tmp_path / "out"]
    good = subprocess.run(
        [sys.executable, "-m", "lwmt_sionna.rt", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert good.returncode == 0, good.stderr
    assert "fit for tracing" in good.stdout
    assert is_picture(tmp_path / "out" / "coverage_0.png")

    floating = ["--base-station", "0", "0", "150"]
    assert main(["check-scene", str(city), *floating, "--json", "--no-coverage"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["is_fit"]
    assert [f["check"] for f in found["findings"] if f["level"] == "fault"] == ["base station"]
    with pytest.raises(ValueError, match=r"munich.*old_town.*atlantis"):
        main(["check-scene", "atlantis"])
    assert main(["describe-scene", str(city), "--out", str(tmp_path / "out"), "--json"]) is None
    facts = json.loads(capsys.readouterr().out)
    assert facts["ground"] == ["ground"] and facts["num_triangles"] > 50
    assert is_picture(tmp_path / "out" / "picture.png")
    assert main(["list-scenes"]) is None
    listed = capsys.readouterr().out
    assert "munich" in listed and "boulevard" in listed
