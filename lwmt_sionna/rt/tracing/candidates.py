"""Candidate paths found for a few positions and tested exactly for many.

Sionna RT's path solver works in two stages. It shoots rays, bounces them through the scene and
notes for every receiver which sequences of surfaces and edges could make up a path; a receiver
notes a sequence only if it sees a point where a ray happened to hit. Then the image method works
out the exact path of each candidate, or discards it. Nearly all of the time goes into the first
stage, and its chance hits make paths come and go along a track where geometry does not. Here rays
are shot for some positions, and all positions of the track test what was found: births and deaths
of those paths are then decided by the image method, that is by geometry, for less time.
"""

import math
from typing import Any

import numpy as np

from lwmt_sionna.rt.tracing.engine import DETERMINISTIC, drjit, mitsuba, set_directions, sionna_rt
from lwmt_sionna.rt.tracing.loading import mesh_of
from lwmt_sionna.typing import Array, ArrayLike

INTERACTION = sionna_rt.constants.InteractionType
_INVALID = 0xFFFFFFFF
# Faces belong to one plane when normals and offsets agree to these, as in Sionna RT's own hashes.
_NORMAL_STEP = 1e-5
_OFFSET_STEP = 1e-3
_EDGE_STEP = 1e-3
# Arrays of a paths buffer along its depth, and what stands where there is no interaction.
_TENSORS = (
    ("_interaction_types", mitsuba.TensorXu, int(INTERACTION.NONE)),
    ("_shapes", mitsuba.TensorXu, _INVALID),
    ("_primitives", mitsuba.TensorXu, _INVALID),
    ("_vertices_x", mitsuba.TensorXf, 0.0),
    ("_vertices_y", mitsuba.TensorXf, 0.0),
    ("_vertices_z", mitsuba.TensorXf, 0.0),
    ("_probs", mitsuba.TensorXf, 0.0),
)
# The deterministic generator of Sionna RT takes some 40 bytes for every ray, interaction and
# receiver: tests of a solve's part.
_MOST_TESTS = 100_000_000
# Arrays of its buffer along the paths.
_PER_PATH = (
    "_valid",
    "_src_indices",
    *(f"_k_{end}_{axis}" for end in ("tx", "rx") for axis in "xyz"),
)


class FaceGroups:
    """For every face of a scene's meshes, the largest face in the same plane of the same mesh.

    Which of several coplanar faces a ray hits is chance; the largest one stands for all of them,
    because its normal is the least rounded one. Rigid motion of an object changes nothing here.
    The scene is a `sionna.rt.Scene`.
    """

    def __init__(self, scene: Any) -> None:
        self._rank = {}
        self._first = {}
        faces, count = [], 0
        for rank, name in enumerate(sorted(scene.objects)):
            item = scene.objects[name]
            group = _largest_coplanar_face(item.mi_mesh)
            self._rank[int(item.object_id)] = rank
            self._first[int(item.object_id)] = count
            faces.append(group)
            count += len(group)
        self._faces = np.concatenate(faces) if faces else np.zeros(0, np.uint32)

    def rank(self, objects: Array) -> Array:
        """Place of objects in the order of their names: the same in every process.

        int64 of the shape of the identifiers; -1 for what is no object of the scene.
        """
        return self._look_up(objects, self._rank, -1)

    def representative(self, objects: Array, faces: Array) -> Array:
        """The face that stands for the plane of each face.

        uint32 of the shape of the identifiers of objects and indices of their faces; those of no
        object unchanged.
        """
        first = self._look_up(objects, self._first, -1)
        index = np.where(first >= 0, first + faces.astype(np.int64), 0)
        return np.where(first >= 0, self._faces[index], faces).astype(np.uint32)

    @staticmethod
    def _look_up(objects: Array, table: dict[int, int], missing: int) -> Array:
        unique, inverse = np.unique(objects, return_inverse=True)
        found = np.array([table.get(int(key), missing) for key in unique], dtype=np.int64)
        return found[inverse].reshape(np.shape(objects))


