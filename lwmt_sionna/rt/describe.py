"""What is in a scene, in figures and pictures."""

import numpy as np

from lwmt_sionna.data.figures import map_figure
from lwmt_sionna.rt.maps import ground_map
from lwmt_sionna.rt.scene_names import resolve_scene
from lwmt_sionna.rt.scene_xml import read_scene_xml
from lwmt_sionna.rt.scenes import load_scene
from lwmt_sionna.runs.records import atomic_path

__all__ = ["describe_scene", "plot_coverage"]


def describe_scene(name, carrier_frequency):
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
    lower, upper = (np.asarray(corner, dtype=np.float64) for corner in loaded.bounds)
    objects = loaded.scene.objects
    materials = {}
    for each in objects.values():
        material = each.radio_material
        materials[material.name] = {
            "relative_permittivity": round(float(material.relative_permittivity[0]), 3),
            "conductivity": round(float(material.conductivity[0]), 6),
        }
    cell = float(np.sqrt(np.prod(upper[:2] - lower[:2]) / 1e4))
    return {
        "name": file.name,
        "origin": file.origin,
        "path": str(file.path),
        "extent_m": np.round(upper - lower, 1).tolist(),
        "num_shapes": len(read_scene_xml(file.path).shapes),
        "num_triangles": sum(int(each.mi_mesh.face_count()) for each in objects.values()),
        "materials": dict(sorted(materials.items())),
        "ground": [k for k, each in objects.items() if int(each.object_id) in loaded.ground_ids],
        "open_ground_share": round(float(ground_map(loaded, cell).is_open.mean()), 3),
        "cars": list(loaded.cars),
        "base_stations": file.facts.get("base_stations", []),
        "loaded": loaded,
    }


def plot_coverage(coverage, path, title=""):
    """Draws a coverage map over the heights of the scene.

    Args:
        coverage: One entry of `SceneReport.coverage`.
        path: Path of the figure; the extension chooses the format.
        title: Text above.
    """
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
