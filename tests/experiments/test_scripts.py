"""The scripts as a user meets them: help, wrong input, a small whole run."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "experiments" / "data" / "san_francisco_30kmh_5ms.h5"


def run(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, ROOT / "experiments" / script, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def refused(result, *words):
    """One line on stderr that holds the words, no traceback, and a non-zero exit."""
    # TensorFlow writes lines of its own when it looks for a GPU.
    lines = [line for line in result.stderr.splitlines() if ".py: error:" in line]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    "script",
    [
        "generate_sequences.py",
        "train_predictor.py",
        "prediction_eval.py",
        "tune_baselines.py",
        "train_baseline.py",
        "link_level_eval.py",
        "show_masks.py",
        "pretrain.py",
        "finetune.py",
        "pretraining_study.py",
        "finetuning_study.py",
        "plot_training.py",
    ],
)
def test_help(script):
    result = run(script, "--help")
    assert result.returncode == 0
    assert "Example:" in result.stdout


@pytest.mark.rt
def test_generation_refuses_wrong_input(tmp_path):
    config = ROOT / "experiments" / "configs" / "data_munich.toml"
    out = tmp_path / "x.h5"
    refused(run("generate_sequences.py", "--config", "none.toml", "--out", out), "none.toml")
    refused(
        run("generate_sequences.py", "--config", config, "--scene", "atlantis", "--out", out),
        "atlantis",
        "munich",
    )
    refused(
        run(
            "generate_sequences.py", "--config", config, "--out", out,
            DRJIT_LIBLLVM_PATH="/nowhere/libLLVM.so",
        ),
        "/nowhere/libLLVM.so",
        "apt-get install libllvm19",
    )  # fmt: skip
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(
        'scene = "munich"\nbase_stations = [[0, 0, 9]]\nnum_sequences = 1\nspeed = 3\n'
    )
    refused(run("generate_sequences.py", "--config", wrong, "--out", out), "speed")


def test_evaluation_refuses_wrong_input(tmp_path):
    short = tmp_path / "short.h5"
    short.write_bytes(SHIPPED.read_bytes()[:5000])
    refused(run("prediction_eval.py", "--data", "none.h5"), "none.h5")
    refused(run("prediction_eval.py", "--data", short, "--preset"), "short.h5")
    refused(run("prediction_eval.py", "--data", SHIPPED, "--preset", "nonsense"), "nonsense")


def test_training_runs_resumes_and_makes_a_preset(tmp_path):
    from lwmt_sionna.baselines import ModelPredictor
    from lwmt_sionna.data import read_paths, write_paths

    write_paths(tmp_path / "few.h5", read_paths(SHIPPED).select(slice(0, 12)))
    config = tmp_path / "tiny.toml"
    config.write_text(
        f'data = ["{tmp_path}/few.h5"]\nnum_ant = 8\nnum_subcarriers = 8\nwidth = 8\ndepth = 1\n'
        "num_heads = 2\nbatch_size = 4\nepochs = 2\nnum_draws = 1\nvalidation_share = 0.25\n"
    )
    arguments = ("--config", config, "--workdir", tmp_path / "work", "--quiet")
    first = run("train_predictor.py", *arguments)
    assert first.returncode == 0, first.stderr
    predictor = ModelPredictor(tmp_path / "work" / "preset")
    history = np.ones((1, 16, 8, 8), np.complex64)
    assert np.isfinite(predictor(history, 5)).all()
    log = (tmp_path / "work" / "history.csv").read_text().splitlines()
    assert len(log) == 3
    # The same arguments again: nothing is left to train, the preset is written again.
    again = run("train_predictor.py", *arguments)
    assert again.returncode == 0, again.stderr
    refused(run("train_predictor.py", *arguments, "--seed", 2), "another configuration")
