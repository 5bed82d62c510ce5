"""The contestants of the model: same start, same tokens, same training."""

import numpy as np
import pytest

from lwmt_sionna.baselines import Hold, ModelPredictor
from lwmt_sionna.data import ClusterConfig, draw_clusters, write_paths
from lwmt_sionna.models import ChannelPredictor
from lwmt_sionna.ops import Neighborhood, RandomNeighborhood
from lwmt_sionna.training import CONTESTANTS, load_data, train
from tests.training.small import predictor_config

CONFIG = predictor_config(["none.h5"], num_ant=8, num_subcarriers=8, depth=2)


def build(name, config=CONFIG):
    return config.contestant(name).build()


@pytest.fixture
def history(rng):
    shape = (2, 8, 8, 8, 2)
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("kind", CONTESTANTS)
def test_untrained_it_is_its_starting_point(kind, history):
    model = build(kind)
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
    sparse = build("sparse")
    grid = (4, 4, 4)
    width = {}
    for kind in ("dense", "factored", "random"):
        model = build(kind)
        assert isinstance(model, ChannelPredictor)
        assert model.count_params() == sparse.count_params()
        blocks = model.backbone.blocks
        width[kind] = [block.attention.neighborhood.num_neighbors(grid) for block in blocks]
    assert width["dense"] == [64, 64]
    assert width["factored"] == [16, 4]
    own = sparse.backbone.neighborhood.num_neighbors(grid)
    assert width["random"] == [own, own]
    neighborhood = build("random").backbone.neighborhood
    assert isinstance(neighborhood, RandomNeighborhood)
    assert not isinstance(sparse.backbone.neighborhood, RandomNeighborhood)
    assert isinstance(sparse.backbone.neighborhood, Neighborhood)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("kind", CONTESTANTS)
@pytest.mark.parametrize("grid", [(7, 5), (3, 9), (1, 4)])
def test_patches_need_not_tile_the_grid(kind, grid, rng):
    config = predictor_config(["none.h5"], num_ant=grid[0], num_subcarriers=grid[1])
    model = build(kind, config)
    future = np.asarray(model(rng.standard_normal((2, 8, *grid, 2)).astype(np.float32)))
    assert future.shape == (2, 2, *grid, 2) and np.isfinite(future).all()


@pytest.mark.usefixtures("eagerly")
def test_recurrent_patches_that_hang_over_the_edge_are_those_of_a_larger_grid(rng):
    """What is beyond the edge counts as zeros, and what is within is predicted alike."""
    model = build("gru", predictor_config(["none.h5"], patch=(2, 4)))
    for variable in model.head.weights:
        variable.assign(rng.standard_normal(variable.shape).astype(np.float32))
    clean = rng.standard_normal((2, 8, 4, 8, 2)).astype(np.float32)
    clean[:, :, 3], clean[:, :, :, 6:] = 0, 0
    noise = np.ones(2, np.float32)

    def refine(x):
        forecasts = np.repeat(x[:, -1:], 2, axis=1)[:, None]
        return np.asarray(model.refine({"clean": x, "forecasts": forecasts, "noise": noise}))

    whole, cut = refine(clean), refine(clean[:, :, :3, :6])
    np.testing.assert_allclose(cut, whole[:, :, :3, :6], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["gru", pytest.param("random", marks=pytest.mark.slow)])
def test_training_makes_a_preset(kind, rng, tmp_path):
    write_paths(tmp_path / "few.h5", draw_clusters(12, 10, 2.5e-3, rng, ClusterConfig()))
    config = predictor_config([tmp_path / "few.h5"], epochs=2).contestant(kind)
    model, outcome = train(config, tmp_path / "work", verbose=0)
    assert outcome["validation_loss_db"] <= outcome["validation_loss_untrained_db"]
    assert len((tmp_path / "work" / "history.csv").read_text().splitlines()) == 3
    model.save_to_preset(tmp_path / kind)
    h = np.ones((2, 8, 4, 4), np.complex64)
    again = ModelPredictor(tmp_path / kind, kind)
    np.testing.assert_allclose(again(h, 2), ModelPredictor(model)(h, 2), atol=1e-6)
    if kind == "random":
        assert again.model.backbone.neighborhood == model.backbone.neighborhood


def test_presets_of_earlier_versions_name_another_module(tmp_path):
    build("gru").save_to_preset(tmp_path)
    path = tmp_path / "config.json"
    text = path.read_text()
    assert "lwmt_sionna.training.contestants" in text
    path.write_text(text.replace("training.contestants", "baselines.neural"))
    (tmp_path / "metadata.json").unlink()  # which had no checksums then
    model = ModelPredictor(tmp_path).model
    assert type(model).__name__ == "RecurrentPredictor"


def test_kinds_of_attention_may_share_their_data(rng, tmp_path):
    """What the model prepares is what another attention would have prepared for itself."""
    write_paths(tmp_path / "few.h5", draw_clusters(8, 10, 2.5e-3, rng, ClusterConfig()))
    config = predictor_config([tmp_path / "few.h5"])
    shared, own = load_data(config), load_data(config.contestant("dense"))
    assert shared.counts == own.counts
    for name in ("training", "validation"):
        (mine, target), (other, wanted) = (getattr(data, name)[0] for data in (shared, own))
        np.testing.assert_allclose(target, wanted, rtol=2e-3, atol=1e-4)
        for feature, values in mine.items():
            np.testing.assert_allclose(values, other[feature], rtol=2e-3, atol=1e-4)


def test_unknown_contestants_are_refused():
    with pytest.raises(ValueError, match="'lstm'"):
        CONFIG.contestant("lstm")
