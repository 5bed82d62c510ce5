"""Imports Sionna RT once, in the one order that is safe (see `lwmt_sionna.rt.tracing.llvm`)."""

import importlib.metadata

from lwmt_sionna.rt.tracing.llvm import load_libllvm

# Parts of the path solver are replaced here, and other releases store directions in another way.
_TESTED = "1.2.2"

try:
    _installed = importlib.metadata.version("sionna-rt")
except importlib.metadata.PackageNotFoundError as error:
    raise ImportError(
        "Ray tracing needs Sionna RT: install it with `pip install 'lwmt_sionna[rt]'`."
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
        "Ray tracing needs Sionna RT: install it with `pip install 'lwmt_sionna[rt]'` "
        f"({error.name} is missing)."
    ) from error

__all__ = ["SBCandidateGenerator", "drjit", "mitsuba", "sionna_rt"]
