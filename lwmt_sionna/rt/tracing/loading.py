"""Loaded scenes, and what their geometry says about outdoor ground."""

import contextlib
import dataclasses
import re
from typing import Any, Literal

import numpy as np

from lwmt_sionna.rt.scenes.files import (
    SceneXML,
    ShapeEntry,
    is_car_name,
    is_ground_name,
    read_scene_xml,
    resolve_scene,
)
from lwmt_sionna.rt.scenes.meshes import Mesh, read_mesh
from lwmt_sionna.rt.tracing.engine import drjit, mitsuba, sionna_rt
from lwmt_sionna.runs.command_line import natural_order
from lwmt_sionna.runs.configuration import Config, PositiveInt, Share
from lwmt_sionna.typing import Array, ArrayLike, PathLike

# Among materials that scatter: those that are not named.
ALL_MATERIALS = "all"

# Float32 tells 0.02 mm apart at 250 m, a thousandth of a turn at 15 GHz: scenes that keep further
# off the origin than this, such as those in map coordinates, are moved.
_FARTHEST = 50.0


@dataclasses.dataclass(frozen=True)
class Scattering(Config):
    """How a material scatters: of the reflected power a share of `coefficient ** 2`, diffusely.

    What is mirrored keeps the rest: its amplitude falls by `sqrt(1 - coefficient ** 2)`.

    Attributes:
        coefficient: Scattering coefficient S.
        pattern: "lambertian"; "directive", a lobe around the mirrored direction; or
            "backscattering", that lobe and another back to where the wave came from.
        alpha_r: Exponent of the lobe around the mirrored direction: larger is narrower.
        alpha_i: Exponent of the lobe back.
        lobe_share: Share of the lobe around the mirrored direction in a "backscattering" pattern,
            Sionna's `lambda_`.
        xpd_coefficient: Share of the scattered power whose polarisation is crossed.

    Reference:
        V. Degli-Esposti et al., "Measurement and modelling of scattering from buildings", IEEE
        Trans. Antennas Propag., 2007.
    """

    coefficient: Share
    pattern: Literal["lambertian", "directive", "backscattering"] = "lambertian"
    alpha_r: PositiveInt = 4
    alpha_i: PositiveInt = 4
    lobe_share: Share = 0.5
    xpd_coefficient: Share = 0.0

    def _apply(self, material: Any) -> None:
        material.scattering_coefficient = self.coefficient
        material.xpd_coefficient = self.xpd_coefficient
        if self.pattern == "lambertian":
            material.scattering_pattern = sionna_rt.LambertianPattern()
        elif self.pattern == "directive":
            material.scattering_pattern = sionna_rt.DirectivePattern(self.alpha_r)
        else:
            material.scattering_pattern = sionna_rt.BackscatteringPattern(
                self.alpha_r, self.alpha_i, self.lobe_share
            )


