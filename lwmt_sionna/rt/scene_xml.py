"""What the XML file of a scene says, read without Mitsuba: shapes, meshes, radio materials."""

import dataclasses
import pathlib
from xml.etree import ElementTree

__all__ = ["MaterialEntry", "SceneEntries", "ShapeEntry", "read_scene_xml"]


@dataclasses.dataclass(frozen=True)
class ShapeEntry:
    """One shape.

    Attributes:
        name: Name of the object in Sionna RT.
        kind: Type of the shape, such as "ply".
        mesh: `pathlib.Path` of its file, or `None`.
        material: Identifier of its material, or `None`.
    """

    name: str
    kind: str
    mesh: pathlib.Path | None
    material: str | None


@dataclasses.dataclass(frozen=True)
class MaterialEntry:
    """One material, as Sionna RT understands it.

    Attributes:
        name: Its identifier.
        plugin: Type of the BSDF after Sionna RT's reading of the names: one whose name begins with
            "itu_" (after "mat-") is an "itu-radio-material".
        itu: ITU type of an "itu-radio-material", or `None`.
    """

    name: str
    plugin: str
    itu: str | None


@dataclasses.dataclass(frozen=True)
class SceneEntries:
    """All of it.

    Attributes:
        shapes: list of `ShapeEntry`.
        materials: dict from identifier to `MaterialEntry`.
    """

    shapes: list
    materials: dict


def read_scene_xml(path):
    """Reads the XML file of a scene.

    Args:
        path: Path of the file.

    Returns:
        `SceneEntries`.

    Raises:
        ValueError: If the file is no XML or holds no scene of Mitsuba.
    """
    path = pathlib.Path(path)
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"The scene is no XML: {error}. Received: path={path}") from error
    if root.tag != "scene":
        raise ValueError(
            f"Expected the element <scene> of Mitsuba. Received: path={path}, element=<{root.tag}>"
        )
    materials = {}
    for bsdf in [*root.findall("./bsdf"), *root.findall(".//shape/bsdf")]:
        entry = _material(bsdf)
        materials[entry.name] = entry
    shapes = [_shape(shape, path.parent) for shape in root.iter("shape")]
    return SceneEntries([shape for shape in shapes if shape.kind != "merge"], materials)


def _material(bsdf):
    identifier = bsdf.get("id", "")
    plugin = bsdf.get("type", "")
    kind = bsdf.find("string[@name='type']")
    itu = None if kind is None else kind.get("value")
    name = identifier.removeprefix("mat-")
    if name.startswith(("itu_", "itu-")):
        plugin = "itu-radio-material"
        itu = name[4:] if itu is None else itu
    return MaterialEntry(identifier, plugin, itu if plugin == "itu-radio-material" else None)


def _shape(shape, folder):
    file = shape.find("string[@name='filename']")
    reference, inline = shape.find("ref"), shape.find("bsdf")
    material = None if reference is None else reference.get("id")
    if material is None and inline is not None:
        material = inline.get("id", "")
    return ShapeEntry(
        name=shape.get("id", "").removeprefix("mesh-"),
        kind=shape.get("type", ""),
        mesh=None if file is None else folder / file.get("value", ""),
        material=material,
    )
