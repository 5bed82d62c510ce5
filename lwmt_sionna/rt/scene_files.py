"""Scenes on disk: a Mitsuba XML file with radio materials, and its meshes."""

import pathlib
import shutil
from xml.sax.saxutils import quoteattr

from lwmt_sionna.rt.ply import write_ply
from lwmt_sionna.runs.records import atomic_path

__all__ = ["MATERIALS", "write_scene"]

# Names of ITU-R P.2040-3 with the thickness of a wall in metres. Vegetation is not among the
# materials of P.2040; a crown here is a weakly reflecting body (about -26 dB at normal incidence)
# that blocks rays, as P.833 has foliage attenuate, at every carrier.
MATERIALS = {
    "brick": {"itu": "brick", "thickness": 0.3, "color": (0.55, 0.25, 0.18)},
    "concrete": {"itu": "concrete", "thickness": 0.3, "color": (0.62, 0.61, 0.58)},
    "foliage": {
        "relative_permittivity": 1.2,
        "conductivity": 0.003,
        "thickness": 1.0,
        "color": (0.18, 0.38, 0.14),
    },
    "glass": {"itu": "glass", "thickness": 0.03, "color": (0.35, 0.48, 0.60)},
    "marble": {"itu": "marble", "thickness": 0.3, "color": (0.80, 0.74, 0.60)},
    "medium_dry_ground": {
        "itu": "medium_dry_ground",
        "thickness": 1.0,
        "color": (0.42, 0.50, 0.28),
    },
    "metal": {"itu": "metal", "thickness": 0.01, "color": (0.30, 0.32, 0.38)},
    "wood": {"itu": "wood", "thickness": 0.2, "color": (0.40, 0.26, 0.13)},
}


def write_scene(folder, objects, *, materials=None):
    """Writes `scene.xml` and `meshes/*.ply` that Sionna RT loads.

    The folder of meshes is written anew; whatever else lies in `folder` stays. The same objects
    give the same bytes.

    Args:
        folder: Path of the scene's folder; made if missing.
        objects: Sequence of `lwmt_sionna.rt.city_parts.CityObject`, names unique.
        materials: dict like `MATERIALS`, which it defaults to.

    Returns:
        `pathlib.Path` of the XML file.

    Raises:
        ValueError: If names repeat or a material is unknown.
    """
    materials = MATERIALS if materials is None else materials
    names = [each.name for each in objects]
    if len(set(names)) != len(names):
        raise ValueError(f"Names of objects must be unique. Received: {', '.join(sorted(names))}")
    unknown = sorted({each.material for each in objects} - set(materials))
    if unknown:
        raise ValueError(
            f"Unknown materials; expected some of {', '.join(sorted(materials))}. Received: "
            f"{', '.join(unknown)}"
        )
    folder = pathlib.Path(folder)
    meshes = folder / "meshes"
    shutil.rmtree(meshes, ignore_errors=True)
    meshes.mkdir(parents=True)
    for each in objects:
        write_ply(meshes / f"{each.name}.ply", each.mesh)
    lines = ['<scene version="2.1.0">', ""]
    for name in sorted({each.material for each in objects}):
        lines += [*_material(name, materials[name]), ""]
    for each in objects:
        identifier = quoteattr(f"mesh-{each.name}")
        lines += [
            f'    <shape type="ply" id={identifier} name={identifier}>',
            f'        <string name="filename" value={quoteattr(f"meshes/{each.name}.ply")}/>',
            '        <boolean name="face_normals" value="true"/>',
            f'        <ref id={quoteattr(each.material)} name="bsdf"/>',
            "    </shape>",
        ]
    lines += ["", "</scene>", ""]
    with atomic_path(folder / "scene.xml") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    return folder / "scene.xml"


def _material(name, properties):
    kind = "itu-radio-material" if "itu" in properties else "radio-material"
    yield f'    <bsdf type="{kind}" id={quoteattr(name)}>'
    if "itu" in properties:
        yield f'        <string name="type" value="{properties["itu"]}"/>'
    for key in ("relative_permittivity", "conductivity", "thickness"):
        if key in properties:
            yield f'        <float name="{key}" value="{properties[key]}"/>'
    red, green, blue = properties["color"]
    yield f'        <rgb name="color" value="{red} {green} {blue}"/>'
    yield "    </bsdf>"
