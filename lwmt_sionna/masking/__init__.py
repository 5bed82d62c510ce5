"""Physics-informed masks, impairments of measurements, and the curriculum that mixes them."""

from lwmt_sionna.masking.curriculum import IMPAIRMENTS, MASKS, Curriculum, Ingredient
from lwmt_sionna.masking.hardware import HardwareConfig, HardwareRanges, Impaired
from lwmt_sionna.masking.impairments import (
    antenna_calibration_error,
    common_phase_error,
    dropped_reports,
    frequency_offset,
    gain_error,
    measurement_noise,
    quantization,
    timing_offset,
)
from lwmt_sionna.masking.masks import (
    antenna_comb_mask,
    occlusion_mask,
    random_mask,
    subcarrier_comb_mask,
    tail_mask,
    time_comb_mask,
    tube_mask,
)

__all__ = [
    "IMPAIRMENTS",
    "MASKS",
    "Curriculum",
    "HardwareConfig",
    "HardwareRanges",
    "Impaired",
    "Ingredient",
    "antenna_calibration_error",
    "antenna_comb_mask",
    "common_phase_error",
    "dropped_reports",
    "frequency_offset",
    "gain_error",
    "measurement_noise",
    "occlusion_mask",
    "quantization",
    "random_mask",
    "subcarrier_comb_mask",
    "tail_mask",
    "time_comb_mask",
    "timing_offset",
    "tube_mask",
]
