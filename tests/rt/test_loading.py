"""Scenes as they come: far off the origin, of other shapes and files, damaged."""

import hashlib

import numpy as np
import pytest

from lwmt_sionna.rt import Mesh, read_mesh, read_scene_xml, read_trips, write_ply
from lwmt_sionna.rt.cities import city_config
from tests.rt.test_trips import ORIGIN, WALK
from tests.rt.towns import MATERIAL, MESHES, REFERENCE, shape, write_town

pytestmark = pytest.mark.rt

CARRIER = 3.5e9
SPEED_OF_LIGHT = 299_792_458.0
STATION = np.array([0.0, -10.0, 25.0])


def texts(report, level="fault"):
    return [finding.text for finding in report.findings if finding.level == level]


def check(path, stations=(), coverage=False):
    from lwmt_sionna.rt import check_scene

    return check_scene(path, CARRIER, stations, coverage=coverage)


def free_space(position, station):
    """`lambda / (4 pi d) exp(-2j pi f d / c)`, in float64."""
    distance = np.linalg.norm(position - station, axis=-1)
    loss = SPEED_OF_LIGHT / CARRIER / 4 / np.pi / distance
    return loss * np.exp(-2j * np.pi * CARRIER * distance / SPEED_OF_LIGHT)


@pytest.mark.parametrize(
    "offset",
    [(0, 0, 0), (300, -700, 0), (3e4, 2e4, 0), (448262.0, 5411932.0, 520.0), (0, -9e6, 0)],
    ids=str,
)
def test_the_line_of_sight_is_that_of_free_space_at_any_offset(offset, tmp_path):
    from lwmt_sionna.rt import TracingConfig, Tracks, load_scene, trace_tracks

    offset = np.array(offset, dtype=float)
    loaded = load_scene(write_town(tmp_path, offset), CARRIER)
    time = 5e-3 * np.arange(21)
    position = np.stack([20 + 0 * time, -30 + 30 / 3.6 * time, 1.5 + 0 * time], -1)[None] + offset
    height, is_ground = loaded.drop_to_ground(position[0, :, :2])
    assert is_ground.all()
    np.testing.assert_allclose(height, offset[2], atol=1e-4)
    assert loaded.segment_is_free(position[0, :1], position[0, -1:]).all()
    config = TracingConfig(samples_per_source=20_000)
    traced = trace_tracks(loaded, STATION + offset, (0, 0, 0), Tracks(position, 5e-3), config)
    direct = (traced["path_key"] == 0) & traced["valid"]
    assert (direct[0].sum(axis=-1) == 1).all()
    gain = traced["a"][0, ..., 0, 0][direct[0]]
    expected = free_space(position[0], STATION + offset)
    error = np.linalg.norm(gain - expected) / np.linalg.norm(expected)
    assert 20 * np.log10(error) < -60
    # The houses have come along.
    assert traced["valid"].sum(axis=-1).min() >= 5


def test_a_far_scene_is_fit_and_says_so(tmp_path):
    offset = np.array([448_262.0, 5_411_932.0, 0.0])
    report = check(write_town(tmp_path, offset), [STATION + offset], coverage=True)
    assert report.is_fit, report.faults
    assert report.coverage[0]["covered_share"] > 0.5
    [warning] = texts(report, "warning")
    assert "(448262, 5.41193e+06, 0)" in warning and "0.5 m" in warning


def test_a_far_data_set_is_stored_around_a_local_origin(tmp_path):
    from lwmt_sionna.data import check_file
    from lwmt_sionna.rt import GenerationConfig, TracingConfig, generate

    sets = []
    for name, offset in (("near", np.zeros(3)), ("far", np.array([6e5, 5e6, 0.0]))):
        config = GenerationConfig(
            scene=str(write_town(tmp_path / name, offset)),
            base_stations=[STATION + offset],
            num_sequences=2,
            num_snapshots=3,
            tracks_per_solve=2,
            max_distance=60.0,
            tracing=TracingConfig(samples_per_source=20_000, max_depth=2),
        )
        sets.append(generate(config, tmp_path / f"{name}.h5", progress=False))
        assert check_file(tmp_path / f"{name}.h5") == []
    near, far = sets
    assert "origin" not in near.metadata and far.metadata["origin"] == [6e5, 5e6, 0.0]
    np.testing.assert_allclose(far.position, near.position, atol=1e-3)
    np.testing.assert_allclose(far.bs_position, [STATION])
    np.testing.assert_allclose(far.valid.sum(axis=-1), near.valid.sum(axis=-1), atol=2)