def _largest_coplanar_face(mesh):
    mesh = mesh_of(mesh)
    normal = mesh.normals
    double_area = np.linalg.norm(normal, axis=1)
    normal /= np.maximum(double_area, np.finfo(np.float64).tiny)[:, None]
    # Both sides of a plane are the same mirror.
    leading = np.argmax(np.abs(normal) > 1e-4, axis=1)
    normal *= np.sign(np.take_along_axis(normal, leading[:, None], 1) + (double_area == 0)[:, None])
    offset = np.sum(normal * mesh.corners[:, 0], axis=1)
    key = np.column_stack([np.round(normal / _NORMAL_STEP), np.round(offset / _OFFSET_STEP)])
    _, plane = np.unique(key, axis=0, return_inverse=True)
    # Among the faces of a plane the last one in this order is the largest.
    order = np.lexsort((double_area, plane.ravel()))
    last = np.zeros(plane.max(initial=-1) + 1, dtype=np.uint32)
    last[plane.ravel()[order]] = order
    return last[plane.ravel()]


class PooledCandidates:
    """Stands in for the candidate generator of a path solver: few positions shoot, all test.

    Args:
        generator: The solver's own `SBCandidateGenerator`.
        groups: `FaceGroups` of the scene.
        shooters: Indices of the receivers that rays are shot for, integer `[num_shooters]`.
        listens: bool `[num_receivers, num_shooters]`: whose candidates each receiver tests.
    """

    def __init__(
        self, generator: Any, groups: FaceGroups, shooters: ArrayLike, listens: ArrayLike
    ) -> None:
        self._generator = generator
        self._groups = groups
        self._shooters = np.asarray(shooters)
        self._listens = np.asarray(listens, dtype=bool)

    def __call__(
        self,
        *,
        mi_scene: Any,
        src_positions: Any,
        tgt_positions: Any,
        los: bool,
        max_num_paths_per_src: int,
        **settings: Any,
    ) -> Any:
        index = mitsuba.UInt(self._shooters.astype(np.uint32))
        found = _shoot(
            self._generator,
            mi_scene=mi_scene,
            src_positions=src_positions,
            tgt_positions=drjit.gather(mitsuba.Point3f, tgt_positions, index),
            los=False,
            max_num_paths_per_src=max_num_paths_per_src,
            **settings,
        )
        found.shrink()
        _settle_planes(found, self._groups)
        rows, targets = self._assign(found)
        sees, direction = _line_of_sight(mi_scene, src_positions, tgt_positions, los)
        return _expand(found, rows, targets, sees, direction)

    def _assign(self, found):
        """Rows of the found candidates, and the receiver that each is to be tested for."""
        if found.buffer_size == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        first, identity = _identify(found, self._groups)
        shooter = np.array(found.target_indices)
        known = [np.unique(identity[shooter == s]) for s in range(len(self._shooters))]
        rows, targets = [], []
        patterns, pattern = np.unique(self._listens, axis=0, return_inverse=True)
        for number, heard in enumerate(patterns):
            listeners = np.nonzero(pattern.ravel() == number)[0]
            pool = [known[s] for s in np.nonzero(heard)[0]]
            candidates = first[np.unique(np.concatenate(pool))] if pool else first[:0]
            rows.append(np.tile(candidates, len(listeners)))
            targets.append(np.repeat(listeners, len(candidates)))
        return np.concatenate(rows), np.concatenate(targets)


