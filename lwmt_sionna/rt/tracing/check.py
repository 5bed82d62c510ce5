"""Whether a scene is fit for tracing, and what is wrong with it, in words."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lwmt_sionna.rt.motion.ground import ground_map
from lwmt_sionna.rt.scenes.files import is_ground_name, read_scene_xml, resolve_scene
from lwmt_sionna.rt.scenes.meshes import join, read_mesh, winding_number
from lwmt_sionna.rt.tracing.engine import mitsuba, sionna_rt
from lwmt_sionna.rt.tracing.loading import load_scene, load_shapes, mesh_of
from lwmt_sionna.rt.tracing.show import coverage_map, open_share
from lwmt_sionna.typing import ArrayLike, PathLike

OK, NOTE, WARNING, FAULT = "ok", "note", "warning", "fault"
_UNITS = {1e-3: "millimetres", 1e3: "kilometres", 1e-2: "centimetres"}
# What is plausible, in metres: horizontal extent of a scene and height of what stands in it, height
# of a base station over the ground or roof below it, distance to a wall that carries one.
_EXTENT, _HEIGHT, _MAST, _BRACKET = (40.0, 20_000.0), (2.0, 1_000.0), 35.0, 3.0
# Faces below this area count as none, square metres; so large a share of edges between faces that
# look to opposite sides is a fault; coverage is looked at up to this distance in metres.
_SMALLEST_AREA, _MISWOUND_SHARE, _RADIUS = 1e-7, 0.01, 200.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        check: What was looked at: "path", "meshes", "materials", "faces", "load", "ground",
            "units", "origin", "base station" or "coverage".
        level: "ok", "note", "warning" or "fault".
        text: What was found and, unless it is well, what to do about it.
    """

    check: str
    level: str
    text: str


