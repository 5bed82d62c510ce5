"""The scripts as a user meets them: help, wrong input, a small whole run. All in this process."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from lwmt_sionna.data import ChannelSequences, write_channels
from lwmt_sionna.runs import command_line
from lwmt_sionna.runs.store import RunFolder
from tests.experiments.scripts import CONFIGS, ROOT, SCRIPTS, read_configs, script

SHIPPED = ROOT / "experiments" / "data" / "san_francisco_30kmh_5ms.h5"


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a script in the root of the repository; returns exit status, stdout and stderr."""
    monkeypatch.chdir(ROOT)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            command_line.run(script(name).main)
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run


@pytest.fixture
def tiny_training(tmp_path):
    """The configuration of a training of seconds."""
    from lwmt_sionna.data import read_paths, write_paths

    write_paths(tmp_path / "few.h5", read_paths(SHIPPED).select(slice(0, 12)))
    config = tmp_path / "tiny.toml"
    config.write_text(
        f'data = ["{tmp_path}/few.h5"]\nnum_ant = 8\nnum_subcarriers = 8\nwidth = 8\ndepth = 1\n'
        "num_heads = 2\nbatch_size = 4\nepochs = 2\nnum_draws = 1\nvalidation_share = 0.25\n"
        "experts = [[8, 2]]\ncontext = 3\n"
    )
    return config


def refused(outcome, *words):
    """One line on stderr that holds the words, no traceback, and a non-zero exit."""
    status, _, err = outcome
    lines = [line for line in err.splitlines() if ".py: error:" in line]
    assert status == 2, err
    assert len(lines) == 1 and "Traceback" not in err, err
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(run, name):
    status, out, _ = run(name, "--help")
    assert status == 0
    assert "Example:" in out


def options(text):
    """From an option to its words in a help text."""
    parts = [part.partition("\n\n")[0] for part in re.split(r"\n  (?=-)", text)]
    return {part.split()[0].rstrip(","): " ".join(part.split()[1:]) for part in parts[1:]}


