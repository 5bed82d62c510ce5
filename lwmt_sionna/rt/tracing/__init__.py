"""Ray tracing by Sionna RT, which is loaded with the first name that needs it."""

import importlib
from typing import Any

_MODULES = {
    "check": "CheckConfig check_scene",
    "generation": "DiffuseConfig GenerationConfig estimate generate num_shards trace_shard",
    "llvm": "find_libllvm load_libllvm",
    "loading": "LoadedScene Scattering load_scene",
    "sequences": "trace_tracks",
    "show": "coverage_map describe_scene plot_coverage render_scene",
    "solver": "TracingConfig trace_positions trace_scattered",
}
_EXPORTS = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
