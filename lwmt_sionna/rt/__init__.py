"""Ray tracing of mobility sequences: the only room that imports `sionna.rt` and `mitsuba`.

Importing this package costs nothing; Sionna RT and LLVM are loaded when a function first needs
them. TensorFlow may be imported before or after.
"""

import importlib

_EXPORTS = {
    "find_libllvm": "llvm",
    "load_libllvm": "llvm",
    "CITIES": "cities",
    "build_city": "cities",
    "city_config": "cities",
    "SCENES": "scene_names",
    "own_scenes": "scene_names",
    "resolve_scene": "scene_names",
    "load_scene": "scenes",
    "MovingObject": "motion",
    "Tracks": "motion",
    "TrajectoryConfig": "trajectories",
    "read_trips": "track_files",
    "sample_moving_objects": "traffic",
    "sample_straight_tracks": "straight",
    "sample_tracks": "trajectories",
    "CheckConfig": "check",
    "check_scene": "check",
    "describe_scene": "describe",
    "TracingConfig": "tracing",
    "trace_positions": "tracing",
    "trace_tracks": "sequences",
    "GenerationConfig": "generation",
    "generate": "generation",
    "estimate": "generation",
    "num_shards": "generation",
    "trace_shard": "shards",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__():
    return __all__
