"""The loop: what a kill, a damaged file, a NaN and the moving average do to a training."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from lwmt_sionna.training import (
    NotFiniteError,
    OptimizationConfig,
    averaged_weights,
    build_optimizer,
    pretrain,
    run_steps,
)
from lwmt_sionna.training.loop import OutputAsLoss
from tests.training.small import pretrain_config

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Line(keras.Model):
    """Squared error of one weight on targets; as small as a model can be."""

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(shape=(1, 2), initializer="ones", name="weight")
        self.built = True

    def call(self, x):
        return keras.ops.mean(keras.ops.square(self.weight * x["x"] - x["y"]), axis=-1)


def line(tmp_path, batches, **settings):
    """Trains a `Line` on a list of targets; returns model, optimiser and a callable that trains."""
    options = {"warmup_share": 0.0, "checkpoint_every": 5, "log_every": 1, "learning_rate": 0.1}
    config = OptimizationConfig(steps=len(batches), batch_size=2, **(options | settings))
    model = Line()
    optimizer = build_optimizer(config, model.trainable_variables)
    model.compile(optimizer=optimizer, loss=OutputAsLoss(), jit_compile=False)

    def draw(step):
        x = {"x": np.ones((2, 2), np.float32), "y": np.full((2, 2), batches[step], np.float32)}
        return "line", x, np.zeros(2, np.float32)

    def train(on_checkpoint=None):
        return run_steps(
            {"line": model}, optimizer, draw, config, tmp_path, on_checkpoint=on_checkpoint,
            verbose=0,
        )  # fmt: skip

    return model, optimizer, train


def value(model):
    return keras.ops.convert_to_numpy(model.weight)


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    """Killed with -9 in the middle, its newest checkpoint damaged: the same losses and weights."""
    steps = 40
    expected_model, expected = pretrain(pretrain_config(steps), tmp_path / "whole", verbose=0)
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.small", folder, str(steps)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = folder / "history.csv"
    deadline = time.time() + 200
    while time.time() < deadline and process.poll() is None:
        if log.is_file() and len(log.read_text().splitlines()) > 11:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(log.read_text().splitlines()) - 1
    assert 10 <= done < steps, "the run was over before it was killed"
    newest = max((folder / "checkpoints").glob("*.npz"))
    data = bytearray(newest.read_bytes())
    data[200] ^= 255
    newest.write_bytes(data)
    model, history = pretrain(pretrain_config(steps), folder, verbose=0)
    assert [row["step"] for row in history] == [row["step"] for row in expected]
    np.testing.assert_allclose(
        [row["loss"] for row in history], [row["loss"] for row in expected], rtol=1e-4
    )
    for got, want in zip(model.variables, expected_model.variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(got), keras.ops.convert_to_numpy(want), rtol=1e-3, atol=1e-5
        )
    # Nothing is left to do: nothing changes.
    _, again = pretrain(pretrain_config(steps), folder, verbose=0)
    assert again == history


def test_stops_are_exact_bit_for_bit(tmp_path):
    """Moments, averages and the schedule come back: two halves are one whole."""
    batches = list(np.linspace(-2, 3, 20))
    whole, _, train = line(tmp_path / "whole", batches, ema_momentum=0.9)
    train()

    class Stop(Exception):
        pass

    def stop(step, notes):
        notes["seen"] = step
        if step == 15:
            raise Stop

    half, _, train = line(tmp_path / "half", batches, ema_momentum=0.9)
    with pytest.raises(Stop):
        train(stop)
    half, _, train = line(tmp_path / "half", batches, ema_momentum=0.9)
    notes, history = train()
    np.testing.assert_array_equal(value(half), value(whole))
    assert [row["step"] for row in history] == list(range(1, 21))
    assert notes == {"seen": 10}


def test_a_step_without_a_finite_gradient_changes_little_and_is_counted(tmp_path, caplog):
    batches = [1.5, 1.5, np.nan, 1.5, np.inf, 1.5]
    model, _, train = line(tmp_path, batches, checkpoint_every=1, ema_momentum=0.0)
    _, history = train()
    assert np.isfinite(value(model)).all()
    assert [np.isfinite(row["loss"]) for row in history] == [True, True, False, True, False, True]
    assert "step 3" in caplog.text and "step 5" in caplog.text
    # No checkpoint was written after a step without a finite loss.
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_loss_that_stays_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    batches = [1.5] * 12 + [np.nan] * 20
    _, _, train = line(tmp_path, batches, patience=4)
    with pytest.raises(NotFiniteError, match=r"4 steps in a row.*step 16.*of step 10 "):
        train()
    assert max((tmp_path / "checkpoints").glob("*.json")).stem == "step_00000010"


def test_averaged_weights_are_the_average_and_go_back(tmp_path):
    batches = list(np.linspace(2, 3, 12))
    seen = []
    model, optimizer, train = line(
        tmp_path, batches, ema_momentum=0.8, checkpoint_every=1, weight_decay=1e-9
    )
    train(lambda step, notes: seen.append(value(model)))
    average = seen[0]
    for weight in seen[1:]:
        average = 0.8 * average + 0.2 * weight
    with averaged_weights(optimizer):
        np.testing.assert_allclose(value(model), average, rtol=1e-5)
    np.testing.assert_array_equal(value(model), seen[-1])


def test_another_model_does_not_take_the_checkpoint(tmp_path):
    _, _, train = line(tmp_path, [1.0] * 5, ema_momentum=0.0)
    train()
    _, _, train = line(tmp_path, [1.0] * 10, ema_momentum=0.9)
    with pytest.raises(ValueError, match="another model"):
        train()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"ema_momentum": 1.0}, "ema_momentum=1.0"),
        ({"precision": "float8"}, "precision=float8"),
    ],
)
def test_wrong_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        OptimizationConfig(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_follows_full_precision(tmp_path, precision):
    """Weights stay in float32, and losses in step with those of full precision."""
    _, expected = pretrain(pretrain_config(8), tmp_path / "full", verbose=0)
    config = pretrain_config(8, precision=precision)
    model, history = pretrain(config, tmp_path / "mixed", verbose=0)
    assert model.backbone.compute_dtype == precision.removeprefix("mixed_")
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    losses, wanted = ([row["loss"] for row in rows] for rows in (history, expected))
    np.testing.assert_allclose(losses, wanted, rtol=0.05, atol=0.2)
    # A run in two halves is one run here as well.
    _, again = pretrain(config, tmp_path / "mixed", verbose=0)
    assert again == history


@pytest.mark.slow
def test_grids_of_several_shapes_share_one_training(tmp_path):
    """One program each, one set of weights and moments: both learn, and a stop is exact."""
    config = pretrain_config(12)
    source = dataclasses.replace(config.source, grids=((6, 4, 4), (4, 2, 8)))
    config = dataclasses.replace(config, source=source)
    _, history = pretrain(config, tmp_path / "run", verbose=0)
    first, last = ([row["loss"] for row in rows] for rows in (history[:4], history[-4:]))
    assert np.mean(last) < np.mean(first)
    for path in (tmp_path / "run" / "checkpoints").glob("step_00000012.*"):
        path.unlink()
    _, same = pretrain(config, tmp_path / "run", verbose=0)
    np.testing.assert_allclose(
        [row["loss"] for row in same], [row["loss"] for row in history], rtol=1e-4
    )
