"""Backbone, tasks and presets."""

from lwmt_sionna.models.backbone import LWMTBackbone
from lwmt_sionna.models.channel_estimator import ChannelEstimator
from lwmt_sionna.models.channel_model import ChannelEncoder
from lwmt_sionna.models.channel_predictor import ChannelPredictor
from lwmt_sionna.models.losses import LogNormalizedError, normalized_mean_squared_error
from lwmt_sionna.models.masked_channel_model import MaskedChannelModel
from lwmt_sionna.models.physics import Forecasts, Physics
from lwmt_sionna.models.presets import DEFAULT_PRESET, list_presets
from lwmt_sionna.models.refiner import Refiner
from lwmt_sionna.models.task_model import BackboneTask, TaskModel
from lwmt_sionna.models.tasks import BeamPredictor, LineOfSightClassifier, Localizer

__all__ = [
    "DEFAULT_PRESET",
    "BackboneTask",
    "BeamPredictor",
    "ChannelEncoder",
    "ChannelEstimator",
    "ChannelPredictor",
    "Forecasts",
    "LWMTBackbone",
    "LineOfSightClassifier",
    "Localizer",
    "LogNormalizedError",
    "MaskedChannelModel",
    "Physics",
    "Refiner",
    "TaskModel",
    "list_presets",
    "normalized_mean_squared_error",
]
