"""Scenes on disk: where they are, and what their XML files say; read without Mitsuba.

Scenes are built into Sionna RT, lie in `scenes/`, or in a file of one's own: a Mitsuba XML file
with radio materials, and its meshes.
"""

import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import re
import shutil
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from lwmt_sionna.rt.scenes.meshes import Mesh, write_ply
from lwmt_sionna.runs.records import atomic_path, read_json, sha256
from lwmt_sionna.runs.shipped import ROOT, how_to_install
from lwmt_sionna.typing import PathLike

# Sionna RT's built-in cities and streets.
SCENES = (
    "etoile",
    "florence",
    "munich",
    "san_francisco",
    "simple_street_canyon",
    "simple_street_canyon_with_cars",
)
_FOLDER_VARIABLE = "LWMT_SCENES"
_SHIPPED = ROOT / "scenes"
_GROUND_WORDS = {"ground", "terrain", "plane", "floor", "road"}
_CAR_WORDS = {"car", "bus", "truck", "tram", "van", "vehicle"}


@dataclasses.dataclass(frozen=True)
class SceneFile:
    """A scene that was found.

    Attributes:
        path: `pathlib.Path` of its XML file.
        name: What to call it: the built-in name, the folder's name, or that of the file.
        origin: "sionna", "own" (of `scenes/`) or "file".
    """

    path: pathlib.Path
    name: str
    origin: str

    @property
    def facts(self) -> dict[str, Any]:
        """dict, what the builder wrote down (`city.json`); empty for scenes made elsewhere."""
        note = self.path.with_name("city.json")
        facts = read_json(note) if note.is_file() else {}
        if not isinstance(facts, dict):
            raise ValueError(f"Expected an object of JSON. Received: path={note}")
        return facts

    @property
    def portable(self) -> str:
        """What finds it on another machine: a name that all installations know, or a whole path."""
        is_shipped = self.origin == "sionna" or self.path.is_relative_to(_SHIPPED)
        return self.name if is_shipped else str(self.path.resolve())


def own_scenes() -> dict[str, pathlib.Path]:
    """XML files of the scenes of this project and of the folders in `LWMT_SCENES`, by name."""
    folders = [pathlib.Path(p) for p in os.environ.get(_FOLDER_VARIABLE, "").split(os.pathsep) if p]
    found: dict[str, pathlib.Path] = {}
    for folder in (*folders, _SHIPPED):
        for path in sorted(folder.glob("*/scene.xml")):
            found.setdefault(path.parent.name, path)
    return dict(sorted(found.items()))


def resolve_scene(name: PathLike) -> SceneFile:
    """Finds a scene.

    Args:
        name: Name of a built-in scene, name of a folder in `scenes/`, path of an XML file, or path
            of a folder that holds `scene.xml`.

    Raises:
        ValueError: If there is no such scene; the message lists those that exist.
        ImportError: If a built-in scene is asked for and Sionna RT is not installed.
    """
    text = str(name)
    if text in SCENES:
        try:
            package = importlib.metadata.distribution("sionna-rt")
        except importlib.metadata.PackageNotFoundError as error:
            raise ImportError(
                "The scene is one of Sionna RT's: install it with "
                f"`{how_to_install('rt')}`. Received: name={text}"
            ) from error
        file = pathlib.Path(str(package.locate_file(f"sionna/rt/scenes/{text}/{text}.xml")))
        return SceneFile(file, text, "sionna")
    own = own_scenes()
    if text in own:
        return SceneFile(own[text], text, "own")
    path = pathlib.Path(text)
    if path.is_dir() and (path / "scene.xml").is_file():
        path = path / "scene.xml"
    if path.suffix == ".xml" and path.is_file():
        resolved = path.resolve()
        label = resolved.parent.name if path.stem == "scene" else path.stem
        return SceneFile(resolved, label, "file")
    raise ValueError(
        f"Unknown scene. Expected one of Sionna's ({', '.join(SCENES)}), one of this project's "
        f"({', '.join(own) or 'none here'}), or the path of a Mitsuba XML file. Received: "
        f"name={text}"
    )


