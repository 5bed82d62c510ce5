"""Keras layers over `lwmt_sionna.ops`."""

from lwmt_sionna.layers.attention import SparseSpatioTemporalAttention

__all__ = ["SparseSpatioTemporalAttention"]
