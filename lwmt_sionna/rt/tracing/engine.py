"""Imports Sionna RT once, in the one order that is safe (see `lwmt_sionna.rt.tracing.llvm`)."""

import importlib.metadata

from lwmt_sionna.rt.tracing.llvm import load_libllvm
from lwmt_sionna.runs.shipped import how_to_install

# Parts of the path solver are replaced here, and other releases store directions in another way.
_TESTED = "1.2.2"

try:
    _installed = importlib.metadata.version("sionna-rt")
except importlib.metadata.PackageNotFoundError as error:
    raise ImportError(
        f"Ray tracing needs Sionna RT: install it with `{how_to_install('rt')}`."
    ) from error
if _installed != _TESTED:
    raise ImportError(
        f"Ray tracing was tested with sionna-rt {_TESTED} and no other: install it with "
        f"`pip install 'sionna-rt=={_TESTED}'`. Received: sionna-rt {_installed}"
    )

load_libllvm()

try:
    import drjit
    import mitsuba
    import sionna.rt as sionna_rt
    from sionna.rt.path_solvers.sb_candidate_generator import SBCandidateGenerator
except ModuleNotFoundError as error:
    raise ImportError(
        f"Ray tracing needs Sionna RT: install it with `{how_to_install('rt')}` "
        f"({error.name} is missing)."
    ) from error

__all__ = ["SBCandidateGenerator", "drjit", "mitsuba", "sionna_rt"]