def is_ground_name(name: str) -> bool:
    """Whether a word of an object's name says that it is ground to stand on."""
    return bool(_words(name) & _GROUND_WORDS)


def is_car_name(name: str) -> bool:
    """Whether a word of an object's name says that it is a vehicle, which may move."""
    return bool(_words(name) & _CAR_WORDS)


def _words(name):
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", parted)}
    return words | {word.removesuffix("s") for word in words}


# A scene of ten thousand shapes has four megabytes and a depth of four.
_LARGEST_FILE = 2**26
_DEEPEST = 100
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


@dataclasses.dataclass(frozen=True)
class MeshObject:
    """One object of a scene.

    Attributes:
        name: Name of the object; that of its mesh file too.
        material: Key of `MATERIALS`.
        mesh: `Mesh`.
    """

    name: str
    material: str
    mesh: Mesh


@dataclasses.dataclass(frozen=True)
class ShapeEntry:
    """One shape.

    Attributes:
        identifier: Its identifier, perhaps empty.
        kind: Type of the shape, such as "ply".
        mesh: `pathlib.Path` of its file, or `None`.
        material: Identifier of its material, or `None`.
    """

    identifier: str
    kind: str
    mesh: pathlib.Path | None
    material: str | None

    @property
    def name(self) -> str:
        """Name of the object in Sionna RT."""
        return self.identifier.removeprefix("mesh-")


@dataclasses.dataclass(frozen=True)
class MaterialEntry:
    """One material, as Sionna RT understands it.

    Attributes:
        name: Its identifier; empty where it has none, which Sionna RT does not load.
        plugin: Type of the BSDF after Sionna RT's reading of the names: one whose name begins with
            "itu_" (after "mat-") is an "itu-radio-material".
        itu: ITU type of an "itu-radio-material", or `None`.
    """

    name: str
    plugin: str
    itu: str | None


@dataclasses.dataclass(frozen=True)
class SceneXML:
    """What the XML file of a scene says.

    Attributes:
        path: `pathlib.Path` of the file.
        root: The element `<scene>`, its parameters (`<default>`) put in.
        shapes: list of `ShapeEntry`.
        materials: dict from identifier to `MaterialEntry`.
    """

    path: pathlib.Path
    root: ElementTree.Element
    shapes: list[ShapeEntry]
    materials: dict[str, MaterialEntry]

    def digest(self) -> str:
        """SHA-256 of the XML file and of all files that it names."""
        digest = hashlib.sha256(self.path.read_bytes())
        for element, name in _files(self.root):
            file = self.path.parent / element.get(name, "")
            if file.is_file():
                included = element.tag == "include" and file != self.path
                inner = read_scene_xml(file).digest() if included else sha256(file)
                digest.update(f"{element.get(name)} {inner}".encode())
        return digest.hexdigest()

    def text(self, offset: Sequence[float] = (0.0, 0.0, 0.0), numbered: bool = False) -> str:
        """The XML text with the paths of its files absolute, and with all shapes shifted by metres.

        `numbered` gives shapes their places in `shapes` as identifiers.
        """
        root = ElementTree.fromstring(ElementTree.tostring(self.root))
        folder = self.path.parent.resolve()
        for element, name in _files(root):
            # Mitsuba would look into the working directory first.
            if (folder / element.get(name, "")).is_file():
                element.set(name, str(folder / element.get(name, "")))
        shapes = [shape for shape in root.iter("shape") if shape.get("type") != "merge"]
        for number, shape in enumerate(shapes if numbered else ()):
            shape.set("id", str(number))
        for shape in shapes if any(offset) else ():
            transform = shape.find("transform[@name='to_world']")
            if transform is None:
                transform = ElementTree.SubElement(shape, "transform", name="to_world")
            # The last step of a transform is the outermost one.
            ElementTree.SubElement(
                transform, "translate", {"value": " ".join(repr(float(c)) for c in offset)}
            )
        return ElementTree.tostring(root, encoding="unicode")


