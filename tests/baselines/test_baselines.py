"""Baselines on channels whose future is known."""

import itertools

import keras
import numpy as np
import pytest

from lwmt_sionna import baselines


def single_path(doppler=0.13, num_snapshots=21):
    """One path on the bins of a 16 x 16 grid, complex64 `[1, time, 16, 16]`."""
    index = np.arange(16)
    h = np.outer(np.exp(2j * np.pi * 3 * index / 16), np.exp(-2j * np.pi * 5 * index / 16))
    phase = np.exp(2j * np.pi * doppler * np.arange(num_snapshots))
    return (phase[:, None, None] * h)[None].astype(np.complex64)


def error_db(guess, truth):
    return 10 * np.log10(np.sum(np.abs(guess - truth) ** 2) / np.sum(np.abs(truth) ** 2))


ALL = {
    "zero": baselines.ZeroPredictor,
    "hold": baselines.Hold,
    "pooled_ar": baselines.PooledAutoregression,
    "local_ar": baselines.LocalAutoregression,
    "denoised_ar": baselines.DenoisedAutoregression,
}


@pytest.mark.parametrize("name", ALL)
def test_one_interface(rng, name):
    shape = (3, 16, 8, 8)
    history = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    predictor = ALL[name]()
    future = predictor(history, 4)
    assert future.shape == (3, 4, 8, 8) and future.dtype == np.complex64
    assert np.isfinite(future).all()
    # Scale equivariance, at the path gains of real channels too.
    factor = np.complex64(2e-6j)
    np.testing.assert_allclose(predictor(factor * history, 4) / factor, future, atol=2e-3)
    # Shorter horizons are the first of longer ones.
    np.testing.assert_allclose(predictor(history, 2), future[:, :2], atol=2e-4)


def test_hold_is_exact_at_zero_speed():
    h = single_path(doppler=0.0)
    np.testing.assert_array_equal(baselines.Hold()(h[:, :16], 5), h[:, 16:])


@pytest.mark.parametrize("name", ["pooled_ar", "local_ar", "denoised_ar"])
def test_linear_prediction_follows_a_noiseless_path(name):
    h = single_path()
    assert error_db(ALL[name]()(h[:, :16], 5), h[:, 16:]) < -35


def test_denoising_helps(rng):
    h = np.concatenate([single_path(d) for d in np.linspace(-0.4, 0.4, 8)])
    noise = rng.standard_normal(h.shape) + 1j * rng.standard_normal(h.shape)
    history = (h + noise * np.sqrt(10**-1.5 / 2))[:, :16].astype(np.complex64)
    plain = error_db(baselines.LocalAutoregression()(history, 1), h[:, 16:17])
    denoised = error_db(baselines.DenoisedAutoregression()(history, 1), h[:, 16:17])
    assert denoised < plain - 3


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (np.zeros((2, 16, 4), np.complex64), "num_snapshots"),
        (np.zeros((2, 16, 4, 4)), "complex"),
        (np.full((1, 16, 4, 4), np.nan, np.complex64), "NaN"),
    ],
)
def test_wrong_histories_are_refused(history, message):
    with pytest.raises(ValueError, match=message):
        baselines.Hold()(history, 1)


def test_order_must_fit_the_history():
    with pytest.raises(ValueError, match="order=5"):
        baselines.LocalAutoregression(order=5)(np.zeros((1, 5, 4, 4), np.complex64), 1)


@pytest.fixture(scope="module")
def tuned():
    """Fits of few paths: what a grid does to them does not need more."""
    few = {"path_fit": baselines.PathPredictor(num_paths=2)}
    return baselines.tuned_baselines(15.0) | few


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("grid", [(1, 1), (7, 3)])
def test_any_grid_means_any_grid(rng, tuned, grid):
    """One antenna, one subcarrier, primes: what no patch, cross or search grid tiles."""
    shape = (2, 16, *grid)
    history = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    for name, predictor in tuned.items():
        future = predictor(history, 2)
        assert future.shape == (2, 2, *grid) and np.isfinite(future).all(), name
        assert predictor(history[:0], 2).shape == (0, 2, *grid), name


