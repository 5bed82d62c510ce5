"""The smallest trainings there are, and a script that runs one to be killed at a named place."""

import os
import signal
import sys

import keras

from lwmt_sionna.masking import Curriculum
from lwmt_sionna.runs.store import Store
from lwmt_sionna.training import PretrainConfig, TrainConfig, train

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


class Death(keras.callbacks.Callback):
    """Kills the process after a step, or in the middle of writing a checkpoint."""

    def __init__(self, place, number):
        super().__init__()
        self.place, self.number, self.seen = place, number, 0
        if place == "checkpoint":
            put = Store.put

            def die_once(store, *arguments, **options):
                # The file is there, its note is not.
                self.count()
                put(store, *arguments, **options)

            Store.put = die_once

    def on_train_batch_end(self, batch, logs=None):
        if self.place == "step":
            self.count()

    def count(self):
        self.seen += 1
        if self.seen == self.number:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    import json

    kind, settings, folder, place, number = sys.argv[1:]
    make = {"train": TrainConfig, "pretrain": PretrainConfig}[kind]
    config = make.from_dict(json.loads(settings))
    train(config, folder, callbacks=[Death(place, int(number))], verbose=0)
