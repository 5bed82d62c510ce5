"""An array of one's own goes through evaluation, fine-tuning and link by the README's commands."""

import re
import shlex
import sys

import numpy as np
import pytest

from lwmt_sionna import ChannelPredictor, LWMTBackbone
from lwmt_sionna.__main__ import main as lwmt
from lwmt_sionna.data import (
    ClusterConfig,
    PlanarArray,
    draw_clusters,
    read_channels,
    subcarrier_frequencies,
    synthesize,
)
from lwmt_sionna.runs.records import read_record
from tests.experiments.scripts import ROOT

# What makes each command quick.
QUICK = {
    "data": [],
    "predict": ["--preset", "least", "--baselines", "hold", "pooled_ar"],
    "finetune": ["--steps", "2", "--history-snr", "15"],
    "link-eval": [
        "--policies", "perfect", "hold", "--decoding", "information", "--drops", "2",
    ],
}  # fmt: skip


def commands():
    """Words after `lwmt` of the commands of the section of the README."""
    text = (ROOT / "README.md").read_text().partition("## Channels of your own")[2]
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)[1].replace("\\\n", " ")
    lines = [line for line in block.splitlines() if line.startswith("lwmt ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def save_array(folder, shape, array):
    """Users at 30 km/h among random clusters: each has directions of its own."""
    users, snapshots, _, subcarriers = shape
    rng = np.random.default_rng(3)
    paths = draw_clusters(users, snapshots, 5e-3, rng, ClusterConfig(speed_kmh=(30.0, 30.0)))
    h = synthesize(paths, array, subcarrier_frequencies(subcarriers, 30e3))
    assert h.shape == shape
    (folder / "data").mkdir()
    np.save(folder / "data" / "mine.npy", h)
    return h


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Another directory than that of the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lwmt"])
    assert not lwmt(words)


def check(folder, h, preset):
    channels = read_channels(folder / "data" / "mine.h5")
    np.testing.assert_array_equal(channels.h, h)
    judged = read_record(folder / "runs" / "prediction_eval.json")
    assert {point["subset"] for point in judged["points"]} == {"all"}
    assert {"hold", preset} <= {point["predictor"] for point in judged["points"]}
    tuned = read_record(folder / "runs" / "mine" / "record.json")
    assert tuned["config"]["data"]["num_rows"] == channels.array_shape[0]
    assert {point["scene"] for point in tuned["points"]} == {"mine.npy"}
    link = read_record(folder / "runs" / "mine_link" / "link_level_eval.json")
    policies = {point["policy"] for point in link["points"]}
    assert {"hold", "model", "preset:runs/mine/preset"} <= policies | {"model"}
    # What is not known of channels without paths is left out, with a word.
    assert "causal" not in policies
    assert {point["slot_motion"] for point in link["points"]} == {"held"}
    rows = {row["policy"]: row["goodput"] for row in link["goodput"]}
    assert rows["perfect"] >= rows["hold"]


@pytest.mark.usefixtures("eagerly")
def test_quick_form(folder, monkeypatch):
    h = save_array(folder, (16, 21, 4, 8), PlanarArray(2, 2))
    least = ChannelPredictor(
        LWMTBackbone(width=8, depth=1, num_heads=2, patch=(2, 2)),
        num_horizons=5, experts=((8, 2),), context=2, denoise_radius=1,
    )  # fmt: skip
    least.build((None, 16, 4, 8, 2))
    least.save_to_preset(folder / "least")
    config = folder / "tuning.toml"
    config.write_text(
        'files = ["none.h5"]\ntest_share = 0.2\nnum_draws = 1\nbatch_size = 4\nepochs = 1\n'
    )
    link = folder / "link.toml"
    link.write_text(
        'policies = ["perfect", "causal", "hold", "model"]\n'
        "report_mcs = 10\nreport_link_snr_db = 12.0\ndrops = { max_similarity = 1.0 }\n"
        "downlink = { num_users = 2 }\n"
        'sweep = { link_snr_db = [12.0], mcs = [10], horizons = [1], compile = "eager" }\n'
    )
    for words in commands():
        words = " ".join(shlex.quote(word) for word in words)
        words = words.replace("link_demo", str(link))
        words = words.replace("finetune_predictor_small", str(config))
        words = words.replace("4 8 1", "2 2 1").replace("universal", "least")
        words = shlex.split(words)
        run([*words, *QUICK[words[0]]], monkeypatch)
    check(folder, h, "least")


@pytest.mark.slow
def test_as_the_readme_shows(folder, monkeypatch):
    h = save_array(folder, (50, 21, 32, 64), PlanarArray(4, 8))
    for words in commands():
        run(words, monkeypatch)
    check(folder, h, "universal")
