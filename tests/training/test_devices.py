"""Several devices compute what one computes."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from lwmt_sionna.training.optimization import DataParallel

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = """
import os, pathlib, sys
import keras
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
import dataclasses
from lwmt_sionna.training import train
from tests.training.small import pretrain_config
# Nothing random but the data: masks are drawn per device.
config = pretrain_config(6, ema_momentum=0.0)
curriculum = dataclasses.replace(
    config.curriculum, masks={"tail": {"horizon": [2, 2]}}, impairments={}
)
config = dataclasses.replace(config, curriculum=curriculum)
_, outcome = train(config, sys.argv[1], num_devices=int(sys.argv[2]), verbose=0)
print("LOSSES", *(row["loss"] for row in outcome["history"]))
"""


def losses(folder, backend, num_devices):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, str(num_devices)],
        cwd=ROOT,
        env=os.environ
        | {
            "KERAS_BACKEND": backend,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("LOSSES")]
    assert lines, done.stderr
    return [float(word) for word in lines[0].split()[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_compute_what_one_computes(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    one = losses(tmp_path / "one", backend, 1)
    two = losses(tmp_path / "two", backend, 2)
    assert two == pytest.approx(one, rel=2e-3)


def test_wrong_numbers_of_devices():
    with pytest.raises(ValueError, match="num_devices=0"):
        DataParallel(0)
    with pytest.raises(ValueError, match="num_devices=99"):
        DataParallel(99)
