"""Sparse spatio-temporal attention for wireless channels, as Keras layers and predictors.

Importing this package imports nothing else; each public name is loaded when first used and needs
keras and numpy alone. Ray tracing (`lwmt_sionna.rt`) and the link (`lwmt_sionna.link`) need Sionna
besides; ``lwmt doctor`` says what is there and what is missing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what editors and type checkers see of the lazy names
    from lwmt_sionna.layers import (
        AngleDelayTransform,
        InverseAngleDelayTransform,
        SparseSpatioTemporalAttention,
    )
    from lwmt_sionna.models import (
        ChannelEncoder,
        ChannelPredictor,
        LWMTBackbone,
        MaskedChannelModel,
    )
    from lwmt_sionna.ops import Neighborhood

__version__ = "0.1.0"

__all__ = [
    "AngleDelayTransform",
    "ChannelEncoder",
    "ChannelPredictor",
    "InverseAngleDelayTransform",
    "LWMTBackbone",
    "MaskedChannelModel",
    "Neighborhood",
    "SparseSpatioTemporalAttention",
    "__version__",
]

_EXPORTS = {
    "AngleDelayTransform": "lwmt_sionna.layers",
    "ChannelEncoder": "lwmt_sionna.models",
    "ChannelPredictor": "lwmt_sionna.models",
    "InverseAngleDelayTransform": "lwmt_sionna.layers",
    "LWMTBackbone": "lwmt_sionna.models",
    "MaskedChannelModel": "lwmt_sionna.models",
    "Neighborhood": "lwmt_sionna.ops",
    "SparseSpatioTemporalAttention": "lwmt_sionna.layers",
}


def __getattr__(name):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value  # the next access is a plain lookup
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
