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
        "new_city.py",
        "train_predictor.py",
        "prediction_eval.py",
        "tune_baselines.py",
        "train_baseline.py",
        "link_level_eval.py",
        "link_abstraction.py",
        "link_benchmark.py",
        "link_comparison.py",
        "replay_sequences.py",
        "show_masks.py",
        "tracing_benchmark.py",
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


@pytest.mark.rt
def test_a_new_city_refuses_wrong_input(tmp_path):
    refused(run("new_city.py", "--kind", "atlantis", "--out", tmp_path), "atlantis", "old_town")
    refused(run("new_city.py", "--set", "height=[90,20]", "--out", tmp_path), "height=[90, 20]")


@pytest.mark.rt
@pytest.mark.slow
def test_a_new_city_is_made_checked_traced_and_drawn(tmp_path):
    from lwmt_sionna.data import read_paths
    from lwmt_sionna.runs.records import read_record

    made = run("new_city.py", "--kind", "campus", "--seed", 5, "--out", tmp_path, "--quiet")
    assert made.returncode == 0, made.stderr
    paths = read_paths(tmp_path / "paths.h5")
    assert (paths.num_sequences, paths.num_snapshots) == (16, 21)
    assert paths.scene == "campus_5"
    drawn = ("city.png", "coverage_0.png", "tracks.png", "angle_delay.png", "angle_delay.gif")
    for name in drawn:
        assert (tmp_path / name).stat().st_size > 10_000
    record = read_record(tmp_path / "record.json")
    assert [point["step"] for point in record["points"]] == ["build", "check", "trace", "draw"]
    assert record["wall_time_s"] < 300


def test_tracks_are_replayed_at_another_speed(tmp_path):
    from lwmt_sionna.data import read_paths

    out = tmp_path / "slow.h5"
    arguments = ("--data", SHIPPED, "--speed", 15, "--out", out)
    done = run("replay_sequences.py", *arguments, "--period", 5e-3)
    assert done.returncode == 0, done.stderr
    slow, stored = read_paths(out), read_paths(SHIPPED)
    np.testing.assert_allclose(slow.speed, stored.speed / 2, rtol=1e-5)
    np.testing.assert_array_equal(slow.position[:, ::2], stored.position[:, :11])
    assert slow.metadata["replayed_from"]["file"] == SHIPPED.name
    refused(run("replay_sequences.py", *arguments, "--period", 7e-3), "whole part")
