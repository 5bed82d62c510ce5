"""Shipped presets: what they hold, and that architectures without weights are told apart."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest

from lwmt_sionna import ChannelPredictor, LWMTBackbone, MaskedChannelModel
from lwmt_sionna.data import (
    PlanarArray,
    draw_clusters,
    read_paths,
    subcarrier_frequencies,
    synthesize,
)
from lwmt_sionna.models import DEFAULT_PRESET, LineOfSightClassifier, list_presets
from lwmt_sionna.models.presets import preset_digest, preset_folder
from lwmt_sionna.training.studies import CONDITIONS, draw_views, reconstruction_points

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_presets_without_weights_are_told_apart():
    assert {"paper", "testing"} <= set(list_presets(with_weights=False))
    assert {"universal", "small", "paths", "base", "sight", "tiny"} <= set(list_presets(True))
    assert DEFAULT_PRESET == "universal"
    assert list_presets(True, model="MaskedChannelModel") == ["base", "tiny"]
    assert sorted(list_presets(True) + list_presets(False)) == list_presets()
    for name in list_presets(with_weights=False):
        folder = preset_folder(name)
        assert not json.loads((folder / "metadata.json").read_text())["has_weights"]
        assert "without weights" in (folder / "README.md").read_text()


def test_paper_is_the_published_configuration():
    with pytest.raises(ValueError, match="architecture and has no weights"):
        MaskedChannelModel.from_preset("paper")
    model = MaskedChannelModel.from_preset("paper", load_weights=False)
    backbone = model.backbone
    metadata = json.loads((preset_folder("paper") / "metadata.json").read_text())
    assert model.count_params() == metadata["num_parameters"] == 151_522 + 20_480 * 32
    published = LWMTBackbone.published(name=backbone.name)
    assert backbone.get_config() == published.get_config()
    neighborhood = backbone.neighborhood
    assert neighborhood.num_neighbors((20, 32, 32)) == 168
    assert (neighborhood.window, neighborhood.time_offsets) == ((2, 2), (-4, -3, -2, -1, 1, 2, 3))
    assert backbone.blocks[0].attention.routing.num_keys(168) == 32
    assert LWMTBackbone.from_preset("paper", load_weights=False).depth == 12


@pytest.mark.usefixtures("eagerly")
def test_testing_runs(rng):
    predictor = ChannelPredictor.from_preset("testing", load_weights=False)
    h = rng.standard_normal((1, 16, 8, 8, 2)).astype(np.float32)
    assert np.isfinite(predictor(h)).all()
    assert predictor.count_params() < 5000


def test_tiny_has_learnt_to_fill_in_what_is_hidden(rng):
    """Of clusters never seen: without learning, a guess is no better than none, 0 dB."""
    masked = MaskedChannelModel.from_preset("tiny")
    assert (preset_folder("tiny") / "model.weights.h5").stat().st_size < 1e6
    clusters = draw_clusters(8, 16, 2.5e-3, rng)
    conditions = {name: CONDITIONS[name] for name in ("random", "tail")}
    views = draw_views(clusters, (16, 32, 32), 2e7, conditions, masked.backbone.patch)
    for point in reconstruction_points(masked, views):
        assert point["nmse_median_db"] < -1.0


def test_another_kind_of_model_is_refused():
    with pytest.raises(ValueError, match="expected MaskedChannelModel"):
        MaskedChannelModel.from_preset("small")
    backbone = LWMTBackbone.from_preset("small")
    whole = ChannelPredictor.from_preset("small")
    np.testing.assert_array_equal(backbone.embed.kernel, whole.backbone.embed.kernel)


def test_words_about_a_preset_do_not_count(tmp_path):
    """What was computed with it is kept as long as the model is the same."""
    folder = tmp_path / "preset"
    shutil.copytree(preset_folder("small"), folder)
    (folder / "README.md").write_text("Other words.\n")
    (folder / "metadata.json").unlink()
    assert preset_digest(folder) == preset_digest("small")
    for name in ("config.json", "model.weights.h5"):
        before = preset_digest(folder)
        with open(folder / name, "ab") as file:
            file.write(b"\n")
        assert preset_digest(folder) != before


def test_precision_can_be_chosen():
    backbone = LWMTBackbone.from_preset("testing", load_weights=False, dtype="mixed_bfloat16")
    tokens = backbone(np.zeros((1, 2, 8, 8, 2), np.float32))
    assert "bfloat16" in str(tokens.dtype)
    assert "float32" in str(backbone.blocks[0].expand.kernel.dtype)


def test_a_full_disk_is_told_by_path_and_leaves_the_preset(tmp_path, full_disk):
    """HDF5 would end the process; the preset that was there stays whole."""
    predictor = ChannelPredictor.from_preset("testing", load_weights=False)
    predictor.save_to_preset(tmp_path / "preset")
    before = {path.name: path.read_bytes() for path in (tmp_path / "preset").iterdir()}
    with full_disk(4096), pytest.raises(OSError, match=r"model\.weights\.h5"):
        predictor.save_to_preset(tmp_path / "preset")
    assert {path.name: path.read_bytes() for path in (tmp_path / "preset").iterdir()} == before


def test_sight_knows_a_city_that_it_was_not_taught_in():
    paths = read_paths(ROOT / "experiments" / "data" / "san_francisco_30kmh_5ms.h5")
    paths = paths.select(np.arange(48))
    frequencies = subcarrier_frequencies(32, 540e3)
    h = synthesize(paths, PlanarArray(num_cols=32), frequencies, snapshots=np.arange(16))
    scales = {"sampling_period": paths.sampling_period, "subcarrier_spacing": 540e3}
    x = {"h": h} | {name: np.full(len(h), value, np.float32) for name, value in scales.items()}
    task = LineOfSightClassifier.from_preset("sight")
    answers = task.head(task.embed(x, batch_size=16))
    seen = keras.ops.convert_to_numpy(answers)[:, 0] > 0
    assert np.mean(seen == paths.line_of_sight[:, 15]) > 0.85
    # All but the head is that of `base`.
    base = MaskedChannelModel.from_preset("base")
    for mine, theirs in zip(task.masked.get_weights(), base.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
