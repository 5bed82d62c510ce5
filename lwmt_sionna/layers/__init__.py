"""Keras layers over `lwmt_sionna.ops`."""

from lwmt_sionna.layers.angle_delay import AngleDelayTransform, InverseAngleDelayTransform
from lwmt_sionna.layers.encoder import EncoderBlock, SparseSpatioTemporalAttention
from lwmt_sionna.layers.position import FactoredPositionEncoding, LearnedPositionEncoding
from lwmt_sionna.layers.readout import AngleReadout, Readout, beams_to_patches

__all__ = [
    "AngleDelayTransform",
    "AngleReadout",
    "EncoderBlock",
    "FactoredPositionEncoding",
    "InverseAngleDelayTransform",
    "LearnedPositionEncoding",
    "Readout",
    "SparseSpatioTemporalAttention",
    "beams_to_patches",
]
