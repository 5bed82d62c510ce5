"""Scenes by name or path, and what their geometry says about outdoor ground."""

import dataclasses
import pathlib

import numpy as np

from lwmt_sionna.rt._sionna import drjit, mitsuba, sionna_rt

# Sionna RT's built-in cities and streets.
SCENES = (
    "etoile",
    "florence",
    "munich",
    "san_francisco",
    "simple_street_canyon",
    "simple_street_canyon_with_cars",
)
_GROUND_WORDS = ("ground", "terrain", "plane", "floor", "road")


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


def load_scene(name, carrier_frequency, *, ground=None):
    """Loads a scene of Sionna RT, or one from a Mitsuba XML file.

    Args:
        name: One of `SCENES`, or the path of a scene's XML file.
        carrier_frequency: Carrier frequency in hertz; the radio materials are evaluated there.
        ground: Name of the object users stand on. By default every object whose name contains
            "ground", "terrain", "plane", "floor" or "road".

    Returns:
        A `LoadedScene`.

    Raises:
        ValueError: If the scene is unknown, or no ground object is found in it.
    """
    path = pathlib.Path(str(name))
    if name in SCENES:
        source, label = getattr(sionna_rt.scene, name), name
    elif path.suffix == ".xml" and path.is_file():
        source, label = str(path), path.parent.name if path.stem == "scene" else path.stem
    else:
        raise ValueError(
            f"Unknown scene. Expected one of {', '.join(SCENES)} or the path of a Mitsuba XML "
            f"file. Received: name={name}"
        )
    scene = sionna_rt.load_scene(source)
    scene.frequency = carrier_frequency
    if ground is not None:
        ground_names = [key for key in scene.objects if key == ground]
    else:
        ground_names = [k for k in scene.objects if any(w in k.lower() for w in _GROUND_WORDS)]
    if not ground_names:
        raise ValueError(
            "No ground object was found in the scene; name one with `ground`. Its objects are "
            f"{', '.join(list(scene.objects)[:20])}. Received: name={name}, ground={ground}"
        )
    ids = tuple(int(scene.objects[key].object_id) for key in ground_names)
    return LoadedScene(scene=scene, name=label, ground_ids=ids)


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
    hit = loaded.scene.mi_scene.ray_intersect(_rays(origin, down))
    shape = np.array(drjit.reinterpret_array(mitsuba.UInt32, hit.shape))
    valid = np.array(hit.is_valid(), dtype=bool)
    height = np.where(valid, np.array(hit.p.z), np.nan)
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


def _rays(origin, direction, length=None):
    ray = mitsuba.Ray3f(
        mitsuba.Point3f(*[mitsuba.Float(np.ascontiguousarray(c)) for c in origin.T]),
        mitsuba.Vector3f(*[mitsuba.Float(np.ascontiguousarray(c)) for c in direction.T]),
    )
    if length is not None:
        ray.maxt = mitsuba.Float(np.ascontiguousarray(length, dtype=np.float32))
    return ray
