"""Worlds that are traced: scenes, cities, motion, and propagation paths by Sionna RT.

Four rooms, each of which may import those before it:

    scenes    what lies on the disk: names, XML files, meshes; NumPy alone
    cities    cities built from a few parameters and a seed; NumPy alone
    motion    users and objects that move over a `Terrain`; NumPy alone, beside cities
    tracing   the only one that imports `sionna.rt`, `mitsuba` and `drjit`: loading, checks and
              pictures of loaded scenes, the path solver, sequences, data sets

Importing this package costs nothing; Sionna RT and LLVM are loaded when a function first needs
them. TensorFlow may be imported before or after.
"""

import importlib
from typing import Any

_MODULES = {
    "cities": "CITIES build_city city_config",
    "motion.ground": "GroundMap Ring Terrain ground_map",
    "motion.routes": "Drive Route",
    "motion.trajectories": "Clock MovingObject REGIMES Tracks TrajectoryConfig derive_velocity "
    "sample_moving_objects sample_straight_tracks sample_tracks",
    "motion.trips": "Trip local_metres read_trips",
    "scenes.files": "MATERIALS SCENES MeshObject own_scenes read_scene_xml resolve_scene "
    "write_scene",
    "scenes.meshes": "Mesh read_mesh write_ply",
    "tracing.check": "check_scene",
    "tracing.generation": "DiffuseConfig GenerationConfig estimate generate num_shards trace_shard",
    "tracing.llvm": "find_libllvm load_libllvm",
    "tracing.loading": "LoadedScene Scattering load_scene",
    "tracing.sequences": "trace_tracks",
    "tracing.show": "coverage_map describe_scene plot_coverage render_scene",
    "tracing.solver": "TracingConfig trace_positions trace_scattered",
}
_EXPORTS = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