@dataclasses.dataclass(frozen=True)
class LoadedScene:
    """A Sionna RT scene with its name and the objects that make up its ground.

    Everything that is asked of it, and said by it, is in the coordinates of the scene's file. The
    scene inside is moved to a local origin where those are large, because Sionna RT computes in
    float32.

    Attributes:
        scene: `sionna.rt.Scene`, in local coordinates: those of the file less `origin`.
        name: Name of the scene.
        ground_ids: Shape identifiers (as Mitsuba's intersections report them) of the ground.
        origin: Where the local origin lies, metres, float `[3]`; zeros where nothing was moved.
    """

    scene: Any
    name: str
    ground_ids: tuple[int, ...]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """`(lower, upper)` corners of the scene, each float64 `[3]`, in metres."""
        box = self.scene.mi_scene.bbox()
        lower, upper = (np.ravel(np.array(corner, np.float64)) for corner in (box.min, box.max))
        return lower + self.origin, upper + self.origin

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects of the scene."""
        return tuple(self.scene.objects)

    @property
    def ground(self) -> list[str]:
        """Names of the objects that users stand on."""
        objects = self.scene.objects.items()
        return [name for name, each in objects if int(each.object_id) in self.ground_ids]

    @property
    def cars(self) -> tuple[str, ...]:
        """Names of the objects that may move: vehicles by their names."""
        return tuple(sorted(filter(is_car_name, self.scene.objects), key=natural_order))

    def local(self, places: ArrayLike) -> Array:
        """Places in the coordinates of the scene inside, float64 `[..., 3]`, metres."""
        return np.asarray(places, dtype=np.float64) - self.origin

    def vertices_of(self, name: str) -> Array:
        """Corners of an object of the scene in metres, float64 `[num_vertices, 3]`."""
        return mesh_of(self.scene.objects[name].mi_mesh).vertices + self.origin

    def drop_to_ground(self, xy: ArrayLike) -> tuple[Array, Array]:
        """Looks straight down at points of the map, in metres, float `[num_points, 2]`.

        Tuple of the height in metres of what is hit first from above, float64 `[num_points]`, NaN
        where there is nothing, and whether that is open ground, bool `[num_points]`.
        """
        xy = np.asarray(xy, dtype=np.float64)
        # Whole metres are exact in float32.
        origin = np.column_stack([xy, np.full(len(xy), np.ceil(self.bounds[1][2]) + 10.0)])
        distance, shape = self.cast_rays(origin, np.broadcast_to([0.0, 0.0, -1.0], origin.shape))
        valid = np.isfinite(distance)
        height = np.where(valid, origin[:, 2] - distance, np.nan)
        return height, valid & np.isin(shape, self.ground_ids)

    def segment_is_free(self, start: ArrayLike, stop: ArrayLike) -> Array:
        """Whether segments between points in metres, `[num_segments, 3]`, cross no surface.

        bool `[num_segments]`.
        """
        start = self.local(start).astype(np.float32)
        offset = self.local(stop).astype(np.float32) - start
        length = np.linalg.norm(offset, axis=-1)
        rays = _rays(start, offset / np.maximum(length, 1e-9)[:, None], length)
        return ~np.array(self.scene.mi_scene.ray_test(rays), dtype=bool)

    def cast_rays(self, origin: ArrayLike, direction: ArrayLike) -> tuple[Array, Array]:
        """What rays from points in metres along unit vectors, each `[num_rays, 3]`, meet first.

        Tuple of the distance in metres, float `[num_rays]`, infinite where nothing is met, and the
        identifier of the shape that is met, uint32 `[num_rays]`.
        """
        rays = _rays(self.local(origin).astype(np.float32), np.asarray(direction, np.float32))
        hit = self.scene.mi_scene.ray_intersect(rays)
        shape = np.array(drjit.reinterpret_array(mitsuba.UInt32, hit.shape))
        return np.where(np.array(hit.is_valid(), dtype=bool), np.array(hit.t), np.inf), shape


def load_scene(
    name: PathLike,
    carrier_frequency: float,
    *,
    ground: str | None = None,
    scattering: dict[str, Scattering] | None = None,
) -> LoadedScene:
    """Loads a scene of Sionna RT, of this project, or from a Mitsuba XML file.

    Sionna RT makes one object of all shapes of a material. Ground and vehicles are kept apart
    whatever their material, so that open ground can be told from roofs and cars can be moved. A
    scene in map coordinates is moved to a local origin, see `LoadedScene`.

    Args:
        name: What `resolve_scene` takes: one of `SCENES`, the name of a folder in `scenes/`, or the
            path of a scene's XML file.
        carrier_frequency: Carrier frequency in hertz; the radio materials are evaluated there.
        ground: Name of the object users stand on. By default every level object whose name has the
            word "ground", "terrain", "plane", "floor" or "road".
        scattering: `Scattering` of materials by their names in Sionna RT, and of all others under
            `"all"`. Materials that are not told keep what the scene's file says of them.

    Raises:
        ValueError: If the scene is unknown, one of its files is damaged, Sionna RT does not load
            it, no ground object is found in it, or it has no such material.
    """
    file = resolve_scene(name)
    entries = read_scene_xml(file.path)
    if "" in entries.materials:
        raise ValueError(f"A material of the scene has no id. Received: path={file.path}")
    for shape in entries.shapes:
        # What Mitsuba does with a damaged mesh is not for the process to find out.
        if shape.mesh is not None and shape.kind in ("ply", "obj"):
            read_mesh(shape.mesh)
    apart = [
        each.identifier
        for each in entries.shapes
        if each.identifier
        and (each.name == ground or is_ground_name(each.name) or is_car_name(each.name))
    ]
    pattern = "|".join(map(re.escape, apart))
    exclude = f"^(?:{pattern})$" if apart else None
    with _told(file.path):
        scene = _load(entries, (0.0, 0.0, 0.0), exclude)
        origin = _local_origin(scene.mi_scene.bbox())
        if any(origin):
            scene = _load(entries, origin, exclude)
        scene.frequency = carrier_frequency
    _scatter(scene, file.name, {} if scattering is None else scattering)
    ground_names = [key for key in scene.objects if key == ground]
    if ground is None:
        ground_names = [k for k in scene.objects if is_ground_name(k) and _is_level(scene, k)]
    if not ground_names:
        raise ValueError(
            "No ground object was found in the scene; name one with `ground`, or have the word "
            "ground in its name. Its objects are "
            f"{', '.join([each.name for each in entries.shapes][:20])}. Received: name={name}, "
            f"ground={ground}"
        )
    ids = tuple(int(scene.objects[key].object_id) for key in ground_names)
    return LoadedScene(scene=scene, name=file.name, ground_ids=ids, origin=origin)


def load_shapes(entries: SceneXML) -> list[tuple[ShapeEntry, Any]]:
    """The shapes of a scene as Sionna RT reads them, none merged with another.

    Returns:
        list of pairs of what the file says of a shape, and the `mitsuba.Shape`; only triangle
        meshes (`mitsuba.Mesh`) can be traced.

    Raises:
        ValueError: If Mitsuba does not load the scene.
    """
    with _told(entries.path):
        text = sionna_rt.scene_utils.process_xml(entries.text(numbered=True), merge_shapes=False)
        shapes = mitsuba.load_string(text, optimize=False).shapes()
    known = {str(number): entry for number, entry in enumerate(entries.shapes)}
    return [(known.get(s.id(), ShapeEntry(s.id(), "included", None, None)), s) for s in shapes]


def _scatter(scene, name, scattering):
    materials = scene.radio_materials
    unknown = sorted(set(scattering) - set(materials) - {ALL_MATERIALS})
    if unknown:
        raise ValueError(
            f"There is no such material in the scene; expected some of {', '.join(materials)}, or "
            f"{ALL_MATERIALS}. Received: scattering of {', '.join(unknown)}, scene={name}"
        )
    for key, material in materials.items():
        told = scattering.get(key, scattering.get(ALL_MATERIALS))
        if told is not None:
            told._apply(material)


def mesh_of(mesh: Any) -> Mesh:
    """A mesh of Mitsuba as one in NumPy."""
    return Mesh(np.array(mesh.vertex_positions_buffer()), np.array(mesh.faces_buffer()))


@contextlib.contextmanager
def _told(path):
    """One line that names the file in place of whatever Mitsuba and Sionna RT raise."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ValueError(
            f"Sionna RT does not load the scene: {' '.join(lines)[-400:]}. Received: path={path}"
        ) from error


