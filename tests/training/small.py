"""The smallest trainings there are."""

from lwmt_sionna.masking import Curriculum
from lwmt_sionna.training import PretrainConfig, TrainConfig

GRID = (6, 4, 4)


def pretrain_config(steps=12, **settings):
    """Pretraining on clusters alone, with one mask: what compiles fastest."""
    optimization = {
        "batch_size": 4, "checkpoint_every": 4, "log_every": 1, "ema_momentum": 0.9,
        "decay_vectors": False,
    }  # fmt: skip
    return PretrainConfig(
        source={"cluster_share": 1.0, "grids": (GRID,), "pool": 8, "pool_steps": 5},
        model={
            "width": 8, "depth": 1, "num_heads": 2, "patch": (2, 2), "position": "rotary_grid"
        },
        optimization={"steps": steps, **optimization, **settings},
        curriculum=Curriculum(masks={"random": {}}, impairments={}),
    )  # fmt: skip


def predictor_config(files, **settings):
    """Training of a predictor of few weights on 12 x 4 x 4 channels; settings without tables."""
    options = {
        "data": [str(name) for name in files],
        "validation_share": 0.25,
        "num_ant": 4,
        "num_subcarriers": 4,
        "num_history": 8,
        "num_horizons": 2,
        "num_draws": 1,
        "width": 8,
        "depth": 1,
        "num_heads": 2,
        "patch": (2, 2),
        "context": 2,
        "experts": ((8, 2), (8, 3)),
        "denoise_radius": 1,
        "time_offsets": (-2, -1, 1, 2),
        "epochs": 4,
        "batch_size": 4,
    }
    return TrainConfig.from_dict(options | settings)
