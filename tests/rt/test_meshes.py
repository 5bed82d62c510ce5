"""Solids are closed and look outwards; PLY files come back."""

import numpy as np
import pytest

from lwmt_sionna.rt import cities as parts
from lwmt_sionna.rt.scenes.meshes import join, read_mesh, winding_number, write_ply

SQUARE = [[0.0, 0.0], [4.0, 0.0], [4.0, 3.0], [0.0, 3.0]]
COURT = [[1.0, 1.0], [3.0, 1.0], [3.0, 2.0], [1.0, 2.0]]
SOLIDS = {
    "box": (parts.box((0, 0, 0), (4, 3, 2)), 24.0),
    "prism": (parts.extrude([[0, 0], [2, 0], [0, 2]], 1.0, 4.0), 6.0),
    "courtyard": (parts.ring(SQUARE, COURT, 0.0, 5.0), 50.0),
    "house": (parts.house(10.0, 8.0, 5.0, 8.0), 10 * 8 * (5 + 1.5)),
    "row": (parts.row([0, 2, 5, 6, 9], [4.0, 7.0, 7.0, 3.0], 10.0), 10 * (8 + 21 + 7 + 9)),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_closed_and_look_outwards(name):
    mesh, volume = SOLIDS[name]
    assert mesh.volume == pytest.approx(volume)
    miswound, shared = mesh.num_miswound_edges()
    # A closed surface of triangles has three edges for every two faces, each shared by two.
    assert (miswound, shared) == (0, 3 * len(mesh.faces) // 2)
    assert mesh.areas.min() > 0.1
    # As they stand, without welding: diffraction needs faces that share vertices.
    edges = np.sort(np.concatenate([mesh.faces[:, [i, (i + 1) % 3]] for i in range(3)]), axis=1)
    assert len(np.unique(edges, axis=0)) == shared


def test_crown_is_closed_and_of_the_volume_of_an_icosahedron():
    mesh = parts.ellipsoid((1.0, 2.0, 5.0), (2.0, 2.0, 3.0))
    assert mesh.num_miswound_edges() == (0, 30)
    # An icosahedron fills 60.5 % of the ball around it.
    assert mesh.volume == pytest.approx(0.6054 * 4 / 3 * np.pi * 12, rel=1e-3)
    np.testing.assert_allclose(mesh.bounds, [[-1, 0, 2], [3, 4, 8]], atol=0.31)


def test_the_facade_of_a_row_has_no_seams():
    mesh = parts.row([0, 2, 5], [4.0, 7.0], 10.0)
    a, b, c = np.moveaxis(mesh.corners, 1, 0)
    normals = np.cross(b - a, c - a) / (2 * mesh.areas[:, None])
    front = np.isclose(normals[:, 1], -1)
    assert mesh.areas[front].sum() == pytest.approx(2 * 4 + 3 * 7)
    # No wall between the houses below the roof of the lower one.
    step = np.isclose(np.abs(normals[:, 0]), 1) & np.isclose(mesh.corners[..., 0].mean(1), 2)
    assert mesh.areas[step].sum() == pytest.approx(3 * 10)
    assert np.all(normals[step, 0] == -1)


def test_turning_one_face_is_seen():
    mesh, _ = SOLIDS["box"]
    faces = mesh.faces.copy()
    faces[0] = faces[0, ::-1]
    assert parts.Mesh(mesh.vertices, faces).num_miswound_edges() == (3, 18)
    # Turning all of them is no contradiction, only an inward look.
    turned = parts.Mesh(mesh.vertices, mesh.faces[:, ::-1])
    assert turned.num_miswound_edges() == (0, 18)
    assert turned.volume == pytest.approx(-24.0)


def test_winding_number_tells_inside_from_outside():
    mesh = join([SOLIDS["box"][0], SOLIDS["courtyard"][0].moved((10.0, 0.0, 0.0))])
    inside, outside = [[1.0, 1.0, 1.0], [10.5, 0.5, 2.0]], [[1.0, 1.0, 3.0], [12.0, 1.5, 2.0]]
    np.testing.assert_allclose(winding_number(mesh, inside), 1, atol=1e-9)
    np.testing.assert_allclose(winding_number(mesh, outside), 0, atol=1e-9)


def test_moving_turns_before_it_shifts():
    mesh = parts.box((0, 0, 0), (4, 1, 1)).moved((10.0, 0.0, 0.0), np.pi / 2)
    np.testing.assert_allclose(mesh.bounds, [[9, 0, 0], [10, 4, 1]], atol=1e-12)


def test_ply_comes_back(tmp_path):
    mesh = SOLIDS["row"][0]
    write_ply(tmp_path / "row.ply", mesh)
    again = read_mesh(tmp_path / "row.ply")
    np.testing.assert_allclose(again.vertices, mesh.vertices, atol=5e-4)
    np.testing.assert_array_equal(again.faces, mesh.faces)
    write_ply(tmp_path / "again.ply", again)
    assert (tmp_path / "again.ply").read_bytes() == (tmp_path / "row.ply").read_bytes()


def test_ply_of_others_is_read(tmp_path):
    text = tmp_path / "text.ply"
    text.write_text(
        "ply\nformat ascii 1.0\ncomment by hand\nelement vertex 4\nproperty float x\n"
        "property float y\nproperty float z\nproperty float s\nelement face 1\n"
        "property list uchar int vertex_index\nend_header\n"
        "0 0 0 9\n1 0 0 9\n1 1 0 9\n0 1 0 9\n4 0 1 2 3\n"
    )
    mesh = read_mesh(text)
    assert mesh.areas.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize("length", [10, 200, -7])
def test_damaged_ply_is_refused_by_name(tmp_path, length):
    write_ply(tmp_path / "box.ply", SOLIDS["box"][0])
    (tmp_path / "cut.ply").write_bytes((tmp_path / "box.ply").read_bytes()[:length])
    with pytest.raises(ValueError, match=r"cut\.ply"):
        read_mesh(tmp_path / "cut.ply")
