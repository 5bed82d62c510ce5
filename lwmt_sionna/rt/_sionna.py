"""Imports Sionna RT once, in the one order that is safe (see `lwmt_sionna.rt.llvm`)."""

from lwmt_sionna.rt.llvm import load_libllvm

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
