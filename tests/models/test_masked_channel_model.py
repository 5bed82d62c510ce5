"""Masked channel modelling: what is hidden stays hidden, at any scale."""

import keras
import numpy as np
import pytest

from lwmt_sionna.models import LWMTBackbone, MaskedChannelModel
from lwmt_sionna.models.losses import token_error
from lwmt_sionna.ops import Neighborhood

SHAPE = (2, 3, 4, 4, 2)


def build(local_scale=True, local_motion=False, class_token=False, **settings):
    neighborhood = Neighborhood(
        window=(1, 1), corridor=(1, 1), time_offsets=(-1, 1), class_token=class_token
    )
    backbone = LWMTBackbone(
        width=8, depth=1, num_heads=2, patch=(2, 2), neighborhood=neighborhood, **settings
    )
    model = MaskedChannelModel(backbone, local_scale=local_scale, local_motion=local_motion)
    model.build(None)
    return model


@pytest.fixture
def channel(rng):
    return rng.standard_normal(SHAPE).astype(np.float32)


@pytest.fixture
def mask(rng):
    return rng.uniform(size=(2, 12)) < 0.4


@pytest.mark.parametrize("masking", ["embedding", "zero"])
@pytest.mark.parametrize("local", [(False, False), (True, False), (False, True), (True, True)])
def test_hidden_tokens_do_not_enter(channel, mask, local, masking, rng):
    model = build(*local, masking=masking)
    hidden = mask.reshape(2, 3, 2, 2).repeat(2, axis=2).repeat(2, axis=3)[..., None]
    other = np.where(hidden, 100 * rng.standard_normal(SHAPE), channel).astype(np.float32)
    first, second = (np.asarray(model({"channel": x, "mask": mask})) for x in (channel, other))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("class_token", [False, True])
def test_a_factor_of_the_input_is_one_of_the_output(channel, mask, class_token):
    model = build(class_token=class_token)
    first = np.asarray(model({"channel": channel, "mask": mask}))
    second = np.asarray(model({"channel": 1e-3 * channel, "mask": mask}))
    np.testing.assert_allclose(second, 1e-3 * first, rtol=1e-3, atol=1e-7)


def test_a_weak_patch_looks_like_a_strong_one(channel):
    """But for the level that is embedded beside."""
    model = build()
    for variable in model.level_features.weights:
        variable.assign(keras.ops.zeros_like(variable))
    weak = channel.copy()
    weak[:, :, :2, :2] *= 0.1
    first, second = (np.asarray(model({"channel": x})) for x in (channel, weak))
    np.testing.assert_allclose(
        second[:, :, :2, :2], 0.1 * first[:, :, :2, :2], rtol=0.05, atol=0.02
    )


def test_all_hidden_and_all_zero_are_finite(channel):
    model = build()
    everything = np.ones((2, 12), bool)
    assert np.isfinite(np.asarray(model({"channel": channel, "mask": everything}))).all()
    assert np.isfinite(np.asarray(model({"channel": 0 * channel, "mask": ~everything}))).all()


def test_a_doppler_shift_is_one_of_the_reconstruction(channel):
    model = build(local_motion=True)
    mask = np.arange(12)[None].repeat(2, axis=0) >= 8  # the last snapshot

    def shift(x):
        z = (x[..., 0] + 1j * x[..., 1]) * np.exp(1.1j * np.arange(3)).reshape(1, 3, 1, 1)
        return np.stack([z.real, z.imag], axis=-1).astype(np.float32)

    first = np.asarray(model({"channel": channel, "mask": mask}))
    second = np.asarray(model({"channel": shift(channel), "mask": mask}))
    np.testing.assert_allclose(second, shift(first), rtol=1e-2, atol=1e-2)


def test_config_keeps_the_scaling(channel):
    model = build(local_motion=True)
    copy = MaskedChannelModel.from_config(model.get_config())
    assert copy.local_scale and copy.local_motion
    assert not MaskedChannelModel(build().backbone).local_scale


def test_the_loss_counts_the_wanted_tokens(channel, mask):
    model = build()
    x = {"channel": channel, "mask": mask}
    guess = channel + 0.1
    everything = np.ones_like(mask)
    wanted = model.compute_loss(x | {"wanted": everything}, channel, guess)
    error = np.sum((guess - channel) ** 2, axis=(1, 2, 3, 4))
    expected = np.mean(error / np.sum(channel**2, axis=(1, 2, 3, 4)))
    assert float(wanted) == pytest.approx(expected, rel=1e-4)
    assert float(model.compute_loss(x, channel, guess)) != pytest.approx(expected, rel=1e-2)


def test_token_error_has_a_floor(channel):
    silent = channel.copy()
    silent[:, 0] = 0
    first = np.zeros((2, 12), bool)
    first[:, :4] = True
    ratio = np.asarray(token_error(silent, silent + 0.1, first, (2, 2), floor=0.1))
    power = np.mean(np.sum(silent**2, axis=(2, 3, 4)).sum(axis=1) / 12)
    assert ratio.shape == (2,) and (ratio < 0.01 * 32 / (0.1 * 4 * power) * 3).all()
    assert (np.asarray(token_error(silent, silent + 0.1, first, (2, 2))) > 1e6).all()