def read_scene_xml(path: PathLike) -> SceneXML:
    """Reads the XML file of a scene.

    Raises:
        ValueError: If the file is no XML, holds no scene of Mitsuba, is larger than 64 megabytes
            or nested more than a hundred deep.
    """
    path = pathlib.Path(path)
    root = _parse(path)
    if root.tag != "scene":
        raise ValueError(
            f"Expected the element <scene> of Mitsuba. Received: path={path}, element=<{root.tag}>"
        )
    defaults = {each.get("name", ""): each.get("value", "") for each in root.findall("default")}
    for element in root.iter() if defaults else ():
        for key, value in element.attrib.items():
            for name in sorted(defaults, key=len, reverse=True):
                value = value.replace(f"${name}", defaults[name])
            element.set(key, value)
    materials = {}
    for bsdf in [*root.findall("./bsdf"), *root.findall(".//shape/bsdf")]:
        entry = _read_material(bsdf)
        materials[entry.name] = entry
    shapes = [_read_shape(shape, path.parent) for shape in root.iter("shape")]
    return SceneXML(path, root, [shape for shape in shapes if shape.kind != "merge"], materials)


def _parse(path):
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise ValueError(
            f"The scene is larger than {_LARGEST_FILE} bytes. Received: path={path}, {size} bytes"
        )
    try:
        events = ElementTree.iterparse(path, events=("start", "end"))
        depth = 0
        for event, _ in events:
            depth += 1 if event == "start" else -1
            if depth > _DEEPEST:
                raise ValueError(f"elements are nested more than {_DEEPEST} deep")
        return events.root
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"The scene is no XML: {error}. Received: path={path}") from error


def _files(root):
    """Pairs of an element that names a file, and the attribute that does."""
    for element in root.iter("string"):
        if element.get("name") == "filename":
            yield element, "value"
    for element in root.iter("include"):
        yield element, "filename"


def _read_material(bsdf):
    identifier = bsdf.get("id", "")
    plugin = bsdf.get("type", "")
    kind = bsdf.find("string[@name='type']")
    itu = None if kind is None else kind.get("value")
    name = identifier.removeprefix("mat-")
    if name.startswith(("itu_", "itu-")):
        plugin = "itu-radio-material"
        itu = name[4:] if itu is None else itu
    return MaterialEntry(identifier, plugin, itu if plugin == "itu-radio-material" else None)


def _read_shape(shape, folder):
    file = shape.find("string[@name='filename']")
    reference, inline = shape.find("ref"), shape.find("bsdf")
    material = None if reference is None else reference.get("id")
    if material is None and inline is not None:
        material = inline.get("id", "")
    return ShapeEntry(
        identifier=shape.get("id", ""),
        kind=shape.get("type", ""),
        mesh=None if file is None else folder / file.get("value", ""),
        material=material,
    )


def write_scene(folder: PathLike, objects: Sequence[MeshObject]) -> pathlib.Path:
    """Writes `scene.xml` and `meshes/*.ply` that Sionna RT loads.

    The folder of meshes is written anew; whatever else lies in `folder` stays. The same objects
    give the same bytes.

    Args:
        folder: Path of the scene's folder; made if missing.
        objects: Sequence of `MeshObject`, names unique.

    Returns:
        `pathlib.Path` of the XML file.

    Raises:
        ValueError: If names repeat or a material is unknown.
    """
    names = [each.name for each in objects]
    if len(set(names)) != len(names):
        raise ValueError(f"Names of objects must be unique. Received: {', '.join(sorted(names))}")
    unknown = sorted({each.material for each in objects} - set(MATERIALS))
    if unknown:
        raise ValueError(
            f"Unknown materials; expected some of {', '.join(sorted(MATERIALS))}. Received: "
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
        lines += [*_write_material(name, MATERIALS[name]), ""]
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


def _write_material(name, properties):
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
