"""What is in a scene, in figures and pictures: coverage, materials, a view from above."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lwmt_sionna.data.summary import map_figure
from lwmt_sionna.rt.motion.ground import GroundMap, ground_map
from lwmt_sionna.rt.scenes.files import read_scene_xml, resolve_scene
from lwmt_sionna.rt.tracing.engine import mitsuba, sionna_rt
from lwmt_sionna.rt.tracing.loading import LoadedScene, load_scene
from lwmt_sionna.rt.tracing.solver import TracingConfig, single_element
from lwmt_sionna.runs.records import atomic_path
from lwmt_sionna.typing import Array, ArrayLike, PathLike

_COVERAGE_RAYS = 1_000_000
_FIELD_OF_VIEW = 45.0


def coverage_map(
    loaded: LoadedScene,
    base_station: ArrayLike,
    ground: GroundMap,
    *,
    user_height: float = 1.5,
    config: TracingConfig | None = None,
) -> Array:
    """Path gain from a base station to users over open ground.

    The map follows the ground, sloping ground included. Isotropic antennas; power of all paths
    added up; the same interactions as `trace_positions`.

    Args:
        base_station: Metres, float `[3]`.
        ground: `GroundMap` of the places to look at.
        user_height: Height of the users above the ground in metres.
        config: `TracingConfig`; the default settings if `None`. Its number of rays is not used.

    Returns:
        float64 `[num_x, num_y]`, decibels; `-inf` where no path arrives, NaN off open ground.
    """
    config = TracingConfig() if config is None else config
    open_cells = np.argwhere(ground.is_open)
    gain = np.full(ground.is_open.shape, np.nan)
    if not len(open_cells):
        return gain
    scene = loaded.scene
    scene.tx_array = scene.rx_array = single_element("iso", "V")
    station = sionna_rt.Transmitter("map", position=loaded.local(base_station).tolist())
    with _only(scene, [station]):
        radio_map = sionna_rt.RadioMapSolver()(
            scene,
            measurement_surface=_draped(loaded, ground, open_cells, user_height),
            samples_per_tx=_COVERAGE_RAYS,
            max_depth=config.max_depth,
            specular_reflection=config.specular_reflection,
            refraction=config.refraction,
            diffraction=config.diffraction,
            seed=config.seed,
        )
        linear = np.array(radio_map.path_gain, dtype=np.float64)[0].reshape(-1, 2).mean(axis=1)
    with np.errstate(divide="ignore"):
        gain[tuple(open_cells.T)] = 10 * np.log10(linear)
    return gain


@contextlib.contextmanager
def _only(scene, devices):
    """Some devices in place of those that a solve has left in the scene, which come back."""
    others = {**scene.transmitters, **scene.receivers}
    for name in others:
        scene.remove(name)
    for device in devices:
        scene.add(device)
    try:
        yield
    finally:
        for device in devices:
            scene.remove(device.name)
        for device in others.values():
            scene.add(device)


def _draped(loaded, ground, cells, user_height):
    """Two triangles over every cell at the height of a user."""
    half = ground.cell / 2
    centre = ground.centres[tuple(cells.T)]
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    xy = centre[:, None] + corners
    z = np.repeat(ground.height[tuple(cells.T)] + user_height, 4)
    vertices = loaded.local(np.column_stack([xy.reshape(-1, 2), z]))
    faces = (4 * np.arange(len(cells))[:, None] + np.array([0, 1, 2, 0, 2, 3])).reshape(-1, 3)
    properties = mitsuba.Properties()
    properties["bsdf"] = sionna_rt.RadioMaterial("draped", 1.0)
    mesh = mitsuba.Mesh("draped", len(vertices), len(faces), props=properties)
    parameters = mitsuba.traverse(mesh)
    parameters["vertex_positions"] = mitsuba.Float(np.ravel(vertices).astype(np.float32))
    parameters["faces"] = mitsuba.UInt32(np.ravel(faces).astype(np.uint32))
    parameters.update()
    return mesh


def open_share(loaded: LoadedScene) -> float:
    """Share of the scene that is open ground."""
    lower, upper = loaded.bounds
    # A raster of some ten thousand cells tells it to one per cent.
    cell = float(np.sqrt(np.prod(np.maximum(upper[:2] - lower[:2], 1e-6)) / 1e4))
    return float(ground_map(loaded, cell).is_open.mean())


def describe_scene(name: PathLike, carrier_frequency: float) -> dict[str, Any]:
    """Figures of a scene.

    Args:
        name: What `resolve_scene` takes.
        carrier_frequency: Hertz.

    Returns:
        dict: `name`, `origin`, `path`, `extent_m`, `num_shapes`, `num_triangles`, `materials`
        (identifier to relative permittivity and conductivity at the carrier in S/m), `ground`
        (names), `open_ground_share`, `cars` (names of objects that may move), `base_stations` (the
        builder's places in metres), and `loaded`, the `LoadedScene`.

    Raises:
        ValueError: If there is no such scene, or it has no ground.
    """
    file = resolve_scene(name)
    loaded = load_scene(name, carrier_frequency)
    lower, upper = loaded.bounds
    objects = loaded.scene.objects
    materials = {}
    for each in objects.values():
        material = each.radio_material
        materials[material.name] = {
            "relative_permittivity": round(float(material.relative_permittivity[0]), 3),
            "conductivity": round(float(material.conductivity[0]), 6),
        }
    return {
        "name": file.name,
        "origin": file.origin,
        "path": str(file.path),
        "extent_m": np.round(upper - lower, 1).tolist(),
        "num_shapes": len(read_scene_xml(file.path).shapes),
        "num_triangles": sum(int(each.mi_mesh.face_count()) for each in objects.values()),
        "materials": dict(sorted(materials.items())),
        "ground": loaded.ground,
        "open_ground_share": round(open_share(loaded), 3),
        "cars": list(loaded.cars),
        "base_stations": file.facts.get("base_stations", []),
        "loaded": loaded,
    }


def plot_coverage(coverage: dict[str, Any], path: PathLike, title: str = "") -> None:
    """Draws a coverage map, an entry of `SceneReport.coverage`, over the heights of the scene."""
    ground, gain = coverage["ground"], coverage["gain_db"]
    place = coverage["base_station"]
    figure, axes = map_figure(ground.extent)
    standing = np.where(ground.is_open, np.nan, ground.height)
    axes.imshow(standing.T, origin="lower", extent=ground.extent, cmap="Greys", vmin=-20)
    reached = np.where(np.isfinite(gain), gain, np.nan)
    image = axes.imshow(reached.T, origin="lower", extent=ground.extent, cmap="viridis")
    axes.plot(*place[:2], "r^", label=f"base station, {place[2]:g} m", ls="none")
    figure.suptitle(
        f"{title}{coverage['covered_share']:.0%} of the open ground reached (white: not)",
        fontsize=10,
    )
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=8, frameon=False, borderpad=0)
    figure.colorbar(image, ax=axes, label="path gain [dB]", fraction=0.05, pad=0.02)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def render_scene(
    loaded: LoadedScene,
    path: PathLike,
    *,
    base_stations: Sequence[ArrayLike] = (),
    users: Sequence[ArrayLike] = (),
    resolution: tuple[int, int] = (640, 420),
    num_samples: int = 64,
    num_colors: int | None = None,
) -> None:
    """Renders a scene from above at a slant, cut to what is in it.

    Args:
        path: Path of the PNG file.
        base_stations: Positions in metres, float `[num_base_stations, 3]`, drawn as red balls.
        users: Positions in metres, float `[num_users, 3]`, drawn as green balls.
        resolution: Width and height in pixels, before the empty margin is cut away.
        num_samples: Rays per pixel.
        num_colors: Colours of a palette, for a small file; full colour if `None`.
    """
    from PIL import Image

    devices: list[Any] = []
    for kind, places in ((sionna_rt.Transmitter, base_stations), (sionna_rt.Receiver, users)):
        for place in loaded.local(places).tolist() if len(places) else ():
            devices.append(kind(f"picture-{len(devices)}", position=place))
    with _only(loaded.scene, devices):
        bitmap = loaded.scene.render(
            camera=_camera([loaded.local(c) for c in loaded.bounds], resolution[0] / resolution[1]),
            fov=_FIELD_OF_VIEW,
            resolution=tuple(resolution),
            num_samples=num_samples,
            show_devices=True,
            return_bitmap=True,
        )
    # Linear light with the share of the background, [height, width, (r, g, b, a)].
    pixels = np.clip(np.array(bitmap, dtype=np.float64), 0.0, 1.0)
    color = _to_srgb(pixels[..., :3]) + (1.0 - pixels[..., 3:])
    image = Image.fromarray(np.round(255 * np.clip(color, 0.0, 1.0)).astype(np.uint8))
    rows, columns = (np.flatnonzero(pixels[..., 3].any(axis=axis)) for axis in (1, 0))
    if rows.size:
        image = image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    if num_colors is not None:
        image = image.quantize(num_colors, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        image.save(temporary, optimize=True)


def _to_srgb(linear):
    """Transfer function of sRGB, IEC 61966-2-1."""
    return np.where(
        linear <= 0.0031308,
        12.92 * linear,
        1.055 * np.power(np.maximum(linear, 1e-9), 1 / 2.4) - 0.055,
    )


def _camera(bounds, aspect):
    lower, upper = bounds
    target = (lower + upper) / 2
    # Across the longer side, so that a long street fills the picture's width.
    along_x = upper[0] - lower[0] >= upper[1] - lower[1]
    forward = np.array([0.4, 1.0, -1.3] if along_x else [1.0, 0.4, -1.3])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    top = np.cross(right, forward)
    corners = np.array(
        [[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64
    )
    corners = lower + corners * (upper - lower) - target
    half = np.tan(np.deg2rad(_FIELD_OF_VIEW) / 2)
    needed = np.maximum(np.abs(corners @ right) / half, np.abs(corners @ top) * aspect / half)
    distance = 1.03 * np.max(needed - corners @ forward)
    eye = target - distance * forward
    return sionna_rt.Camera(position=eye.tolist(), look_at=target.tolist())
