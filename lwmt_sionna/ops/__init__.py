"""Pure functions on Keras tensors."""

from lwmt_sionna.ops.attention import sparse_attention
from lwmt_sionna.ops.attention_routing import EnergyRouting, TopKRouting
from lwmt_sionna.ops.neighborhood import Neighborhood
from lwmt_sionna.ops.random_neighborhood import RandomNeighborhood

__all__ = ["EnergyRouting", "Neighborhood", "RandomNeighborhood", "TopKRouting", "sparse_attention"]
