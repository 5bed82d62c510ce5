"""Cities from a few parameters and a seed.

The same parameters give the same city, byte by byte. NumPy alone; nothing is traced here.
"""

import dataclasses
import json
import pathlib
import tomllib

import numpy as np

from lwmt_sionna.rt.dense_cities import ManhattanGrid, OldTown, StreetCanyon
from lwmt_sionna.rt.open_cities import Campus, Suburb
from lwmt_sionna.rt.scene_files import write_scene
from lwmt_sionna.runs.configuration import from_toml, to_json
from lwmt_sionna.runs.records import atomic_path

__all__ = ["CITIES", "build_city", "city_config"]

CITIES = {each.KIND: each for each in (StreetCanyon, ManhattanGrid, OldTown, Campus, Suburb)}


def city_config(source):
    """The configuration of a city from a TOML file or a dictionary.

    Args:
        source: Path of a TOML file, or dict: `kind`, a key of `CITIES`, and attributes of its
            class. An unknown key is an error.

    Returns:
        An instance of one of `CITIES`' classes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the kind or an attribute is unknown or out of range.
    """
    if isinstance(source, dict):
        kind, unknown = source.get("kind"), None
    else:
        path = pathlib.Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"There is no configuration here. Received: path={path}")
        try:
            kind = tomllib.loads(path.read_text(encoding="utf-8")).get("kind")
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"The file is no TOML: {error}. Received: path={path}") from error
    if kind not in CITIES:
        raise ValueError(f"kind must be one of {', '.join(CITIES)}. Received: kind={kind!r}")
    if not isinstance(source, dict):
        return from_toml(CITIES[kind], source)
    known = {field.name for field in dataclasses.fields(CITIES[kind])}
    unknown = sorted(set(source) - known)
    if unknown:
        raise ValueError(
            f"Unknown keys for kind {kind}; expected {', '.join(sorted(known))}. Received: "
            f"{', '.join(unknown)}"
        )
    return CITIES[kind](**source)


def build_city(config, folder):
    """Builds a city: `scene.xml`, `meshes/*.ply` and `city.json` with what was built.

    Args:
        config: An instance of one of `CITIES`' classes.
        folder: Path of the scene's folder; made if missing.

    Returns:
        dict, the content of `city.json`: `config`, `base_stations` (metres), `cars` (names of
        objects that may move), `num_buildings`, `num_faces`, `materials`, `extent` (metres).
    """
    city = config.layout()
    objects = city.objects
    write_scene(folder, objects)
    bounds = np.array([each.mesh.bounds for each in objects])
    extent = bounds[:, 1].max(axis=0) - bounds[:, 0].min(axis=0)
    facts = {
        "config": to_json(config),
        "base_stations": [list(place) for place in city.base_stations],
        "cars": [each.name for each in objects if each.name.startswith("car_")],
        "num_buildings": city.num_buildings,
        "num_faces": sum(len(each.mesh.faces) for each in objects),
        "materials": sorted({each.material for each in objects}),
        "extent": np.round(extent, 1).tolist(),
    }
    with atomic_path(pathlib.Path(folder) / "city.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts
