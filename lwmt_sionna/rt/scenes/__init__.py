"""Scenes as they lie on the disk: names, XML files with radio materials, meshes. NumPy alone."""

from lwmt_sionna.rt.scenes.files import MATERIALS, MeshObject, read_scene_xml, write_scene
from lwmt_sionna.rt.scenes.meshes import Mesh, read_mesh, write_ply
from lwmt_sionna.rt.scenes.names import SCENES, own_scenes, resolve_scene

__all__ = [
    "MATERIALS",
    "SCENES",
    "Mesh",
    "MeshObject",
    "own_scenes",
    "read_mesh",
    "read_scene_xml",
    "resolve_scene",
    "write_ply",
    "write_scene",
]
