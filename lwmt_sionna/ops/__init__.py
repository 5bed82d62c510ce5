"""Pure functions on Keras tensors."""

from lwmt_sionna.ops.attention import sparse_attention
from lwmt_sionna.ops.attention_routing import EnergyRouting, TopKRouting
from lwmt_sionna.ops.neighborhood import Neighborhood

__all__ = ["EnergyRouting", "Neighborhood", "TopKRouting", "sparse_attention"]
