"""Loaded scenes, and what their geometry says about outdoor ground."""

import dataclasses
import re
from xml.etree import ElementTree

import numpy as np

from lwmt_sionna.rt._sionna import drjit, mitsuba, sionna_rt
from lwmt_sionna.rt.scene_names import SCENES, is_car_name, is_ground_name, resolve_scene

__all__ = ["SCENES", "LoadedScene", "cast_rays", "drop_to_ground", "load_scene", "segment_is_free"]


@dataclasses.dataclass(frozen=True)
class LoadedScene:
    """A Sionna RT scene with its name and the objects that make up its ground.

    Attributes:
        scene: `sionna.rt.Scene`.
        name: Name of the scene.
        ground_ids: Shape identifiers (as Mitsuba's intersections report them) of the ground.
    """

    scene: object
    name: str
    ground_ids: tuple

    @property
    def bounds(self):
        """`(lower, upper)` corners of the scene, each float `[3]`, in metres."""
        box = self.scene.mi_scene.bbox()
        return np.ravel(np.array(box.min)), np.ravel(np.array(box.max))

    @property
    def cars(self):
        """Names of the objects that may move: vehicles by their names."""
        return tuple(sorted(filter(is_car_name, self.scene.objects), key=_natural))


def load_scene(name, carrier_frequency, *, ground=None):
    """Loads a scene of Sionna RT, of this project, or from a Mitsuba XML file.

    Sionna RT makes one object of all shapes of a material. Ground and vehicles are kept apart
    whatever their material, so that open ground can be told from roofs and cars can be moved.

    Args:
        name: What `lwmt_sionna.rt.scene_names.resolve_scene` takes: one of `SCENES`, the name of a
            folder in `scenes/`, or the path of a scene's XML file.
        carrier_frequency: Carrier frequency in hertz; the radio materials are evaluated there.
        ground: Name of the object users stand on. By default every level object whose name has the
            word "ground", "terrain", "plane", "floor" or "road".

    Returns:
        A `LoadedScene`.

    Raises:
        ValueError: If the scene is unknown, or no ground object is found in it.
    """
    file = resolve_scene(name)
    identifiers = shape_identifiers(file.path)
    apart = [
        identifier
        for identifier, label in identifiers.items()
        if label == ground or is_ground_name(label) or is_car_name(label)
    ]
    pattern = "|".join(map(re.escape, apart))
    scene = sionna_rt.load_scene(
        str(file.path), merge_shapes_exclude_regex=f"^(?:{pattern})$" if apart else None
    )
    scene.frequency = carrier_frequency
    if ground is not None:
        ground_names = [key for key in scene.objects if key == ground]
    else:
        ground_names = [k for k in scene.objects if is_ground_name(k) and _is_level(scene, k)]
    if not ground_names:
        raise ValueError(
            "No ground object was found in the scene; name one with `ground`, or have the word "
            "ground in its name. Its objects are "
            f"{', '.join(list(identifiers.values())[:20])}. Received: name={name}, ground={ground}"
        )
    ids = tuple(int(scene.objects[key].object_id) for key in ground_names)
    return LoadedScene(scene=scene, name=file.name, ground_ids=ids)


def shape_identifiers(path):
    """Identifiers of the shapes of an XML file, and the names Sionna RT gives their objects.

    Args:
        path: Path of the XML file.

    Returns:
        dict from identifier to name, in the file's order.

    Raises:
        ValueError: If the file is no XML.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"The scene is no XML: {error}. Received: path={path}") from error
    identifiers = [shape.get("id", "") for shape in root.iter("shape")]
    return {each: each.removeprefix("mesh-") for each in identifiers if each}


def _is_level(scene, name):
    """Whether most of an object's surface lies flat; a "Road House" has walls."""
    mesh = scene.objects[name].mi_mesh
    corners = np.array(mesh.vertex_positions_buffer()).reshape(-1, 3)
    corners = corners[np.array(mesh.faces_buffer()).reshape(-1, 3)].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=-1)
    return np.abs(normal[:, 2]).sum() > 0.7 * area.sum()


def _natural(name):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def drop_to_ground(loaded, xy):
    """Looks straight down at points of the map.

    Args:
        loaded: `LoadedScene`.
        xy: Horizontal coordinates in metres, float `[num_points, 2]`.

    Returns:
        Tuple of the height in metres of what is hit first from above, float `[num_points]`, and
        whether that is open ground, bool `[num_points]`.
    """
    xy = np.asarray(xy, dtype=np.float32)
    _, upper = loaded.bounds
    origin = np.column_stack([xy, np.full(len(xy), upper[2] + 10.0, np.float32)])
    down = np.broadcast_to(np.array([0.0, 0.0, -1.0], np.float32), origin.shape)
    distance, shape = cast_rays(loaded, origin, down)
    valid = np.isfinite(distance)
    height = np.where(valid, origin[:, 2] - distance, np.nan)
    return height, valid & np.isin(shape, loaded.ground_ids)


def segment_is_free(loaded, start, stop):
    """Whether the straight segments from `start` to `stop` cross no surface.

    Args:
        loaded: `LoadedScene`.
        start: Points in metres, float `[num_segments, 3]`.
        stop: Points in metres, float `[num_segments, 3]`.

    Returns:
        bool `[num_segments]`.
    """
    start = np.asarray(start, dtype=np.float32)
    offset = np.asarray(stop, dtype=np.float32) - start
    length = np.linalg.norm(offset, axis=-1)
    direction = offset / np.maximum(length, 1e-9)[:, None]
    rays = _rays(start, direction, length)
    return ~np.array(loaded.scene.mi_scene.ray_test(rays), dtype=bool)


def cast_rays(loaded, origin, direction):
    """What rays meet first.

    Args:
        loaded: `LoadedScene`.
        origin: Points in metres, float `[num_rays, 3]`.
        direction: Unit vectors, float `[num_rays, 3]`.

    Returns:
        Tuple of the distance in metres, float `[num_rays]`, infinite where nothing is met, and
        the identifier of the shape that is met, uint32 `[num_rays]`.
    """
    rays = _rays(np.asarray(origin, np.float32), np.asarray(direction, np.float32))
    hit = loaded.scene.mi_scene.ray_intersect(rays)
    shape = np.array(drjit.reinterpret_array(mitsuba.UInt32, hit.shape))
    return np.where(np.array(hit.is_valid(), dtype=bool), np.array(hit.t), np.inf), shape


def _rays(origin, direction, length=None):
    ray = mitsuba.Ray3f(
        mitsuba.Point3f(*[mitsuba.Float(np.ascontiguousarray(c)) for c in origin.T]),
        mitsuba.Vector3f(*[mitsuba.Float(np.ascontiguousarray(c)) for c in direction.T]),
    )
    if length is not None:
        ray.maxt = mitsuba.Float(np.ascontiguousarray(length, dtype=np.float32))
    return ray
