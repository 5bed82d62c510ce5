"""Options of the backbone: positions, class token, masking."""

import numpy as np
import pytest
from keras import ops

from lwmt_sionna import LWMTBackbone, MaskedChannelModel, Neighborhood

GRID = (3, 4, 5)
UNITS = (2.5e-3, 2 / 4, 1 / 10e6)


def make_backbone(position="factored", class_token=False, **overrides):
    arguments = {
        "width": 12,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
        "neighborhood": Neighborhood(window=1, corridor=1, class_token=class_token),
        "position": position,
        "position_grid": GRID if position == "learned" else None,
    }
    return LWMTBackbone(**(arguments | overrides))


@pytest.fixture
def channel(rng):
    return rng.standard_normal((2, *GRID, 2)).astype(np.float32)


@pytest.mark.parametrize("position", ["factored", "rotary_grid", "learned", "rotary"])
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("masking", ["embedding", "zero"])
def test_options_round_trip(position, class_token, masking, channel):
    backbone = make_backbone(position, class_token, masking=masking)
    mask = np.zeros((2, 60), bool)
    mask[:, 7:20] = True
    before = backbone(channel, mask=mask)
    assert before.shape == (2, 60 + class_token, 12)
    assert before.shape == backbone.compute_output_shape(channel.shape)
    copy = LWMTBackbone.from_config(backbone.get_config())
    assert copy.get_config() == backbone.get_config()
    copy.build(channel.shape)
    copy.set_weights(backbone.get_weights())
    np.testing.assert_allclose(copy(channel, mask=mask), before, atol=1e-6)
    # What is hidden does not reach the output.
    changed = channel.copy().reshape(2, 60, 2)
    changed[:, 7:20] += 1
    np.testing.assert_array_equal(backbone(changed.reshape(channel.shape), mask=mask), before)


def test_zero_masking_leaves_hidden_tokens_without_a_position(channel):
    """Two hidden tokens that see the same neighbours cannot be told apart; an embedding tells."""
    mask = np.ones((2, 60), bool)
    for masking, same in (("zero", True), ("embedding", False)):
        outputs = ops.convert_to_numpy(make_backbone(masking=masking)(channel, mask=mask))
        assert np.allclose(outputs, outputs[:, :1], atol=1e-5) == same


def test_learned_positions_serve_fewer_snapshots(channel):
    backbone = make_backbone("learned", class_token=True)
    backbone.build(channel.shape)
    short = backbone(channel[:, :2])
    assert short.shape == (2, 41, 12)
    with pytest.raises(ValueError, match=r"grid=\(3, 5, 5\)"):
        backbone(np.zeros((1, 3, 5, 5, 2), np.float32))


@pytest.mark.parametrize("position", ["factored", "rotary_grid"])
def test_another_sampling_period_is_another_position(position, channel):
    backbone = make_backbone(position, position_units=UNITS)
    one = backbone(channel, sampling_period=2.5e-3, bandwidth=10e6)
    other = backbone(channel, sampling_period=5e-3, bandwidth=10e6)
    assert np.abs(one - other).max() > 1e-3
    both = backbone(channel, sampling_period=np.array([2.5e-3, 5e-3], np.float32), bandwidth=10e6)
    np.testing.assert_allclose(both[0], one[0], atol=1e-5)
    np.testing.assert_allclose(both[1], other[1], atol=1e-5)
    with pytest.raises(ValueError, match="sampling_period=None"):
        backbone(channel)


def test_masked_model_takes_physical_positions_per_sample(channel):
    model = MaskedChannelModel(make_backbone("rotary_grid", True, position_units=UNITS))
    inputs = {
        "channel": channel,
        "mask": np.zeros((2, 60), bool),
        "sampling_period": np.array([2.5e-3, 5e-3], np.float32),
        "bandwidth": np.full(2, 10e6, np.float32),
    }
    reconstruction = model(inputs)
    assert reconstruction.shape == channel.shape
    other = model(inputs | {"sampling_period": np.full(2, 2.5e-3, np.float32)})
    np.testing.assert_allclose(reconstruction[0], other[0], atol=1e-5)
    assert np.abs(reconstruction[1] - other[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position": "none"}, "position='none'"),
        ({"masking": "noise"}, "masking='noise'"),
        ({"position": "learned"}, "position_grid=None"),
        ({"position_grid": GRID}, "position_grid"),
        ({"position": "rotary", "position_units": UNITS}, "position_units"),
        ({"position_units": (1.0, 0.0, 1.0)}, "position_units"),
        ({"position": "rotary", "width": 18, "num_heads": 2}, "width=18"),
        ({"patch": (0, 1)}, "patch"),
        ({"depth": 0}, "depth=0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LWMTBackbone(**arguments)


def test_published_size():
    """151.5 thousand parameters but for the position table of 20 x 32 x 32 tokens."""
    model = MaskedChannelModel(
        LWMTBackbone(position="learned", position_grid=(20, 32, 32), masking="zero")
    )
    model.build({"channel": (None, 20, 32, 32, 2), "mask": (None, 20480)})
    assert model.count_params() - 20480 * 32 == 151_522
