"""Pretraining, fine-tuning and training from scratch."""

from lwmt_sionna.training.architecture import ModelConfig
from lwmt_sionna.training.checkpoints import Checkpoints
from lwmt_sionna.training.finetuning import FinetuneConfig, as_predictor, finetune, load_tracks
from lwmt_sionna.training.loop import NotFiniteError, run_steps
from lwmt_sionna.training.optimization import (
    OptimizationConfig,
    averaged_weights,
    build_optimizer,
)
from lwmt_sionna.training.prediction_data import (
    PredictionDataset,
    draw_histories,
    load_training_data,
)
from lwmt_sionna.training.predictor import (
    TrainConfig,
    TrainingData,
    build_predictor,
    prepare,
    train,
)
from lwmt_sionna.training.pretraining import PretrainConfig, pretrain
from lwmt_sionna.training.sources import ChannelPool, SourceConfig

__all__ = [
    "ChannelPool",
    "Checkpoints",
    "FinetuneConfig",
    "ModelConfig",
    "NotFiniteError",
    "OptimizationConfig",
    "PredictionDataset",
    "PretrainConfig",
    "SourceConfig",
    "TrainConfig",
    "TrainingData",
    "as_predictor",
    "averaged_weights",
    "build_optimizer",
    "build_predictor",
    "draw_histories",
    "finetune",
    "load_tracks",
    "load_training_data",
    "prepare",
    "pretrain",
    "run_steps",
    "train",
]
