"""A small town written by hand: a level ground of 240 m and three houses."""

import pathlib

import numpy as np

from lwmt_sionna.rt import Mesh, write_ply
from lwmt_sionna.rt.cities import box, quad

MESHES = {
    "ground": quad((-120, -120), (120, 120)),
    "house_1": box((30, 20, 0), (50, 60, 15)),
    "house_2": box((-60, 20, 0), (-30, 50, 20)),
    "house_3": box((-50, -60, 0), (-10, -35, 12)),
}
MATERIAL = '<bsdf type="diffuse" id="mat-itu_concrete"/>'
REFERENCE = '<ref id="mat-itu_concrete" name="bsdf"/>'


def shape(name, kind="ply", inner=""):
    """The element of a shape, whose mesh lies in meshes/ if it is of a file."""
    file = f'<string name="filename" value="meshes/{name}.{kind}"/>' * (kind in ("ply", "obj"))
    return f'<shape type="{kind}" id="mesh-{name}">{file}{inner}{REFERENCE}</shape>'


def write_town(folder, shift=(0.0, 0.0, 0.0), shapes=None, materials=MATERIAL, write=write_ply):
    """Writes the town; `shapes` are names of meshes, or elements of their own.

    Returns:
        Path of the XML file.
    """
    folder = pathlib.Path(folder)
    (folder / "meshes").mkdir(parents=True, exist_ok=True)
    for name, mesh in MESHES.items():
        write(folder / "meshes" / f"{name}.ply", Mesh(mesh.vertices + np.array(shift), mesh.faces))
    shapes = list(MESHES) if shapes is None else shapes
    lines = [each if each.startswith("<") else shape(each) for each in shapes]
    text = "\n".join(['<scene version="2.1.0">', materials, *lines, "</scene>"])
    (folder / "scene.xml").write_text(text, encoding="utf-8")
    return folder / "scene.xml"
