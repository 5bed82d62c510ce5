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

_ROOMS = {
    "scenes": "MATERIALS SCENES Mesh own_scenes read_mesh resolve_scene write_ply",
    "cities": "CITIES build_city city_config",
    "motion": "Clock MovingObject Ring Tracks TrajectoryConfig ground_map read_trips "
    "sample_moving_objects sample_straight_tracks sample_tracks",
    "tracing": "CheckConfig DiffuseConfig GenerationConfig Scattering TracingConfig check_scene "
    "describe_scene estimate find_libllvm generate load_libllvm load_scene num_shards "
    "trace_positions trace_scattered trace_shard trace_tracks",
}
_EXPORTS = {name: room for room, names in _ROOMS.items() for name in names.split()}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
