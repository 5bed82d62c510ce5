"""Ray tracing of mobility sequences: the only room that imports `sionna.rt` and `mitsuba`.

Importing this package costs nothing; Sionna RT and LLVM are loaded when a function first needs
them. TensorFlow may be imported before or after.
"""

import importlib

_EXPORTS = {
    "find_libllvm": "llvm",
    "load_libllvm": "llvm",
    "SCENES": "scenes",
    "load_scene": "scenes",
    "StraightTracks": "trajectories",
    "sample_straight_tracks": "trajectories",
    "TracingConfig": "tracing",
    "trace_positions": "tracing",
    "trace_tracks": "sequences",
    "MovingObject": "motion",
    "Tracks": "motion",
    "GenerationConfig": "generation",
    "generate": "generation",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__():
    return __all__
