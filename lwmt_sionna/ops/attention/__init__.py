"""Sparse spatio-temporal attention of the tokens of an angle-delay-time grid."""

from lwmt_sionna.ops.attention.neighborhood import (
    Neighborhood,
    RandomNeighborhood,
    check_grid,
    get_neighborhood,
)
from lwmt_sionna.ops.attention.routing import (
    EnergyRouting,
    TopKRouting,
    get_routing,
    narrow,
    select_bins,
    widen,
)
from lwmt_sionna.ops.attention.sparse import KERNELS, select_kernel, sparse_attention

__all__ = [
    "KERNELS",
    "EnergyRouting",
    "Neighborhood",
    "RandomNeighborhood",
    "TopKRouting",
    "check_grid",
    "get_neighborhood",
    "get_routing",
    "narrow",
    "select_bins",
    "select_kernel",
    "sparse_attention",
    "widen",
]
