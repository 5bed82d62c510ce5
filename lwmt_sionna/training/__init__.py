"""Training: of predictors from scratch and from presets, of their contestants, of backbones."""

from lwmt_sionna.training.configuration import (
    DataConfig,
    ModelConfig,
    OptimizationConfig,
    PredictorConfig,
)
from lwmt_sionna.training.contestants import (
    ConvolutionalPredictor,
    FactoredBackbone,
    RecurrentPredictor,
)
from lwmt_sionna.training.histories import PredictionDataset, draw_histories, load_tracks
from lwmt_sionna.training.loop import (
    Checkpoints,
    Loop,
    NotFiniteError,
    Task,
    Trained,
    input_files,
    train,
)
from lwmt_sionna.training.optimization import averaged_weights, build_optimizer
from lwmt_sionna.training.prediction import (
    CONTESTANTS,
    PredictionData,
    TrainConfig,
    as_predictor,
    load_data,
)
from lwmt_sionna.training.pretraining import PretrainConfig
from lwmt_sionna.training.sources import ChannelPool, SourceConfig, load_scenes

__all__ = [
    "CONTESTANTS",
    "ChannelPool",
    "Checkpoints",
    "ConvolutionalPredictor",
    "DataConfig",
    "FactoredBackbone",
    "Loop",
    "ModelConfig",
    "NotFiniteError",
    "OptimizationConfig",
    "PredictionData",
    "PredictionDataset",
    "PredictorConfig",
    "PretrainConfig",
    "RecurrentPredictor",
    "SourceConfig",
    "Task",
    "TrainConfig",
    "Trained",
    "as_predictor",
    "averaged_weights",
    "build_optimizer",
    "draw_histories",
    "input_files",
    "load_data",
    "load_scenes",
    "load_tracks",
    "train",
]