class CheckedCandidates:
    """The candidates of the solver's own `SBCandidateGenerator`, and a word when room was short."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def __call__(self, **settings: Any) -> Any:
        return _shoot(self._generator, **settings)


class ScatteredCandidates(CheckedCandidates):
    """The solver's own candidates whose last interaction is a diffuse reflection.

    Where a ray is scattered is drawn with the rays of the base station, whoever listens: all
    receivers, of other solves too, see the same scattering points, and what they see is coherent.
    Of the paths that are mirrored after they were scattered, Sionna RT keeps one for each sequence
    of mirrors and receiver, a ray that chance chooses: they are coherent with nothing, and are left
    out.
    """

    def __call__(self, **settings: Any) -> Any:
        found = super().__call__(**settings)
        found.shrink()
        # Without a line of sight, what is valid already ends at a scattering point.
        found.discard_invalid()
        found._paths_counter = mitsuba.UInt(found.buffer_size)
        return found


def _shoot(generator, *, tgt_positions, max_num_paths_per_src, **settings):
    """Candidates of the solver's own generator, by parts of the receivers where they are many."""
    num_receivers = drjit.width(tgt_positions)
    rays = settings["samples_per_src"] * max(1, settings["max_depth"])
    most = max(1, _MOST_TESTS // rays) if DETERMINISTIC else num_receivers
    # Parts of one size share their kernels.
    size = math.ceil(num_receivers / math.ceil(num_receivers / most))
    parts = []
    for begin in range(0, num_receivers, size):
        index = drjit.arange(mitsuba.UInt, begin, min(begin + size, num_receivers))
        aims = drjit.gather(mitsuba.Point3f, tgt_positions, index)
        drjit.make_opaque(aims)
        found = generator(
            tgt_positions=aims, max_num_paths_per_src=max_num_paths_per_src, **settings
        )
        found.schedule()
        drjit.eval()
        _check_room(found, max_num_paths_per_src)
        parts.append((begin, found))
    return parts[0][1] if len(parts) == 1 else _join(parts)


def _join(parts):
    """One buffer of the paths of several, and of their receivers one after the other."""
    for _, part in parts:
        part.shrink()
    first = parts[0][1]
    has_wedges = first.diffracting_wedges is not None
    joined = type(first)(sum(p.buffer_size for _, p in parts), first.max_depth, has_wedges)
    joined._paths_counter = mitsuba.UInt(joined.buffer_size)
    depths, row = joined.depth_dim_size, 0
    for begin, part in parts:
        size = part.buffer_size
        rows = drjit.arange(mitsuba.UInt, row, row + size)
        for name in _PER_PATH:
            drjit.scatter(getattr(joined, name), getattr(part, name), rows)
        drjit.scatter(joined._tgt_indices, part.target_indices + begin, rows)
        if has_wedges:
            drjit.scatter(joined._diffracting_wedges, part.diffracting_wedges, rows)
        entries = drjit.arange(mitsuba.UInt, row * depths, (row + size) * depths)
        for name, _, _ in _TENSORS:
            drjit.scatter(getattr(joined, name).array, getattr(part, name).array, entries)
        row += size
    joined.schedule()
    drjit.eval()
    return joined


def _check_room(found, room):
    num_found = int(np.max(np.array(found.paths_counter)))
    if num_found >= room:
        raise CandidateOverflow(f"{num_found} candidates were found, room is for {room}")


class CandidateOverflow(Exception):
    """More candidates were found than there was room for; those beyond are lost."""


def _settle_planes(found, groups):
    """Describes every mirror by its largest face in place of the point that a ray hit."""
    size = found.buffer_size
    if size == 0:
        return
    mirrored = _table(found.interaction_types, size) == INTERACTION.SPECULAR
    shape = np.where(mirrored, _table(found.shapes, size), _INVALID)
    face = groups.representative(shape, _table(found.primitives, size))
    found._primitives = mitsuba.TensorXu(mitsuba.UInt(face.ravel()), shape=face.shape)
    for depth in range(1, mirrored.shape[1] + 1):
        at = drjit.full(mitsuba.UInt, depth, size)
        active = mitsuba.Bool(mirrored[:, depth - 1])
        corner, _, _ = found.get_primitive_props(
            at, return_normal=False, return_vertices=True, active=active
        )
        found.set_vertex(at, corner, active)


def _table(tensor, size):
    return np.array(tensor.array).reshape(size, -1)


def _identify(found, groups):
    """First row of every distinct candidate, and the distinct candidate of every row."""
    size = found.buffer_size
    kind = _table(found.interaction_types, size)
    shape = _table(found.shapes, size)
    face = _table(found.primitives, size)
    mirrored = kind == INTERACTION.SPECULAR
    # A transmission bends no path, whatever it passes; an edge is told by its ends below.
    columns = [
        kind,
        np.where(mirrored, groups.rank(np.where(mirrored, shape, _INVALID)), 0),
        np.where(mirrored, face, 0),
    ]
    bent = (kind == INTERACTION.DIFFRACTION).any(axis=1)
    if bent.any():
        wedges = found.diffracting_wedges
        # Where nothing is bent the edge is not initialised.
        start = np.where(bent[:, None], np.array(wedges.o).T.astype(np.float64), 0.0)
        along = np.where(bent[:, None], np.array(wedges.e_hat).T.astype(np.float64), 0.0)
        stop = start + along * np.where(bent, np.array(wedges.length), 0.0)[:, None]
        ends = np.round(np.stack([start, stop], axis=1) / _EDGE_STEP).astype(np.int64)
        # Either end may come first: the first coordinate that differs decides.
        delta = ends[:, 0] - ends[:, 1]
        leading = np.argmax(delta != 0, axis=1)[:, None]
        swap = np.take_along_axis(delta, leading, 1)[:, 0] > 0
        ends[swap] = ends[swap][:, ::-1]
        columns.append(ends.reshape(size, 6))
    key = np.column_stack(columns).astype(np.int64)
    order = np.arange(size)
    if bent.any():
        # Edges of several walls may coincide. Threads decide which wedge stands at the first row;
        # taking the one of the lowest faces makes less of that chance.
        order = np.lexsort((np.array(wedges.primn), np.array(wedges.prim0)))
    _, first, identity = np.unique(key[order], axis=0, return_index=True, return_inverse=True)
    return order[first], identity.ravel()[np.argsort(order)]


def _line_of_sight(mi_scene, source, targets, wanted):
    """Indices of the receivers in sight of the source, and the directions to them."""
    if not wanted:
        return np.zeros(0, np.int64), mitsuba.Vector3f(0)
    ray = sionna_rt.utils.spawn_ray_to(drjit.repeat(source, drjit.width(targets)), targets)
    free = ~np.array(mi_scene.ray_test(ray), dtype=bool)
    free &= np.array(drjit.norm(targets - ray.o)) > sionna_rt.constants.MIN_SEGMENT_LENGTH
    return np.nonzero(free)[0], ray.d


def _expand(found, rows, targets, sees, direction):
    """A buffer of one candidate per row and receiver, and of the paths in line of sight."""
    size = len(rows) + len(sees)
    depths = found.depth_dim_size
    buffer = type(found)(size, found.max_depth, found.diffracting_wedges is not None)
    buffer._paths_counter = mitsuba.UInt(size)
    if size == 0:
        return buffer
    is_candidate = np.arange(size) < len(rows)
    target = mitsuba.UInt(np.concatenate([targets, sees]).astype(np.uint32))
    buffer._valid = mitsuba.Bool(~is_candidate)
    buffer._src_indices = drjit.zeros(mitsuba.UInt, size)
    buffer._tgt_indices = target
    if len(sees):
        set_directions(buffer, drjit.gather(mitsuba.Vector3f, direction, target))
    if len(rows):
        row = mitsuba.UInt(np.concatenate([rows, np.zeros(len(sees))]).astype(np.uint32))
        active = mitsuba.Bool(is_candidate)
        entry = drjit.repeat(row, depths) * depths
        entry += drjit.tile(drjit.arange(mitsuba.UInt, depths), size)
        entry_active = drjit.repeat(active, depths)
        for name, kind, empty in _TENSORS:
            inner = drjit.array_t(kind)
            values = drjit.gather(inner, getattr(found, name).array, entry, entry_active)
            values = drjit.select(entry_active, values, inner(empty))
            setattr(buffer, name, kind(values, shape=(size, depths)))
        if found.diffracting_wedges is not None:
            wedges = found.diffracting_wedges
            buffer._diffracting_wedges = drjit.gather(type(wedges), wedges, row, active)
    return buffer
