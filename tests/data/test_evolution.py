"""Evolved paths against exact geometry."""

import numpy as np
import pytest

from lwmt_sionna.data import match_paths
from lwmt_sionna.data.evolution import evolve_between, extrapolation_error
from tests.mirrors import CARRIER, WAVELENGTH, straight, trace

PERIOD = 2.5e-3


def at(arrays, snapshot):
    return {name: value[:, snapshot] for name, value in arrays.items()}


def single(arrays):
    return {n: np.float32(v) if v.dtype == np.float64 else v for n, v in arrays.items()}


def channel(arrays):
    """Response at the carrier and 8 MHz beside it, of one antenna."""
    frequency = np.array([0.0, 8e6])
    tau = np.where(arrays["valid"], arrays["tau"], 0.0).astype(float)
    ramp = np.exp(-2j * np.pi * tau[..., None] * frequency)
    return np.sum((arrays["a"][..., 0, 0] * arrays["valid"])[..., None] * ramp, axis=-2)


def error_db(guess, truth):
    error = np.sum(np.abs(guess - truth) ** 2, axis=-1) / np.sum(np.abs(truth) ** 2, axis=-1)
    return 10 * np.log10(error)


@pytest.mark.parametrize(("speed", "steps"), [(8.3, 10), (33.3, 8)])
def test_evolved_paths_are_those_of_the_geometry(rng, speed, steps):
    position, velocity = straight(rng, 12, steps + 1, speed, PERIOD)
    exact = {
        n: np.float32(v) if v.dtype == float else v for n, v in trace(position, velocity).items()
    }
    fractions = np.tile(np.arange(1, steps) / steps, (12, 1))
    elapsed = np.full(12, steps * PERIOD)
    evolved = evolve_between(at(exact, 0), at(exact, steps), elapsed, fractions, CARRIER)
    assert evolved["valid"].shape == (12, steps - 1, 10)
    assert evolved["valid"].sum(-1).min() == evolved["valid"].sum(-1).max() == 5
    inner = {name: value[:, 1:steps] for name, value in exact.items()}
    error = error_db(channel(evolved), channel(inner))
    # float32 delays of 0.3 microseconds turn phases by 0.5 mrad; Doppler shifts alone would miss
    # the curvature: -30 to -10 dB here.
    assert np.median(error) < -55 and error.max() < -40
    alone = extrapolation_error(at(exact, 0), at(exact, steps), elapsed, CARRIER)
    assert 10 * np.log10(np.median(alone)) > np.median(error) + 15
    # Shifts and angles are those of the geometry too.
    first = evolved["valid"].argmax(-1)[..., None]
    assert (first == 0).all()
    for name, tolerance in (("doppler", 0.5), ("phi_t", 2e-3), ("theta_r", 2e-3), ("phi_r", 2e-2)):
        off = evolved[name][..., :5] - inner[name]
        off = (off + np.pi) % (2 * np.pi) - np.pi if "phi" in name else off
        assert np.abs(off).max() < tolerance, name
    np.testing.assert_array_equal(evolved["interactions"][..., :5], inner["interactions"])


def test_births_and_deaths_are_put_in_the_middle(rng):
    position, velocity = straight(rng, 3, 2, 8.3, 8 * PERIOD)
    exact = trace(position, velocity)
    before, after = at(exact, 0), at(exact, 1)
    before["valid"] = before["valid"].copy()
    after["valid"] = after["valid"].copy()
    before["valid"][:, 2] = False  # born
    after["valid"][:, 3] = False  # dead
    fractions = np.tile(np.arange(1, 8) / 8, (3, 1))
    evolved = evolve_between(before, after, np.full(3, 8 * PERIOD), fractions, CARRIER)
    alive = evolved["valid"]
    assert (alive.sum(-1) == 4).all()
    key = np.where(alive, evolved["path_key"], 0)
    has = [(key == k).any(-1)[0].tolist() for k in (12, 13)]
    assert has == [[False] * 3 + [True] * 4, [True] * 3 + [False] * 4]
    assert (evolved["tau"][~alive] == -1).all() and (evolved["a"][~alive] == 0).all()


def test_extrapolation_error_is_that_of_a_bending_path():
    """A user passing a base station at 10 m: the delay bends by (v t)^2 / 2 r."""
    passing = np.array([[[0.0, 10.0, 20.0], [0.3, 10.0, 20.0]]])
    velocity = np.broadcast_to([10.0, 0.0, 0.0], (1, 2, 3))
    exact = trace(
        passing, velocity, keep=lambda index, where: np.full(where.shape[:-1], index == 0)
    )
    found = extrapolation_error(at(exact, 0), at(exact, 1), np.array([0.03]), CARRIER)
    phase = 2 * np.pi * (np.hypot(10.0, 0.3) - 10.0) / WAVELENGTH
    # The direction turns too, by 0.03 rad: across the array, and by its cosine.
    expected = np.abs(np.exp(1j * phase) - 1) ** 2
    assert found[0] > expected / 2
    still = extrapolation_error(at(exact, 0), at(exact, 0), np.array([0.0]), CARRIER)
    assert still[0] < 1e-12
    nothing = {name: np.zeros_like(value[:, 1]) for name, value in exact.items()}
    assert np.isnan(extrapolation_error(at(exact, 0), nothing, np.array([0.03]), CARRIER)).all()


def test_matching_is_one_to_one_and_follows_the_shift(rng):
    position, velocity = straight(rng, 5, 2, 33.3, PERIOD)
    exact = trace(position, velocity)
    before, after = at(exact, 0), at(exact, 1)
    shuffled = {name: value[:, [3, 1, 4, 0, 2]] for name, value in after.items()}
    pair = match_paths(before, shuffled, PERIOD, CARRIER)
    np.testing.assert_array_equal(pair, np.tile([3, 1, 4, 0, 2], (5, 1)))
    # Two that could both continue one path: the nearer in delay does.
    twins = {name: value[:, [0, 0]].copy() for name, value in after.items()}
    twins["tau"][:, 0] += 2e-10
    only = {name: value[:, :1] for name, value in before.items()}
    np.testing.assert_array_equal(match_paths(only, twins, PERIOD, CARRIER), np.ones((5, 1)))
    empty = {name: value[:, :0] for name, value in after.items()}
    np.testing.assert_array_equal(match_paths(only, empty, PERIOD, CARRIER), -np.ones((5, 1)))