@pytest.mark.parametrize(
    ("materials", "reference"),
    [
        (f'<bsdf type="diffuse"/>{MATERIAL}', REFERENCE),
        (MATERIAL, '<bsdf type="itu-radio-material"><string name="type" value="concrete"/></bsdf>'),
    ],
    ids=["top level", "inline"],
)
def test_a_material_without_an_id_is_a_finding(materials, reference, tmp_path):
    from lwmt_sionna.rt import load_scene

    path = write_town(tmp_path, materials=materials)
    path.write_text(path.read_text().replace(REFERENCE, reference))
    [text] = texts(check(path))
    assert "has no id" in text
    with pytest.raises(ValueError, match=r"no id.*scene\.xml"):
        load_scene(path, CARRIER)


HOUSE = (
    '<transform name="to_world"><scale x="10" y="20" z="7.5"/>'
    '<translate x="40" y="40" z="7.5"/></transform>'
)


def test_a_cube_is_examined_and_that_it_does_not_diffract_is_said(tmp_path):
    from lwmt_sionna.rt import TracingConfig, load_scene, trace_positions

    counts, reports = {}, {}
    for kind, house in (("ply", shape("house_1")), ("cube", shape("house_1", "cube", HOUSE))):
        path = write_town(tmp_path / kind, shapes=["ground", house])
        reports[kind] = check(path)
        assert reports[kind].is_fit, reports[kind].faults
        loaded = load_scene(path, CARRIER)
        for name, diffraction, place in (
            ("reflected", False, [10.0, 40.0, 1.5]),
            ("hidden", True, [55.0, 70.0, 1.5]),
        ):
            config = TracingConfig(samples_per_source=100_000, max_depth=2, diffraction=diffraction)
            station = (0.0, -10.0, 25.0 if name == "reflected" else 10.0)
            traced = trace_positions(
                loaded, station, (0, 0, 0), np.array([place]), np.zeros((1, 3)), config
            )
            counts[kind, name] = int(traced["valid"].sum())
    assert counts["ply", "reflected"] == counts["cube", "reflected"] >= 2
    assert counts["ply", "hidden"] > counts["cube", "hidden"]
    assert texts(reports["ply"], "warning") == []
    [warning] = texts(reports["cube"], "warning")
    assert "house_1 (cube)" in warning and "do not diffract" in warning


@pytest.mark.parametrize("kind", ["sphere", "disk", "cylinder", "rectangle"])
def test_shapes_that_are_no_meshes_are_a_finding(kind, tmp_path):
    """What Sionna RT refuses is refused here, and what it takes is taken."""
    from lwmt_sionna.rt import load_scene

    path = write_town(tmp_path, shapes=["ground", "house_1", shape("thing", kind)])
    report = check(path)
    try:
        load_scene(path, CARRIER)
    except ValueError as error:
        assert "scene.xml" in str(error)
        [text] = texts(report)
        assert "thing" in text and kind in text
    else:
        assert report.is_fit


def test_shapes_without_an_id_are_examined(tmp_path):
    """All of them, though they share the name of none."""
    shapes = [shape(name).replace(f' id="mesh-{name}"', "") for name in ("house_1", "house_2")]
    path = write_town(tmp_path, shapes=["ground", *shapes])
    assert "26 triangles" in texts(check(path), "ok")
    mesh = MESHES["house_1"]
    turned = mesh.faces.copy()
    turned[::3] = turned[::3, ::-1]
    write_ply(tmp_path / "meshes" / "house_1.ply", Mesh(mesh.vertices, turned))
    [text] = texts(check(path))
    assert "inverted normals" in text and "number 2" in text


