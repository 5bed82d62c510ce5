"""Predictors that the model is held against, all behind one call: history in, future out."""

from lwmt_sionna.baselines.autoregression import (
    ClampedAutoregression,
    DenoisedAutoregression,
    DirectAutoregression,
    LocalAutoregression,
    PooledAutoregression,
)
from lwmt_sionna.baselines.base import (
    Predictor,
    check_array,
    fill_reports,
    told_arrived,
)
from lwmt_sionna.baselines.bins import (
    BinPredictor,
    KalmanPredictor,
    PronyPredictor,
    WienerPredictor,
)
from lwmt_sionna.baselines.model import ModelPredictor
from lwmt_sionna.baselines.parametric import PathPredictor
from lwmt_sionna.baselines.reference import (
    Hold,
    PerfectCsi,
    PhaseAlignedHold,
    ZeroPredictor,
)
from lwmt_sionna.baselines.tuned import (
    CLASSICAL,
    TUNED,
    TUNED_SNR_DB,
    tuned_baselines,
    tuned_settings,
)

__all__ = [
    "CLASSICAL",
    "TUNED",
    "TUNED_SNR_DB",
    "BinPredictor",
    "ClampedAutoregression",
    "DenoisedAutoregression",
    "DirectAutoregression",
    "Hold",
    "KalmanPredictor",
    "LocalAutoregression",
    "ModelPredictor",
    "PathPredictor",
    "PerfectCsi",
    "PhaseAlignedHold",
    "PooledAutoregression",
    "Predictor",
    "PronyPredictor",
    "WienerPredictor",
    "ZeroPredictor",
    "check_array",
    "fill_reports",
    "told_arrived",
    "tuned_baselines",
    "tuned_settings",
]