@dataclasses.dataclass(frozen=True)
class SceneReport:
    """What `check_scene` found.

    Attributes:
        name: Name of the scene.
        findings: list of `Finding`.
        coverage: list of dict, one per base station: `base_station`, `covered_share`,
            `median_gain_db`; and of the map `ground` (`GroundMap`) and `gain_db`.
    """

    name: str
    findings: list[Finding]
    coverage: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def is_fit(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    @property
    def faults(self) -> list[Finding]:
        """list of the findings that are faults."""
        return [finding for finding in self.findings if finding.level == FAULT]


def check_scene(
    name: PathLike,
    carrier_frequency: float,
    base_stations: Sequence[ArrayLike] = (),
    *,
    coverage: bool = True,
) -> SceneReport:
    """Checks a scene before anything is traced in it.

    Looks at the path, meshes, materials at the carrier, faces, ground, units, and at each base
    station: that it stands within the scene, in no wall, on something, and covers open ground.

    Args:
        name: What `resolve_scene` takes.
        carrier_frequency: Hertz.
        base_stations: Positions in metres, float `[num_base_stations, 3]`.
        coverage: Whether to compute coverage maps of the base stations.

    Raises:
        ValueError: If there is no such scene.
    """
    file = resolve_scene(name)
    findings = [_check_path(file)]
    try:
        entries = read_scene_xml(file.path)
    except ValueError as error:
        return SceneReport(file.name, [*findings, Finding("load", FAULT, str(error))])
    findings += _check_meshes(entries)
    findings += _check_materials(entries, carrier_frequency)
    report = SceneReport(file.name, findings)
    if report.faults and any(f.check in ("meshes", "materials") for f in report.faults):
        return report
    try:
        findings += _check_shapes(load_shapes(entries))
        if any(finding.check == "meshes" for finding in report.faults):
            return report
        loaded = load_scene(file.path, carrier_frequency)
    except ValueError as error:
        findings.append(_explain_load(error, file, entries))
        return report
    findings.append(Finding("load", OK, "Sionna RT loads it"))
    findings += [_check_ground(loaded), _check_units(loaded.bounds), *_check_origin(loaded)]
    places = np.asarray(base_stations, dtype=np.float64).reshape(-1, 3)
    walls = _walls(loaded) if len(places) else None
    for place in places:
        level, text = _check_base_station(loaded, walls, place)
        label = f"({', '.join(f'{c:g}' for c in place)})"
        findings.append(Finding("base station", level, f"{label} {text}"))
        if coverage and not report.faults:
            findings.append(_check_coverage(loaded, place, report))
    return report


def _check_path(file):
    own = (file.path.name, file.path.parent.name)
    if any(" " in part for part in own):
        text = (
            f"the path of the scene has spaces ({'/'.join(own[::-1])}): Sionna RT reads it, but "
            "command lines, make and the launchers of clusters cut it in two; rename it"
        )
        return Finding("path", FAULT, text)
    if " " in str(file.path):
        return Finding("path", WARNING, f"a folder above the scene has spaces: {file.path.parent}")
    return Finding("path", OK, "no spaces")


def _check_meshes(entries):
    if not entries.shapes:
        return [Finding("meshes", FAULT, "the scene has no shapes")]
    faults = []
    missing = [s for s in entries.shapes if s.mesh is not None and not s.mesh.is_file()]
    if missing:
        faults.append(
            f"{len(missing)} of {len(entries.shapes)} meshes are missing, the first is "
            f"{missing[0].mesh} of the shape {missing[0].name}; export again with meshes/ beside "
            "the XML file"
        )
    for shape in entries.shapes:
        if shape.mesh is not None and shape.mesh.is_file() and shape.kind in ("ply", "obj"):
            try:
                read_mesh(shape.mesh)
            except ValueError as error:
                faults.append(str(error))
    spaced = [s for s in entries.shapes if s.mesh is not None and " " in s.mesh.name]
    if spaced:
        faults.append(f"names of meshes have spaces, such as {spaced[0].mesh.name}; rename them")
    if faults:
        return [Finding("meshes", FAULT, text) for text in faults]
    return [Finding("meshes", OK, f"{len(entries.shapes)} shapes, all meshes present")]


def _check_materials(entries, carrier_frequency):
    table = sionna_rt.radio_materials.itu.ITU_MATERIALS_PROPERTIES
    faults = [
        f"a material of type {material.plugin} has no id, which Sionna RT does not load"
        for material in entries.materials.values()
        if not material.name
    ]
    used: dict[str | None, list[str]] = {}
    for shape in entries.shapes:
        used.setdefault(shape.material, []).append(shape.name)
    for identifier, shapes in used.items():
        where = f"of the shape {shapes[0]}" + (f" and {len(shapes) - 1} more" * (len(shapes) > 1))
        material = entries.materials.get(identifier)
        if identifier == "":
            continue
        if material is None:
            faults.append(f"the material {identifier!r} {where} is not defined in the file")
        elif material.plugin == "itu-radio-material":
            if material.itu not in table:
                faults.append(
                    f"ITU-R P.2040 has no material {material.itu!r} ({identifier}, {where}); "
                    f"expected one of {', '.join(table)}"
                )
            elif not any(a <= carrier_frequency / 1e9 <= b for a, b in table[material.itu]):
                ranges = " and ".join(f"{a:g} to {b:g} GHz" for a, b in table[material.itu])
                faults.append(
                    f"{material.itu} ({identifier}, {where}) is defined from {ranges}, not at the "
                    f"carrier of {carrier_frequency / 1e9:g} GHz; choose another material"
                )
        elif "radio-material" not in material.plugin:
            faults.append(
                f"the material {identifier!r} {where} is of type {material.plugin}, no radio "
                "material; name it itu_concrete, itu_brick, ... before the export"
            )
    if faults:
        return [Finding("materials", FAULT, text) for text in faults]
    kinds = sorted({m.itu or m.name for m in map(entries.materials.get, used)})
    return [Finding("materials", OK, f"{', '.join(kinds)} at {carrier_frequency / 1e9:g} GHz")]


def _check_shapes(shapes):
    """What Sionna RT makes of the shapes, before it merges those of a material."""
    num_faces, empty, miswound, edges, split, inward, foreign = 0, {}, {}, 0, [], [], []
    for number, (entry, shape) in enumerate(shapes):
        name = entry.name if entry.name else f"number {number + 1}"
        if not isinstance(shape, mitsuba.Mesh):
            foreign.append(f"the shape {name} is of type {entry.kind}")
            continue
        mesh = mesh_of(shape)
        num_faces += len(mesh.faces)
        empty[name] = int(np.sum(mesh.areas < _SMALLEST_AREA))
        miswound[name], shared = mesh.num_miswound_edges()
        edges += shared
        if shared and mesh.num_shared_edges < 0.5 * shared:
            split.append(f"{name} ({entry.kind})")
        closed = shared == 3 * len(mesh.faces) / 2
        if closed and not miswound[name] and mesh.volume < 0:
            inward.append(name)
    for text in foreign:
        yield Finding("meshes", FAULT, f"{text}; Sionna RT traces triangle meshes (ply, obj, cube)")
    share = sum(miswound.values()) / max(edges, 1)
    if any(empty.values()):
        text = (
            f"{sum(empty.values())} faces have no area, most of them of the shape "
            f"{max(empty, key=empty.get)}: their normals are undefined; remove them (in Blender: "
            "Mesh, Clean Up, Degenerate Dissolve)"
        )
        yield Finding("faces", FAULT, text)
    if share:
        text = (
            f"along {sum(miswound.values())} of {edges} edges ({share:.1%}) neighbouring faces "
            f"look to opposite sides, most of them of the shape {max(miswound, key=miswound.get)}: "
            "inverted normals, no diffraction there; turn them (in Blender: Mesh, Normals, "
            "Recalculate Outside)"
        )
        yield Finding("faces", FAULT if share > _MISWOUND_SHARE else WARNING, text)
    if split:
        text = (
            f"the edges of {split[0]}{f' and {len(split) - 1} more' * (len(split) > 1)} have "
            "vertices of their own on either side, so they do not diffract, as those of the same "
            "shape with common vertices would (a cube of Mitsuba always has, an OBJ file with "
            "normals too); merge vertices by distance and export PLY"
        )
        yield Finding("faces", WARNING, text)
    if inward:
        text = (
            f"{len(inward)} closed meshes look inwards, such as {inward[0]}; Sionna RT turns "
            "normals towards the ray, so nothing is lost"
        )
        yield Finding("faces", NOTE, text)
    if not (foreign or any(empty.values()) or share > _MISWOUND_SHARE):
        yield Finding("faces", OK, f"{num_faces} triangles")


def _explain_load(error, file, entries):
    if not str(error).startswith("No ground object"):
        return Finding("load", FAULT, str(error))
    named = [shape.name for shape in entries.shapes if is_ground_name(shape.name)]
    if named:
        text = (
            f"{named[0]} is named like ground but is not level: is y up in this export? In "
            "Blender's exporter choose Z up"
        )
    else:
        text = (
            f"no object is named like ground among {', '.join(s.name for s in entries.shapes[:8])}"
            f"{', ...' * (len(entries.shapes) > 8)}; name the surface users stand on 'ground' in "
            f"{file.path.name}"
        )
    return Finding("ground", FAULT, text)


def _check_ground(loaded):
    share = open_share(loaded)
    text = f"{', '.join(loaded.ground)}; {share:.0%} of the scene is open ground"
    if share < 0.01:
        return Finding("ground", FAULT, f"{text}: there is no place for users")
    return Finding("ground", OK, text)


def _check_units(bounds):
    lower, upper = bounds
    size = upper - lower
    extent, height = max(size[:2]), size[2]
    text = f"{size[0]:.4g} x {size[1]:.4g} m, {height:.4g} m high"

    def plausible(scale):
        is_wide = _EXTENT[0] <= extent * scale <= _EXTENT[1]
        return is_wide and _HEIGHT[0] <= height * scale <= _HEIGHT[1]

    if plausible(1.0):
        return Finding("units", OK, text)
    guesses = [f"{unit} (scale by {scale:g})" for scale, unit in _UNITS.items() if plausible(scale)]
    hint = f"; are these {' or '.join(guesses)}?" if guesses else ""
    return Finding("units", FAULT, f"implausible for a scene in metres: {text}{hint}")


def _check_origin(loaded):
    if not any(loaded.origin):
        return
    farthest = np.abs(loaded.bounds).max()
    step = float(np.spacing(np.float32(farthest)))
    place = ", ".join(f"{c:g}" for c in loaded.origin)
    text = (
        f"coordinates reach {farthest / 1e3:.4g} km: the scene is traced around ({place}), with "
        f"base stations and users moved alike; meshes in float32 hold vertices to {step:.2g} m "
        "there, so subtract that point before the export where walls should be more exact"
    )
    yield Finding("origin", WARNING if step > 0.01 else NOTE, text)


def _walls(loaded):
    """All of the scene but its ground, as one mesh."""
    objects = [each for name, each in loaded.scene.objects.items() if name not in loaded.ground]
    meshes = [mesh_of(each.mi_mesh).moved(loaded.origin) for each in objects]
    return join(meshes) if meshes else None


def _check_base_station(loaded, walls, place):
    """Level and text of what a base station's place is like."""
    lower, upper = loaded.bounds
    if np.any(place[:2] < lower[:2]) or np.any(place[:2] > upper[:2]):
        reach = f"({lower[0]:.0f}, {lower[1]:.0f}) to ({upper[0]:.0f}, {upper[1]:.0f})"
        return FAULT, f"lies outside of the scene, which reaches from {reach}"
    if walls is not None and abs(winding_number(walls, [place])[0]) > 0.5:
        return FAULT, "lies inside of a mesh"
    down, _ = loaded.cast_rays(place[None], [[0.0, 0.0, -1.0]])
    below = float(down[0])
    if not np.isfinite(below):
        return FAULT, "lies below the ground, or beside it"
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    around = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(64)])
    beside = float(np.min(loaded.cast_rays(np.repeat(place[None], 64, axis=0), around)[0]))
    if below > _MAST and beside > _BRACKET:
        wall = f"the next wall {beside:.0f} m off" if np.isfinite(beside) else "no wall around"
        return FAULT, (
            f"floats {below:.0f} m above what is below it, with {wall}; expected a mast of at most "
            f"{_MAST:g} m"
        )
    return OK, f"stands {below:.1f} m above what is below it"


def _check_coverage(loaded, place, report):
    ground = ground_map(loaded, 2.0, lower=place[:2] - _RADIUS, upper=place[:2] + _RADIUS)
    gain = coverage_map(loaded, place, ground)
    near = np.linalg.norm(ground.centres - place[:2], axis=-1) <= _RADIUS
    chosen = near & ground.is_open
    covered = chosen & np.isfinite(gain)
    share = float(covered.sum() / max(chosen.sum(), 1))
    median = float(np.median(gain[covered])) if covered.any() else None
    report.coverage.append(
        {
            "base_station": place.tolist(),
            "covered_share": share,
            "median_gain_db": median,
            "ground": ground,
            "gain_db": np.where(near, gain, np.nan),
        }
    )
    if median is None:
        return Finding("coverage", FAULT, f"no path reaches any open ground within {_RADIUS:g} m")
    text = f"{share:.0%} of the open ground within {_RADIUS:g} m is reached by a path"
    text += f", median path gain {median:.0f} dB"
    return Finding("coverage", OK if share > 0.05 else WARNING, text)