def _load(entries, origin, exclude):
    text = entries.text(tuple(-c for c in origin))
    return sionna_rt.scene.load_scene_from_string(text, merge_shapes_exclude_regex=exclude)


def _local_origin(box):
    """Whole metres near the middle of a box along the axes that it keeps far off zero of."""
    lower, upper = (np.ravel(np.array(corner, np.float64)) for corner in (box.min, box.max))
    is_far = (lower > _FARTHEST) | (upper < -_FARTHEST)
    return tuple(np.where(is_far, np.round((lower + upper) / 2), 0.0).tolist())


def _is_level(scene, name):
    """Whether most of an object's surface lies flat; a "Road House" has walls."""
    normals = mesh_of(scene.objects[name].mi_mesh).normals
    return np.abs(normals[:, 2]).sum() > 0.7 * np.linalg.norm(normals, axis=-1).sum()


def _rays(origin, direction, length=None):
    ray = mitsuba.Ray3f(
        mitsuba.Point3f(*[mitsuba.Float(np.ascontiguousarray(c)) for c in origin.T]),
        mitsuba.Vector3f(*[mitsuba.Float(np.ascontiguousarray(c)) for c in direction.T]),
    )
    if length is not None:
        ray.maxt = mitsuba.Float(np.ascontiguousarray(length, dtype=np.float32))
    return ray
