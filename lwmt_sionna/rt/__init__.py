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

_EXPORTS = {
    "MATERIALS": "scenes",
    "SCENES": "scenes",
    "Mesh": "scenes",
    "own_scenes": "scenes",
    "read_mesh": "scenes",
    "resolve_scene": "scenes",
    "write_ply": "scenes",
    "CITIES": "cities",
    "build_city": "cities",
    "city_config": "cities",
    "Clock": "motion",
    "MovingObject": "motion",
    "Ring": "motion",
    "Tracks": "motion",
    "TrajectoryConfig": "motion",
    "ground_map": "motion",
    "read_trips": "motion",
    "sample_moving_objects": "motion",
    "sample_straight_tracks": "motion",
    "sample_tracks": "motion",
    "CheckConfig": "tracing",
    "GenerationConfig": "tracing",
    "TracingConfig": "tracing",
    "check_scene": "tracing",
    "describe_scene": "tracing",
    "estimate": "tracing",
    "find_libllvm": "tracing",
    "generate": "tracing",
    "load_libllvm": "tracing",
    "load_scene": "tracing",
    "num_shards": "tracing",
    "trace_positions": "tracing",
    "trace_shard": "tracing",
    "trace_tracks": "tracing",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
