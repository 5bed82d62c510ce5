"""Ray tracing by Sionna RT, which is loaded with the first name that needs it."""

import importlib
from typing import Any

_EXPORTS = {
    "CheckConfig": "check",
    "check_scene": "check",
    "GenerationConfig": "generation",
    "estimate": "generation",
    "generate": "generation",
    "num_shards": "generation",
    "trace_shard": "generation",
    "find_libllvm": "llvm",
    "load_libllvm": "llvm",
    "LoadedScene": "loading",
    "load_scene": "loading",
    "trace_tracks": "sequences",
    "coverage_map": "show",
    "describe_scene": "show",
    "plot_coverage": "show",
    "render_scene": "show",
    "TracingConfig": "solver",
    "trace_positions": "solver",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