def write_obj(path, mesh):
    lines = [f"v {x} {y} {z}" for x, y, z in mesh.vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    path.write_text("\n".join(lines))


def test_obj_and_big_endian_ply_are_examined_like_ply(tmp_path):
    from lwmt_sionna.rt import load_scene

    def write_big_endian(path, mesh):
        header = (
            f"ply\nformat binary_big_endian 1.0\nelement vertex {len(mesh.vertices)}\n"
            "property double x\nproperty double y\nproperty double z\n"
            f"element face {len(mesh.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
        )
        faces = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("index", ">i4", 3)])
        faces["count"], faces["index"] = 3, mesh.faces
        path.write_bytes(header.encode() + mesh.vertices.astype(">f8").tobytes() + faces.tobytes())

    path = write_town(tmp_path, shapes=[*list(MESHES)[:3], shape("yard", "obj")])
    write_big_endian(tmp_path / "meshes" / "house_1.ply", MESHES["house_1"])
    write_obj(tmp_path / "meshes" / "yard.obj", MESHES["house_3"])
    for name in ("house_1.ply", "yard.obj"):
        mesh = read_mesh(tmp_path / "meshes" / name)
        expected = MESHES["house_1" if name == "house_1.ply" else "house_3"]
        np.testing.assert_allclose(mesh.vertices, expected.vertices)
        np.testing.assert_array_equal(mesh.faces, expected.faces)
    assert check(path).is_fit, check(path).faults
    load_scene(path, CARRIER)
    turned = MESHES["house_3"].faces.copy()
    turned[::3] = turned[::3, ::-1]
    write_obj(
        tmp_path / "meshes" / "yard.obj",
        Mesh(MESHES["house_3"].vertices, turned),
    )
    [text] = texts(check(path))
    assert "inverted normals" in text and "yard" in text


DAMAGED = {
    "hang": (
        "ply\nformat ascii 1.0\nelement face 2000000000\n"
        "property list char int vertex_indices\nend_header\n-1 -1 -1 -1\n"
    ),
    "without a count": "ply\nformat ascii 1.0\nelement vertex\nend_header\n",
    "no faces": (
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 0\n"
    ),
    "no properties": "ply\nformat ascii 1.0\nelement face 2000000000\nend_header\n",
    "property first": "ply\nformat ascii 1.0\nproperty float x\nelement face 1\nend_header\n",
    "another format": "ply\nformat morse 1.0\nend_header\n",
    "not finite": (
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        "property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
        "0 0 0\nnan 0 0\n0 1 0\n3 0 1 2\n"
    ),
    "a face of nothing": (
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
        "0 0 0\n3 0 1 7\n"
    ),
    "no ply": "<html>",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_meshes_end_in_one_line(name, tmp_path):
    from lwmt_sionna.rt import load_scene

    path = write_town(tmp_path)
    (tmp_path / "meshes" / "house_2.ply").write_text(DAMAGED[name])
    [text] = texts(check(path))
    assert "house_2.ply" in text and "\n" not in text
    with pytest.raises(ValueError, match=r"house_2\.ply"):
        load_scene(path, CARRIER)


def write_csv(path):
    rows = [f"{t:.1f},{10 + 8 * t:.2f},-30,anna" for t in np.arange(0, 2, 0.1)]
    path.write_text("\n".join(["time,x,y,user", *rows]))


READERS = {
    "scene.xml": (lambda path: write_town(path.parent), read_scene_xml),
    "text.ply": (lambda path: path.write_text(TEXT_PLY), read_mesh),
    "binary.ply": (lambda path: write_ply(path, MESHES["house_1"]), read_mesh),
    "house.obj": (lambda path: write_obj(path, MESHES["house_1"]), read_mesh),
    "trips.csv": (write_csv, read_trips),
    "trips.npz": (
        lambda path: np.savez_compressed(path, time=np.arange(20), position=np.ones((1, 20, 2))),
        read_trips,
    ),
    "trips.gpx": (
        lambda path: path.write_text(WALK["walk.gpx"][0]),
        lambda path: read_trips(path, ORIGIN),
    ),
    "trips.xml": (lambda path: path.write_text(WALK["metres.xml"][0]), read_trips),
    "city.toml": (
        lambda path: path.write_text('kind = "campus"\nseed = 3\nheight = [7.0, 26.0]\n'),
        city_config,
    ),
}
TEXT_PLY = (
    "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
    "property float z\nelement face 1\nproperty list uchar int vertex_index\nend_header\n"
    "0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"
)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_by_name(name, rng, tmp_path):
    """Bits that flip, and files that are cut: whatever comes of them, it is no traceback."""
    write, read = READERS[name]
    path = tmp_path / name
    write(path)
    good = path.read_bytes()
    read(path)
    outcomes = {"read": 0, "refused": 0}
    for number in range(150):
        data = bytearray(good)
        if number % 3:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            data = data[: rng.integers(len(data))]
        path.write_bytes(data)
        try:
            read(path)
            outcomes["read"] += 1
        except ValueError as error:
            assert name in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<scene><bsdf", "no XML"),
        ("<city/>", "<scene>"),
        ("<scene>" + "<a>" * 200_000 + "</a>" * 200_000 + "</scene>", "deep"),
        ("\x00\x01", "no XML"),
        ('<?xml version="1.0" encoding="klingon"?><scene/>', "no XML"),
    ],
    ids=["cut", "another element", "nested", "binary", "encoding"],
)
def test_damaged_scenes_end_in_one_line(text, words, tmp_path):
    from lwmt_sionna.rt import load_scene

    path = write_town(tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        load_scene(path, CARRIER)
    assert "scene.xml" in str(caught.value) and "\n" not in str(caught.value)
    [found] = texts(check(path))
    assert "scene.xml" in found


def test_entities_do_not_blow_up(tmp_path):
    levels = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 12))
    text = f'<!DOCTYPE scene [<!ENTITY a0 "{"x" * 50}">{levels}]><scene>&a11;</scene>'
    path = write_town(tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"no XML.*scene\.xml"):
        read_scene_xml(path)


