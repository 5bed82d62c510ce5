"""The smallest trainings there are, and a script that runs one to be killed."""

import sys

from lwmt_sionna.masking import Curriculum
from lwmt_sionna.training import ModelConfig, OptimizationConfig, PretrainConfig, SourceConfig

GRID = (6, 4, 4)


def pretrain_config(steps=12, **settings):
    """Pretraining on clusters alone, with one mask: what compiles fastest."""
    optimization = {"batch_size": 4, "checkpoint_every": 4, "log_every": 1, "ema_momentum": 0.9}
    return PretrainConfig(
        source=SourceConfig(cluster_share=1.0, grids=(GRID,), pool=8, pool_steps=5),
        model=ModelConfig(width=8, depth=1, num_heads=2, patch=(2, 2), local_motion=False),
        optimization=OptimizationConfig(steps=steps, **(optimization | settings)),
        curriculum=Curriculum(masks={"random": {}}, impairments={}),
    )


if __name__ == "__main__":
    from lwmt_sionna.training import pretrain

    pretrain(pretrain_config(steps=int(sys.argv[2])), sys.argv[1], verbose=0)