SHARED = (
    "dask", "data", "history_snr", "horizons", "limit", "link_snr", "preset", "seed", "workers",
)  # fmt: skip
# What it is about where it is the main thing rather than an override.
OWN_WORDS = {"--data", "--seed"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_options_mean_the_same_everywhere(run, name):
    parser = command_line.build_parser("")
    command_line.add_options(parser, *SHARED)
    shared = options(parser.format_help())
    found = options(run(name, "--help")[1])
    for option in set(shared) & set(found) - OWN_WORDS:
        assert found[option].startswith(shared[option]), (option, found[option])
    gone = {"--snr", "--resume", "--num-horizons", "--max-test", "--presets"}
    assert not gone & set(found)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_are_read(path):
    for config in read_configs(path).values():
        assert type(config).from_dict(config.to_dict()) == config


@pytest.mark.rt
def test_generation_refuses_wrong_input(run, tmp_path):
    config = ROOT / "experiments" / "configs" / "data_munich.toml"
    out = tmp_path / "x.h5"
    refused(run("generate_sequences.py", "--config", "none.toml", "--out", out), "none.toml")
    refused(
        run("generate_sequences.py", "--config", config, "--scene", "atlantis", "--out", out),
        "atlantis",
        "munich",
    )
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(
        'scene = "munich"\nbase_stations = [[0, 0, 9]]\nnum_sequences = 1\nspeed = 3\n'
    )
    refused(run("generate_sequences.py", "--config", wrong, "--out", out), "speed")
    refused(run("generate_sequences.py", "--config", config, "--variant", "fast"), "none", "fast")


@pytest.mark.parametrize(
    ("name", "config", "function"),
    [
        ("generate_sequences.py", "data_munich.toml", "lwmt_sionna.rt.generate"),
        (
            "generate_channels.py",
            "worlds/cdl_a_100ns_3kmh_5ms.toml",
            "lwmt_sionna.link.phy.tr38901.generate_channels",
        ),
    ],
)
def test_a_folder_takes_a_file_of_the_name_of_its_configuration(
    run, tmp_path, monkeypatch, name, config, function
):
    """An hour of work must not end at a folder that cannot be written to like a file."""
    paths = []

    def write(config, path, **options):
        paths.append(path)
        raise ValueError("written")

    monkeypatch.setattr(function, write)
    config = ROOT / "experiments" / "configs" / config
    refused(run(name, "--config", config, "--out", tmp_path), "written")
    assert paths == [tmp_path / f"{config.stem.removeprefix('data_')}.h5"]


@pytest.mark.rt
def test_generation_without_llvm_says_what_to_install(tmp_path):
    # A process of its own: LLVM is found once per process.
    program = ROOT / "experiments" / "generate_sequences.py"
    config = ROOT / "experiments" / "configs" / "data_munich.toml"
    done = subprocess.run(
        [sys.executable, program, "--config", config, "--out", tmp_path / "x.h5"],
        env=os.environ | {"DRJIT_LIBLLVM_PATH": "/nowhere/libLLVM.so"},
        capture_output=True,
        text=True,
    )
    refused(
        (done.returncode, done.stdout, done.stderr),
        "/nowhere/libLLVM.so",
        "apt-get install libllvm19",
    )


def test_evaluation_refuses_wrong_input(run, tmp_path):
    short = tmp_path / "short.h5"
    short.write_bytes(SHIPPED.read_bytes()[:5000])
    refused(run("prediction_eval.py", "--data", "none.h5"), "none.h5")
    refused(run("prediction_eval.py", "--data", short, "--preset"), "short.h5")
    refused(run("prediction_eval.py", "--data", SHIPPED, "--preset", "nonsense"), "nonsense")
    refused(
        run("prediction_eval.py", "--data", SHIPPED, "--preset", "--figures", tmp_path), "--preset"
    )


def test_evaluation_asks_channels_for_no_other_grid_than_theirs(run, tmp_path):
    h = np.random.default_rng(2).standard_normal((2, 21, 4, 6)) + 0j
    write_channels(tmp_path / "c.h5", ChannelSequences(h, 5e-3, 3.5e9, 30e3, (1, 4, 1), "x"))
    arguments = ("prediction_eval.py", "--data", tmp_path / "c.h5", "--preset", "--num-ant")
    refused(run(*arguments, "8"), "c.h5 holds channels", "--num-ant is 4 there")
    refused(run(*arguments, "4", "--num-subcarriers", "8"), "--num-subcarriers is 6 there")
    refused(run(*arguments, "4", "--polarization", "cross"), "of 1 pol", "--polarization=cross")


def test_two_runs_in_one_folder_are_refused(run, tmp_path):
    arguments = ("--data", SHIPPED, "--out", tmp_path / "x.json", "--workdir", tmp_path / "work")
    with RunFolder(tmp_path / "work"):
        refused(
            run("position_codes.py", *arguments),
            "another run works in this folder",
            "folder=",
            "work",
        )


@pytest.mark.usefixtures("eagerly")
def test_training_runs_resumes_and_makes_a_preset(run, tiny_training, tmp_path):
    from lwmt_sionna.baselines import ModelPredictor

    arguments = ("--config", tiny_training, "--workdir", tmp_path / "work", "--quiet")
    status, _, err = run("train_predictor.py", *arguments)
    assert status == 0, err
    predictor = ModelPredictor(tmp_path / "work" / "preset")
    history = np.ones((1, 16, 8, 8), np.complex64)
    assert np.isfinite(predictor(history, 5)).all()
    log = (tmp_path / "work" / "history.csv").read_text().splitlines()
    assert len(log) == 3
    # The same arguments again: nothing is left to train, the preset is written again.
    status, _, err = run("train_predictor.py", *arguments)
    assert status == 0, err
    refused(run("train_predictor.py", *arguments, "--seed", 2), "another configuration")


@pytest.mark.usefixtures("eagerly")
def test_attentions_are_compared_and_trainings_kept(run, tiny_training, tmp_path):
    from lwmt_sionna.runs.records import read_record

    arguments = ("--config", tiny_training, "--steps", 1, "--workdir", tmp_path / "work", "--quiet")
    few = (*arguments, "--attentions", "none", "--seeds", 3)
    status, out, err = run("attention_study.py", *few)
    assert status == 0, err
    [point] = read_record(tmp_path / "work" / "record.json")["points"]
    assert (point["attention"], point["seed"]) == ("none", 3)
    # One step makes nothing better: the weights of the start are kept.
    assert point["validation_loss_db"] <= point["validation_loss_untrained_db"] < 0
    # The training is kept: the same table, processor time included.
    assert run("attention_study.py", *few)[1] == out


@pytest.mark.parametrize("exponent", (1, 2))
def test_the_longest_history_is_found(monkeypatch, exponent):
    from lwmt_sionna.training import PretrainConfig

    study, asked = script("pretraining_study.py"), []

    def peak(config, count, most):
        asked.append(count)
        memory = 0.9 + 1e-3 * count**exponent
        return memory if memory <= most else None

    monkeypatch.setattr(study, "peak_gigabytes", peak)
    config = PretrainConfig.from_toml(ROOT / "experiments" / "configs" / "pretrain_tiny.toml")
    [found] = study.longest_history(config, "dense", 8.0, None)
    most = (7.1e3) ** (1 / exponent)
    assert most / study.CLOSE - 1 <= found["snapshots"] <= most
    assert found["peak_gb"] <= 8.0 and len(asked) < 12


@pytest.mark.rt
def test_a_new_city_refuses_wrong_input(run, tmp_path):
    refused(run("new_city.py", "--kind", "atlantis", "--out", tmp_path), "atlantis", "old_town")
    refused(run("new_city.py", "--set", "height=[90,20]", "--out", tmp_path), "height=[90, 20]")


@pytest.mark.rt
@pytest.mark.slow
def test_a_new_city_is_made_checked_traced_and_drawn(run, tmp_path):
    from lwmt_sionna.data import read_paths
    from lwmt_sionna.runs.records import read_record

    arguments = ("--kind", "campus", "--seed", 5, "--out", tmp_path, "--quiet")
    status, _, err = run("new_city.py", *arguments)
    assert status == 0, err
    paths = read_paths(tmp_path / "paths.h5")
    assert (paths.num_sequences, paths.num_snapshots) == (16, 21)
    assert paths.scene == "campus_5"
    drawn = ("city.png", "coverage_0.png", "tracks.png", "angle_delay.png", "angle_delay.gif")
    for name in drawn:
        assert (tmp_path / name).stat().st_size > 10_000
    record = read_record(tmp_path / "record.json")
    assert [point["step"] for point in record["points"]] == ["build", "check", "trace", "draw"]
    assert record["wall_time_s"] < 300


def test_tracks_are_replayed_at_another_speed(run, tmp_path):
    from lwmt_sionna.data import read_paths

    out = tmp_path / "slow.h5"
    arguments = ("--data", SHIPPED, "--speed", 15, "--out", out)
    status, _, err = run("replay_sequences.py", *arguments, "--period", 5e-3)
    assert status == 0, err
    slow, stored = read_paths(out), read_paths(SHIPPED)
    np.testing.assert_allclose(slow.speed, stored.speed / 2, rtol=1e-5)
    np.testing.assert_array_equal(slow.position[:, ::2], stored.position[:, :11])
    assert slow.metadata["replayed_from"]["file"] == SHIPPED.name
    refused(run("replay_sequences.py", *arguments, "--period", 7e-3), "whole part")


def test_views_of_a_channel_are_drawn(tmp_path, rng, saved_figures):
    clean = rng.standard_normal((6, 4, 5)) + 1j * rng.standard_normal((6, 4, 5))
    hidden = rng.uniform(size=clean.shape) < 0.3
    views = {"one": (clean, hidden), "two": (0 * clean, ~hidden)}
    script("show_masks.py").draw_views(clean, views, tmp_path / "views.png")
    [figure] = saved_figures
    plane, course, strongest = figure.axes[:3]
    level = 20 * np.log10(np.abs(clean) / np.abs(clean).max())
    angle, delay = np.unravel_index(np.mean(np.abs(clean) ** 2, 0).argmax(), (4, 5))
    for image, values, mask in (
        (plane, level[3], hidden[3]),
        (course, level[:, angle], hidden[:, angle]),
    ):
        drawn = image.images[0].get_array()
        np.testing.assert_array_equal(drawn.mask, mask)
        np.testing.assert_allclose(drawn.data[~mask], values[~mask], atol=1e-6)
    true, observed = strongest.lines
    np.testing.assert_array_equal(true.get_ydata(), clean[:, angle, delay].real)
    np.testing.assert_array_equal(observed.get_xdata(), np.nonzero(~hidden[:, angle, delay])[0])
