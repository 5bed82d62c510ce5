"""Pure functions on Keras tensors."""

from lwmt_sionna.ops.attention import (
    EnergyRouting,
    Neighborhood,
    RandomNeighborhood,
    TopKRouting,
    sparse_attention,
)

__all__ = ["EnergyRouting", "Neighborhood", "RandomNeighborhood", "TopKRouting", "sparse_attention"]