def test_enormous_files_are_refused_unread(tmp_path):
    path = write_town(tmp_path)
    for file, size in ((tmp_path / "meshes" / "house_1.ply", 2**41), (path, 2**40)):
        with open(file, "r+b") as stream:
            stream.truncate(size)
        with pytest.raises(ValueError, match=rf"larger than.*{file.name}"):
            read_mesh(file) if file.suffix == ".ply" else read_scene_xml(file)


def test_the_digest_is_the_one_that_finished_files_carry(tmp_path):
    path = write_town(tmp_path, shapes=["ground", "house_1"])
    digest = hashlib.sha256(path.read_bytes())
    for name in ("ground", "house_1"):
        mesh = (tmp_path / "meshes" / f"{name}.ply").read_bytes()
        digest.update(f"meshes/{name}.ply {hashlib.sha256(mesh).hexdigest()}".encode())
    assert read_scene_xml(path).digest() == digest.hexdigest()


def test_files_that_would_take_minutes_are_refused(tmp_path):
    """Ten million empty faces, text of half a gigabyte, a header without an end."""
    head = "ply\nformat {} 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
    head += "property float z\nelement face 10000000\nproperty list uchar uchar vertex_index\n"
    for name, text, words in (
        ("faces", head.format("binary_little_endian") + "end_header\n", "no triangles"),
        ("text", head.format("ascii") + "end_header\n", "binary form"),
        ("header", head.format("ascii"), "no header"),
    ):
        path = tmp_path / f"{name}.ply"
        path.write_text(text)
        with open(path, "r+b") as stream:
            stream.truncate(2**28 if name == "text" else 2**25)
        with pytest.raises(ValueError, match=rf"{words}.*{name}\.ply"):
            read_mesh(path)


def test_everything_that_a_scene_names_is_in_its_digest(tmp_path):
    """Meshes by parameters and included files too; and nothing of the working directory."""
    path = write_town(tmp_path, shapes=["ground", "house_1"])
    plain = read_scene_xml(path).digest()
    text = path.read_text().replace("meshes/", "$folder/")
    head = '<scene version="2.1.0"><default name="folder" value="meshes"/>'
    path.write_text(
        text.replace('<scene version="2.1.0">', f'{head}<include filename="more.xml"/>')
    )
    (tmp_path / "more.xml").write_text(f"<scene>{shape('house_2')}</scene>")
    digests = {plain, read_scene_xml(path).digest()}
    for name in ("house_1", "house_2"):
        mesh = tmp_path / "meshes" / f"{name}.ply"
        mesh.write_bytes((tmp_path / "meshes" / "house_3.ply").read_bytes())
        digests.add(read_scene_xml(path).digest())
    assert len(digests) == 4


def test_meshes_are_those_beside_the_scene_and_not_of_the_working_directory(tmp_path, monkeypatch):
    from lwmt_sionna.rt import load_scene

    path = write_town(tmp_path / "town", shapes=["ground", "house_1"])
    other = write_town(tmp_path / "other", shapes=["ground"])
    (other.parent / "meshes" / "house_1.ply").write_bytes(
        (other.parent / "meshes" / "house_2.ply").read_bytes()
    )
    monkeypatch.chdir(other.parent)
    assert load_scene(path, CARRIER).bounds[1][2] == pytest.approx(15.0)
