"""The neural baselines: same start, same tokens, same training as the model."""

import functools

import numpy as np
import pytest

from lwmt_sionna.baselines import Hold, ModelPredictor
from lwmt_sionna.baselines.training import KINDS, build_baseline, train_baseline
from lwmt_sionna.data import ClusterConfig, draw_clusters, write_paths
from lwmt_sionna.models import ChannelPredictor
from lwmt_sionna.ops import Neighborhood, RandomNeighborhood
from lwmt_sionna.training import TrainConfig, prepare

TINY = {
    "num_ant": 8,
    "num_subcarriers": 8,
    "num_history": 8,
    "num_horizons": 2,
    "width": 8,
    "num_heads": 2,
    "patch": (2, 2),
    "context": 2,
    "experts": ((8, 2), (8, 3)),
    "denoise_radius": 1,
    "time_offsets": (-2, -1, 1, 2),
    "num_draws": 1,
    "epochs": 2,
    "batch_size": 4,
    "validation_share": 0.25,
}
CONFIG = TrainConfig(data=("none.h5",), **TINY)


@pytest.fixture
def history(rng):
    shape = (2, 8, 8, 8, 2)
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_it_is_its_starting_point(kind, history):
    model = build_baseline(kind, CONFIG)
    future = np.asarray(model(history))
    assert future.shape == (2, 2, 8, 8, 2)
    if kind == "gru":
        complex_history = np.ascontiguousarray(history).view(np.complex64)[..., 0]
        hold = Hold()(complex_history, 2)
        np.testing.assert_allclose(future[..., 0] + 1j * future[..., 1], hold, atol=1e-4)
    # A complex factor of the history is one of the prediction.
    turned = np.stack([-history[..., 1], history[..., 0]], axis=-1) * 3e-5
    expected = np.stack([-future[..., 1], future[..., 0]], axis=-1) * 3e-5
    np.testing.assert_allclose(np.asarray(model(turned)), expected, atol=3e-8)


def test_attention_differs_and_nothing_else():
    sparse = build_baseline("sparse", CONFIG)
    grid = (4, 4, 4)
    width = {}
    for kind in ("dense", "factored", "random"):
        model = build_baseline(kind, CONFIG)
        assert isinstance(model, ChannelPredictor)
        assert model.count_params() == sparse.count_params()
        blocks = model.backbone.blocks
        width[kind] = [block.attention.neighborhood.num_neighbors(grid) for block in blocks]
    assert width["dense"] == [64, 64]
    assert width["factored"] == [16, 4]
    own = sparse.backbone.neighborhood.num_neighbors(grid)
    assert width["random"] == [own, own]
    neighborhood = build_baseline("random", CONFIG).backbone.neighborhood
    assert isinstance(neighborhood, RandomNeighborhood)
    assert not isinstance(sparse.backbone.neighborhood, RandomNeighborhood)
    assert isinstance(sparse.backbone.neighborhood, Neighborhood)


@pytest.mark.parametrize("kind", ["gru", pytest.param("random", marks=pytest.mark.slow)])
def test_training_makes_a_preset(kind, rng, tmp_path):
    paths = draw_clusters(12, 10, 2.5e-3, rng, ClusterConfig())
    write_paths(tmp_path / "few.h5", paths)
    config = TrainConfig(data=(str(tmp_path / "few.h5"),), **TINY)
    model, outcome = train_baseline(kind, config, tmp_path / "work", verbose=0)
    assert np.isfinite(outcome["validation_loss_db"])
    assert len((tmp_path / "work" / "history.csv").read_text().splitlines()) == 3
    model.save_to_preset(tmp_path / kind)
    h = np.ones((2, 8, 8, 8), np.complex64)
    again = ModelPredictor(tmp_path / kind, kind)
    np.testing.assert_allclose(again(h, 2), ModelPredictor(model)(h, 2), atol=1e-6)
    if kind == "random":
        assert again.model.backbone.neighborhood == model.backbone.neighborhood


def test_kinds_of_attention_may_share_their_data(rng, tmp_path):
    """What the model prepares is what another attention would have prepared for itself."""
    write_paths(tmp_path / "few.h5", draw_clusters(8, 10, 2.5e-3, rng, ClusterConfig()))
    config = TrainConfig(data=(str(tmp_path / "few.h5"),), **TINY)
    shared = prepare(config)
    own = prepare(config, functools.partial(build_baseline, "dense"))
    assert shared.counts == own.counts
    for name in ("training", "validation"):
        mine, other = getattr(shared, name), getattr(own, name)
        np.testing.assert_allclose(mine.targets, other.targets, atol=1e-5)
        for feature, values in mine.features.items():
            np.testing.assert_allclose(values, other.features[feature], atol=1e-5)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="'lstm'"):
        build_baseline("lstm", CONFIG)