SHAPES = ((2, 8, 2), (8, 1, 2))


def planar_path(num_rows, num_cols, num_polarizations, num_snapshots=21):
    """One path seen by a planar array, antennas in Sionna's order."""
    t, p, c, r, k = np.ogrid[:num_snapshots, :num_polarizations, :num_cols, :num_rows, :16]
    turns = 0.13 * t + 3 / num_cols * c + 1 / num_rows * r - 5 / 16 * k
    h = np.exp(2j * np.pi * turns) * np.array([1.0, 0.5j])[p]
    return h.reshape(1, num_snapshots, -1, 16).astype(np.complex64)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *itertools.product(("local_ar", "denoised_ar", "clamped_ar", "kalman"), SHAPES),
        ("path_fit", SHAPES[0]),
        pytest.param("path_fit", SHAPES[1], marks=pytest.mark.slow),
    ],
)
def test_the_shape_of_an_array_is_used(name, shape):
    """A path that a planar array resolves is followed; taken for a line, it is not one bin."""
    predictor = baselines.tuned_baselines(25.0, [name], shape)[name]
    assert predictor.array_shape == shape
    h = planar_path(*shape)
    assert error_db(predictor(h[:, :16], 3), h[:, 16:19]) < -30


def test_another_array_is_refused():
    line = baselines.KalmanPredictor()
    baselines.check_array(line, "kalman", (1, 32, 1))
    baselines.check_array(baselines.Hold(), "hold", (4, 4, 2))
    with pytest.raises(ValueError, match=r"kalman.*expected array_shape=\(4, 4, 2\)"):
        baselines.check_array(line, "kalman", (4, 4, 2))
    with pytest.raises(ValueError, match="array_shape"):
        baselines.KalmanPredictor(array_shape=(4, 4, 1))(np.ones((1, 16, 8, 4), np.complex64), 1)


def test_missing_reports_are_told_from_their_neighbours(rng):
    """Three Doppler shifts follow from six snapshots exactly, between and after them."""
    doppler = rng.uniform(-0.3, 0.3, (4, 3))
    time = np.exp(2j * np.pi * doppler[:, None] * np.arange(16)[:, None])
    h = np.einsum("btp,bpak->btak", time, rng.standard_normal((4, 3, 4, 8)) * (1 + 1j))
    h = h.astype(np.complex64)
    arrived = np.ones((4, 16), bool)
    for missing in ([7], [15], [3, 9], [14, 15]):
        arrived[:] = True
        arrived[:2, missing] = False
        held = np.where(arrived[..., None, None], h, np.nan)
        filled = baselines.fill_reports(held, arrived)
        np.testing.assert_array_equal(filled[arrived], h[arrived])
        error = np.abs(filled - h)[:2, missing]
        assert np.sum(error**2) < 1e-3 * np.sum(np.abs(h[:2, missing]) ** 2)
        # Factors pass through, and every predictor takes what is filled.
        scaled = baselines.fill_reports((1e-6j * held).astype(np.complex64), arrived)
        np.testing.assert_allclose(scaled, 1e-6j * filled, rtol=1e-3, atol=1e-9)
        ahead = baselines.PooledAutoregression()
        np.testing.assert_array_equal(ahead(held, 2, arrived=arrived), ahead(filled, 2))


def test_held_is_the_last_report_that_arrived(rng):
    h = (rng.standard_normal((2, 12, 2, 4)) * (1 + 1j)).astype(np.complex64)
    arrived = np.ones((2, 12), bool)
    arrived[0, -2:] = False
    told = np.where(arrived[..., None, None], h, np.nan)
    expected = np.stack([h[0, [-3, -3]], h[1, [-1, -1]]])
    np.testing.assert_array_equal(baselines.Hold()(told, 2, arrived), expected)
    repeated = np.where(arrived[..., None, None], h, h[:, -3:-2])
    np.testing.assert_array_equal(baselines.Hold()(repeated, 2), expected)


