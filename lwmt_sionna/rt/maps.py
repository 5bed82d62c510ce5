"""Maps of a scene seen from above: heights, open ground, coverage."""

import dataclasses

import numpy as np

from lwmt_sionna.rt._sionna import mitsuba, sionna_rt
from lwmt_sionna.rt.scenes import drop_to_ground
from lwmt_sionna.rt.tracing import TracingConfig

__all__ = ["GroundMap", "coverage_map", "ground_map"]


@dataclasses.dataclass(frozen=True)
class GroundMap:
    """A raster of square cells over a scene.

    Attributes:
        origin: float64 `[2]`, `(x, y)` of the centre of cell `[0, 0]` in metres.
        cell: Side of a cell in metres.
        height: float64 `[num_x, num_y]`, metres, of what a look from above meets first; NaN where
            there is nothing.
        is_open: bool `[num_x, num_y]`, whether that is open ground.
    """

    origin: np.ndarray
    cell: float
    height: np.ndarray
    is_open: np.ndarray

    @property
    def centres(self):
        """`(x, y)` of all cells in metres, float64 `[num_x, num_y, 2]`."""
        index = np.stack(np.indices(self.is_open.shape), axis=-1)
        return self.origin + self.cell * index

    @property
    def extent(self):
        """`(left, right, bottom, top)` in metres, as `imshow` takes it."""
        lower = self.origin - self.cell / 2
        upper = lower + self.cell * np.array(self.is_open.shape)
        return (lower[0], upper[0], lower[1], upper[1])

    def cells_of(self, xy):
        """Indices of the cells that points lie in, clipped to the map, int64 `[..., 2]`."""
        index = np.round((np.asarray(xy, dtype=np.float64) - self.origin) / self.cell)
        return np.clip(index.astype(np.int64), 0, np.array(self.is_open.shape) - 1)


def ground_map(loaded, cell, *, lower=None, upper=None):
    """Looks down on a scene cell by cell.

    Args:
        loaded: `lwmt_sionna.rt.scenes.LoadedScene`.
        cell: Side of a cell in metres.
        lower: `(x, y)` from where to map in metres; the scene's own corner if `None`.
        upper: `(x, y)` to where to map in metres; the scene's own corner if `None`.

    Returns:
        `GroundMap` of the part of that rectangle that lies within the scene.
    """
    if not cell > 0:
        raise ValueError(f"cell must be positive. Received: cell={cell}")
    low, high = (np.asarray(corner[:2], dtype=np.float64) for corner in loaded.bounds)
    low = low if lower is None else np.maximum(low, lower)
    high = high if upper is None else np.minimum(high, upper)
    counts = np.maximum(np.floor((high - low) / cell).astype(int), 1)
    origin = low + (high - low - cell * (counts - 1)) / 2
    index = np.stack(np.indices(counts), axis=-1)
    height, is_open = drop_to_ground(loaded, (origin + cell * index).reshape(-1, 2))
    return GroundMap(origin, float(cell), height.reshape(counts), is_open.reshape(counts))


def coverage_map(
    loaded, base_station, ground, *, user_height=1.5, num_samples=1_000_000, config=None
):
    """Path gain from a base station to users over open ground.

    The map follows the ground, sloping ground included. Isotropic antennas; power of all paths
    added up; the same interactions as `trace_positions`.

    Args:
        loaded: `lwmt_sionna.rt.scenes.LoadedScene`.
        base_station: Metres, float `[3]`.
        ground: `GroundMap` of the places to look at.
        user_height: Height of the users above the ground in metres.
        num_samples: Rays shot by the base station.
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
    scene.tx_array = scene.rx_array = sionna_rt.PlanarArray(
        num_rows=1,
        num_cols=1,
        vertical_spacing=0.5,
        horizontal_spacing=0.5,
        pattern="iso",
        polarization="V",
    )
    devices = {**scene.transmitters, **scene.receivers}
    for name in devices:
        scene.remove(name)
    scene.add(sionna_rt.Transmitter("map", position=[float(c) for c in base_station]))
    try:
        radio_map = sionna_rt.RadioMapSolver()(
            scene,
            measurement_surface=_draped(ground, open_cells, user_height),
            samples_per_tx=num_samples,
            max_depth=config.max_depth,
            specular_reflection=config.specular_reflection,
            refraction=config.refraction,
            diffraction=config.diffraction,
            seed=config.seed,
        )
        linear = np.array(radio_map.path_gain, dtype=np.float64)[0].reshape(-1, 2).mean(axis=1)
    finally:
        scene.remove("map")
        for device in devices.values():
            scene.add(device)
    with np.errstate(divide="ignore"):
        gain[tuple(open_cells.T)] = 10 * np.log10(linear)
    return gain


def _draped(ground, cells, user_height):
    """Two triangles over every cell at the height of a user."""
    half = ground.cell / 2
    centre = ground.centres[tuple(cells.T)]
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    xy = centre[:, None] + corners
    z = np.repeat(ground.height[tuple(cells.T)] + user_height, 4)
    vertices = np.column_stack([xy.reshape(-1, 2), z])
    faces = (4 * np.arange(len(cells))[:, None] + np.array([0, 1, 2, 0, 2, 3])).reshape(-1, 3)
    properties = mitsuba.Properties()
    properties["bsdf"] = sionna_rt.RadioMaterial("draped", 1.0)
    mesh = mitsuba.Mesh("draped", len(vertices), len(faces), props=properties)
    parameters = mitsuba.traverse(mesh)
    parameters["vertex_positions"] = mitsuba.Float(np.ravel(vertices).astype(np.float32))
    parameters["faces"] = mitsuba.UInt32(np.ravel(faces).astype(np.uint32))
    parameters.update()
    return mesh
