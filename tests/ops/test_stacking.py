"""Mixing forecasts by what they would have foreseen."""

import keras
import numpy as np
import pytest

from lwmt_sionna.ops.stacking import stack_forecasts

HELD, HORIZONS, SIZE = 3, 5, 16


@pytest.fixture
def channel(rng):
    """Held-out snapshots and the future, real `[batch, time, angle, delay, 2]`."""
    return rng.standard_normal((2, HELD + HORIZONS, SIZE, SIZE, 2)).astype("float32")


def stack(experts, measured, prior, arrived=None, **model):
    """What is made of experts that each say `[batch, held and horizons, angle, delay, 2]`."""
    arrived = np.ones((2, HELD), bool) if arrived is None else arrived
    experts = np.stack(experts, axis=1).astype("float32")
    prior = np.tile(np.array(prior, "float32"), (HORIZONS, 1))
    tensor = keras.ops.convert_to_tensor
    tested, ahead = tensor(experts[:, :, :HELD]), tensor(experts[:, :, HELD:])
    model = {
        name: value if name == "num_models" else tensor(value) for name, value in model.items()
    }
    return [
        keras.ops.convert_to_numpy(x)
        for x in stack_forecasts(tested, tensor(measured), ahead, prior, tensor(arrived), **model)
    ]


def power(x):
    return float(np.mean(np.square(x)))


def test_the_expert_that_foresees_is_believed(channel, rng):
    """Whatever was thought before, and however noisy what is foreseen was measured."""
    wrong = rng.standard_normal(channel.shape)
    measured = channel[:, :HELD] + 0.1 * rng.standard_normal((2, HELD, SIZE, SIZE, 2))
    mix, error, _ = stack([wrong, channel], measured.astype("float32"), [0.8, 0.2])
    future = channel[:, HELD:]
    assert power(mix - future) < 0.05 * power(future)
    # Errors of the second are the measurement's noise, two real parts of 0.01 each.
    assert error[..., 1].mean() == pytest.approx(0.02, rel=0.2)
    assert error.shape == (2, SIZE, SIZE, 2)


def test_a_patch_leans_to_the_expert_that_knows_it(channel, rng):
    """One expert knows the left half of the angles, the other one the right half."""
    known = np.arange(SIZE)[:, None, None] < SIZE // 2
    strange = channel + 0.3 * rng.standard_normal(channel.shape)
    experts = [np.where(known, channel, strange), np.where(known, strange, channel)]
    mix, *_ = stack(experts, channel[:, :HELD], [0.5, 0.5])
    mean = 0.5 * (experts[0] + experts[1])[:, HELD:]
    assert power(mix - channel[:, HELD:]) < 0.9 * power(mean - channel[:, HELD:])


def test_what_a_model_leaves_speaks_against_it(channel, rng):
    """Two experts that err alike; one stands on a model that leaves noise, or as much again."""
    experts = [channel + 0.3 * rng.standard_normal(channel.shape) for _ in range(2)]
    shape = (2, HELD, SIZE, SIZE, 2)
    shares = []
    for level in (0.1, 1.0):
        model = {"left": (level * rng.standard_normal(shape)).astype("float32"), "num_models": 1}
        model["noise"] = np.full(2, 2 * 0.1**2, "float32")
        mix, *_ = stack(experts, channel[:, :HELD], [0.5, 0.5], **model)
        error = mix - channel[:, HELD:]
        own = experts[0][:, HELD:] - channel[:, HELD:]
        shares.append(np.sum(error * own) / np.sum(own * own))
    assert shares[0] == pytest.approx(0.5, abs=0.1)
    assert shares[1] < 0.2


def test_what_nobody_foresees_is_predicted_small(channel, rng):
    experts = [rng.standard_normal(channel.shape) for _ in range(2)]
    mix, *_ = stack(experts, channel[:, :HELD], [0.5, 0.5])
    assert power(mix - channel[:, HELD:]) < 1.2 * power(channel[:, HELD:])
    assert power(mix) < 0.3 * power(experts[0])


def test_no_history_leaves_the_prior(channel):
    """Held-out snapshots that all experts say alike tell none from another."""
    same = channel[:, :HELD]
    one, other = channel.copy(), channel.copy()
    one[:, HELD:] *= 2.0
    mix, *_ = stack([one, other], same, [0.75, 0.25])
    np.testing.assert_allclose(mix, 1.75 * channel[:, HELD:], rtol=1e-3, atol=1e-4)


def test_zeros_stay_zeros():
    nothing = np.zeros((1, HELD + HORIZONS, SIZE, SIZE, 2), "float32")
    mix, error, _ = stack([nothing, nothing], nothing[:, :HELD], [0.5, 0.5])
    assert not mix.any() and not error.any()


def test_what_is_born_in_the_held_out_snapshots_is_not_scaled_up(channel, rng):
    """Nobody foresaw it, and little is said of it there; of the future it is told in full."""
    told = channel + 0.1 * rng.standard_normal(channel.shape)
    told[:, :HELD] *= 0.1
    other = told + 0.1 * rng.standard_normal(channel.shape)
    mix, *_ = stack([told, other], channel[:, :HELD], [0.5, 0.5])
    future = channel[:, HELD:]
    assert power(mix - future) < 0.1 * power(future)


def test_what_is_born_in_the_held_out_snapshots_has_no_evidence(channel):
    """It is born in half of the angles; what has been there all the time has it in full."""
    told = channel.copy()
    told[:, :HELD, : SIZE // 2] *= 0.1
    *_, evidence = stack([told, told], channel[:, :HELD], [0.5, 0.5])
    assert evidence.shape == (2, HORIZONS, SIZE, SIZE, 1)
    # Patches are told about by those beside them as well.
    assert evidence[:, :, : SIZE // 2].max() < 0.5
    assert evidence[:, :, SIZE // 2 :].min() > 0.9


def test_an_expert_that_leaves_noise_alone_is_believed(channel, rng):
    """Others win by chance what the noise of the measurement lets them."""
    other = channel + 0.03 * rng.standard_normal(channel.shape)
    noise = 0.3 * rng.standard_normal((2, HELD, SIZE, SIZE, 2))
    mix, *_ = stack([channel, other], channel[:, :HELD] + noise.astype("float32"), [1.0, 0.0])
    assert power(mix - channel[:, HELD:]) < 1e-3 * 0.03**2 + 1e-9


def test_what_was_filled_in_judges_nobody(channel, rng):
    """The last held-out snapshot was lost, and filled in by what the wrong expert says."""
    wrong = 0.5 * rng.standard_normal(channel.shape)
    measured = channel[:, :HELD].copy()
    measured[0, -1] = wrong[0, HELD - 1]
    arrived = np.ones((2, HELD), bool)
    arrived[0, -1] = False
    known, error, _ = stack([wrong, channel], measured, [0.5, 0.5], arrived=arrived)
    fooled, *_ = stack([wrong, channel], measured, [0.5, 0.5])
    future = channel[:, HELD:]
    assert power(known - future) < 1e-3 * power(future) < power((fooled - future)[0])
    assert error[0, ..., 1].max() < 1e-6 < error[0, ..., 0].min()
    # Where none was measured, what was filled in is all there is.
    none = stack([wrong, channel], measured, [0.5, 0.5], arrived=np.zeros_like(arrived))
    np.testing.assert_allclose(none[0], fooled, rtol=1e-6, atol=1e-6)