@pytest.mark.parametrize("kind", [baselines.DenoisedAutoregression, baselines.PathPredictor])
def test_an_array_may_be_a_list(rng, kind):
    h = (rng.standard_normal((1, 16, 4, 8)) * (1 + 1j)).astype(np.complex64)
    h[0, 8] = h[0, 7]
    found = kind(array_shape=[2, 2, 1])(h, 1)
    np.testing.assert_array_equal(found, kind(array_shape=(2, 2, 1))(h, 1))


@pytest.mark.parametrize("shape", [(2, 0, 4, 8), (2, 16, 0, 8), (2, 16, 4, 0)])
def test_empty_histories_are_refused(shape):
    with pytest.raises(ValueError, match=r"history\.shape=\(2, "):
        baselines.Hold()(np.zeros(shape, np.complex64), 1)


@pytest.mark.parametrize("num_horizons", [0, 2.5])
def test_horizons_are_counted(num_horizons):
    with pytest.raises(ValueError, match=f"num_horizons={num_horizons}"):
        baselines.Hold()(np.ones((1, 4, 2, 2), np.complex64), num_horizons)


def test_batches_side_by_side_share_a_model(rng):
    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale = self.add_weight(shape=(4, 1), initializer="ones")

        def call(self, history):
            return history[:, -1:] * self.scale

    h = (rng.standard_normal((40, 3, 2, 4)) * (1 + 1j)).astype(np.complex64)
    predictor = baselines.ModelPredictor(Scaled(), batch_size=2, num_threads=4)
    for _ in range(3):
        np.testing.assert_allclose(predictor(h, 1)[:, 0], h[:, -1], rtol=1e-6)


@pytest.mark.parametrize("knows", [True, False])
def test_models_that_know_of_lost_reports_are_told(rng, knows):
    """What is told of other models lost is filled before them; whatever stood there is not seen."""

    class Last(keras.Model):
        def call(self, history, arrived):
            return keras.ops.where(arrived[:, -1:, None, None, None], history[:, -1:], 7.0)

    class Deaf(keras.Model):
        def call(self, history):
            return history[:, -1:]

    predictor = baselines.ModelPredictor(Last() if knows else Deaf(), batch_size=2, num_threads=1)
    h = (rng.standard_normal((3, 6, 2, 4)) * (1 + 1j)).astype(np.complex64)
    arrived = np.ones((3, 6), bool)
    arrived[2, -1] = False
    filled = baselines.fill_reports(h, arrived)
    wanted = np.where(arrived[:, -1, None, None], h[:, -1], 7 + 7j if knows else filled[:, -1])
    for _ in range(2):
        np.testing.assert_allclose(predictor(h, 1, arrived=arrived)[:, 0], wanted, rtol=1e-6)
    with pytest.raises(ValueError, match=r"arrived\.shape=\(1, 4\)"):
        predictor(h, 1, arrived=arrived[:1, :4])


def test_a_history_of_one_snapshot_has_lost_nothing(rng):
    h = rng.standard_normal((2, 1, 2, 2)).astype(np.complex64)
    np.testing.assert_array_equal(baselines.Hold()(h, 1), h)


@pytest.mark.parametrize("present", [[0], [3], [0, 1], []])
def test_too_few_reports_are_held(rng, present):
    h = rng.standard_normal((1, 5, 2, 2)).astype(np.complex64)
    arrived = np.isin(np.arange(5), present)[None]
    filled = baselines.fill_reports(h, arrived)
    assert np.isfinite(filled).all()
    if len(present) < 2:
        expected = np.repeat(h[:, present], 5, axis=1) if present else 0 * h
        np.testing.assert_array_equal(filled, expected)
    with pytest.raises(ValueError, match="float32"):
        baselines.fill_reports(h.real, arrived)
    with pytest.raises(ValueError, match=r"arrived\.shape=\(1, 4\)"):
        baselines.fill_reports(h, arrived[:, :4])
