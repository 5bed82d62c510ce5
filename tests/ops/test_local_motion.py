"""Patches turned back by their own Doppler shift."""

import keras
import numpy as np
import pytest

from lwmt_sionna.models.normalization import turn
from lwmt_sionna.ops.patches import local_motion

PATCH = (2, 2)


def tones(rng, num_snapshots=6, size=4):
    """One Doppler shift per patch: `[1, time, size, size, 2]` and the turns per snapshot."""
    rate = rng.uniform(-np.pi, np.pi, (size // 2, size // 2))
    plane = rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))
    time = np.arange(num_snapshots)[:, None, None]
    x = plane * np.exp(1j * rate.repeat(2, axis=0).repeat(2, axis=1) * time)
    return np.stack([x.real, x.imag], axis=-1)[None].astype(np.float32), rate


def still(x, motion):
    return np.asarray(turn(keras.ops.convert_to_tensor(x), motion.conj()))


def test_one_doppler_shift_per_patch_stands_still(rng):
    x, rate = tones(rng)
    motion = local_motion(x, PATCH)
    back = still(x, motion)
    np.testing.assert_allclose(back, back[:, :1] * np.ones_like(back), rtol=1e-3, atol=1e-4)
    phasor = np.asarray(motion.re) + 1j * np.asarray(motion.im)
    np.testing.assert_allclose(np.abs(phasor), 1.0, rtol=1e-5)
    step = np.angle(phasor[0, 1:, ::2, ::2] / phasor[0, :-1, ::2, ::2])
    np.testing.assert_allclose(step, np.broadcast_to(rate, step.shape), atol=1e-4)


def test_a_common_phase_has_no_effect(rng):
    x, _ = tones(rng)
    z = (x[..., 0] + 1j * x[..., 1]) * np.exp(0.7j)
    turned = np.stack([z.real, z.imag], axis=-1).astype(np.float32)
    first, second = (still(v, local_motion(v, PATCH)) for v in (x, turned))
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


def test_hidden_tokens_have_no_influence(rng):
    x, _ = tones(rng)
    visible = np.ones((1, 6, 2, 2), np.float32)
    visible[:, 3:] = 0
    other = x.copy()
    other[:, 3:] = rng.standard_normal(other[:, 3:].shape)
    flat = visible.reshape(1, -1)
    first, second = (local_motion(v, PATCH, flat) for v in (x, other))
    np.testing.assert_array_equal(np.asarray(first.re), np.asarray(second.re))
    # And what is hidden is turned back by what was seen.
    back = still(x, first)
    np.testing.assert_allclose(back[:, 3:], back[:, :3], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("visible", [0.0, 1.0])
def test_nothing_to_see_is_no_motion(visible):
    x = np.zeros((1, 4, 4, 4, 2), np.float32)
    motion = local_motion(x, PATCH, np.full((1, 16), visible, np.float32))
    np.testing.assert_array_equal(np.asarray(motion.re), 1.0)
    np.testing.assert_array_equal(np.asarray(motion.im), 0.0)
