"""Imports Sionna RT once, in the one order that is safe, and holds what differs between its lines.

The order is told in `lwmt_sionna.rt.tracing.llvm`. Parts of the path solver are replaced by this
room, so that other releases than those tested are refused.
"""

import importlib.metadata
from typing import Any

from lwmt_sionna.rt.tracing.llvm import load_libllvm
from lwmt_sionna.runs.shipped import how_to_install

_TESTED = ("1.2.2", "2.2.0")
_HINT = (
    f"install it with `{how_to_install('rt')}` beside Sionna 1.2, or `{how_to_install('sionna2')}` "
    "with Sionna 2"
)

try:
    _VERSION = importlib.metadata.version("sionna-rt")
except importlib.metadata.PackageNotFoundError as error:
    raise ImportError(f"Ray tracing needs Sionna RT: {_HINT}.") from error
if _VERSION not in _TESTED:
    raise ImportError(
        f"Ray tracing was tested with sionna-rt {' and '.join(_TESTED)} and no other: {_HINT}. "
        f"Received: sionna-rt {_VERSION}"
    )

load_libllvm()

try:
    import drjit
    import mitsuba
    import sionna.rt as sionna_rt
    from sionna.rt.path_solvers.sb_candidate_generator import SBCandidateGenerator
except ModuleNotFoundError as error:
    raise ImportError(f"Ray tracing needs Sionna RT: {_HINT} ({error.name} is missing).") from error

__all__ = [
    "DETERMINISTIC",
    "TRACER",
    "SBCandidateGenerator",
    "drjit",
    "mitsuba",
    "path_solver",
    "set_directions",
    "sionna_rt",
]

# Sionna RT 1.2 leaves to chance which of several rays stands for a path; 2.2 need not.
DETERMINISTIC = _VERSION != "1.2.2"
# What data say that they were traced by: data of two tracers are never joined.
TRACER = f"sionna-rt {_VERSION}" + (", deterministic" if DETERMINISTIC else "")


def path_solver() -> Any:
    """A `sionna.rt.PathSolver`, the deterministic one where there is one."""
    options = {"deterministic": True} if DETERMINISTIC else {}
    return sionna_rt.PathSolver(**options)


def set_directions(buffer: Any, towards: Any) -> None:
    """Sets directions in line of sight of all paths of a `PathsBuffer`.

    Sionna RT 1.2 stores angles and 2.2 vectors, and their setters have other names.

    Args:
        buffer: `sionna.rt.PathsBuffer`.
        towards: `mitsuba.Vector3f` of unit vectors from the source to the targets, one per path.
    """
    all_of_them = drjit.full(mitsuba.Bool, True, drjit.width(towards))
    if hasattr(buffer, "set_angles_tx"):
        buffer.set_angles_tx(towards, all_of_them)
        buffer.set_angles_rx(-towards, all_of_them)
    else:
        buffer.set_k_tx(towards, all_of_them)
        buffer.set_k_rx(-towards, all_of_them)
