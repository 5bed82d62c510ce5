"""Where scenes are: built into Sionna RT, in `scenes/`, or in a file of one's own."""

import dataclasses
import importlib.metadata
import os
import pathlib
import re
from typing import Any

from lwmt_sionna.runs.records import read_json
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
_CHECKOUT = pathlib.Path(__file__).resolve().parents[3] / "scenes"
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
        is_shipped = self.origin == "sionna" or self.path.is_relative_to(_CHECKOUT)
        return self.name if is_shipped else str(self.path.resolve())


def own_scenes() -> dict[str, pathlib.Path]:
    """The scenes of this project and those in the folders of the variable `LWMT_SCENES`.

    Returns:
        dict from name to the `pathlib.Path` of the XML file, sorted by name.
    """
    folders = [pathlib.Path(p) for p in os.environ.get(_FOLDER_VARIABLE, "").split(os.pathsep) if p]
    found: dict[str, pathlib.Path] = {}
    for folder in (*folders, _CHECKOUT):
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
                f"`pip install 'lwmt_sionna[rt]'`. Received: name={text}"
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
