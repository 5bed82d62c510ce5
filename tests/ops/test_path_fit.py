"""Fits of planted paths: exactness, bounds, drifts, births, and what they never do."""

import numpy as np
import pytest

from lwmt_sionna.ops.path_fit import PathFit

T, M, K = 16, 8, 8


def plant(paths, num_snapshots=T, num_ant=M, num_subcarriers=K):
    """Sum of paths `(gain, doppler, angle, delay, chirp, bend, stretch, first, last)`.

    Frequencies in cycles per snapshot, antenna and subcarrier, drifts in radians; phases count from
    the middle of the history. Complex `[num_snapshots, num_ant, num_subcarriers]`.
    """
    t, m, k = (
        np.arange(n) - (c - 1) / 2
        for n, c in ((num_snapshots, T), (num_ant, M), (num_subcarriers, K))
    )
    t, m, k = np.meshgrid(t, m, k, indexing="ij")
    h = np.zeros(t.shape, complex)
    for path in paths:
        gain, doppler, angle, delay, chirp, bend, stretch, first, last = (
            *path,
            *_REST[len(path) :],
        )
        phase = 2 * np.pi * (doppler * t + angle * m + delay * k)
        phase = phase + 0.5 * chirp * t**2 + bend * t * m + stretch * t * k
        snapshot = t + (T - 1) / 2
        h += gain * np.exp(1j * phase) * (snapshot >= first) * (snapshot < last)
    return h


_REST = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 999)


def noisy(rng, h, snr_db):
    noise = (rng.standard_normal(h.shape) + 1j * rng.standard_normal(h.shape)) / np.sqrt(2)
    return h + noise * np.sqrt(np.mean(np.abs(h) ** 2) * 10 ** (-snr_db / 10))


def run(fit, h, noise=None, horizons=3):
    stacked = np.stack([h.real, h.imag], axis=-1).astype(np.float32)
    paths, residual = fit(stacked, noise)
    future = np.asarray(fit.extrapolate(paths, horizons))
    residual = np.asarray(residual)
    return paths, residual[..., 0] + 1j * residual[..., 1], future[..., 0] + 1j * future[..., 1]


def error_db(guess, truth):
    return 10 * np.log10(np.sum(np.abs(guess - truth) ** 2) / np.sum(np.abs(truth) ** 2))


def test_resolved_paths_are_continued(rng):
    planted = [(1.0, 0.13, 0.21, 0.07), (0.5j, -0.31, -0.2, 0.33), (0.2, 0.4, 0.45, -0.4)]
    h = plant(planted, T + 3)
    fit = PathFit(T, M, K, num_paths=4)
    paths, residual, future = run(fit, noisy(rng, h[None, :T], 40))
    assert error_db(future[0], h[T:]) < -45
    assert np.sum(np.asarray(paths.amplitude)[0] > 0) == 3
    found = np.sort(np.asarray(fit.doppler(paths))[0][:3])
    np.testing.assert_allclose(found, [-0.31, 0.13, 0.4], atol=1e-3)
    # Nothing but the noise is left.
    left = np.mean(np.abs(residual) ** 2) / np.mean(np.abs(h[:T]) ** 2)
    assert 10 * np.log10(left) == pytest.approx(-40, abs=0.5)


def test_drifts_are_followed(rng):
    planted = [(1.0, 0.1, 0.2, 0.1, 0.004, 0.006, -0.003), (0.5, -0.2, -0.3, 0.3, -0.006, 0.01)]
    h = plant(planted, T + 5)
    history = noisy(rng, h[None, :T], 30)
    follow = run(PathFit(T, M, K, num_paths=2), history, horizons=5)[2]
    stiff = run(PathFit(T, M, K, num_paths=2, chirp=1e-6, drift=(1e-6, 1e-6)), history, horizons=5)
    assert error_db(follow[0], h[T:]) < -28
    assert error_db(stiff[2][0], h[T:]) > -20


def test_slow_paths_bend_less(rng):
    """Two slow paths in one cell must not be taken for one that turns."""
    planted = [(1.0, 0.02, 0.2, 0.1), (0.8, -0.02, 0.2, 0.1)]
    h = plant(planted, T)
    history = np.stack([noisy(rng, h, 20) for _ in range(8)])
    bent = []
    for fit in (PathFit(T, M, K), PathFit(T, M, K, full_drift=1e-3)):
        paths, _, _ = run(fit, history)
        seen = np.asarray(paths.amplitude)[..., 0] > 0
        chirp = np.asarray(paths.phase)[..., fit.terms.index((2, None, 0.5, None, False))]
        bent.append(np.sqrt(np.mean(chirp[seen] ** 2)))
    assert bent[0] < 0.2 * bent[1]


def test_births_and_deaths_within_the_history(rng):
    """A path that has died is not continued; one born lately is told from its own snapshots."""
    steady = (1.0, 0.1, 0.2, 0.1)
    dead = (0.8, -0.3, -0.2, -0.3, 0, 0, 0, 0, 9)
    born = (0.8, 0.3, -0.4, 0.4, 0, 0, 0, 7, 999)
    h = plant([steady, dead, born], T + 3)
    history = noisy(rng, h[None, :T], 25)
    paths, _, future = run(PathFit(T, M, K, num_paths=5), history)
    assert error_db(future[0], h[T:]) < -28
    windows = np.asarray(paths.window)[0][np.asarray(paths.amplitude)[0, :, 0] > 0.3]
    assert sorted(windows.sum(axis=1)) == [9, 9, 16]
    lasting = run(PathFit(T, M, K, num_paths=5, window_penalty=np.inf), history)
    assert error_db(lasting[2][0], h[T:]) > error_db(future[0], h[T:]) + 5


def test_rays_of_one_direction_and_delay_are_told_from_births(rng):
    """Their beat is strong for a while, and comes again."""
    num, horizons = 32, 2
    h = []
    for apart in np.linspace(0.09, 0.5, num):
        doppler, angle, delay = rng.uniform(-0.5, 0.5, 3)
        gains = np.exp(2j * np.pi * rng.uniform(size=2))
        rays = [
            (g, d, angle, delay) for g, d in zip(gains, (doppler, doppler + apart), strict=True)
        ]
        h.append(plant(rays, T + horizons))
    h = np.array(h)
    history = np.stack([noisy(rng, x[:T], 20) for x in h])
    paths, _, future = run(PathFit(T, M, K, num_paths=6), history, horizons=horizons)
    assert max(error_db(*pair) for pair in zip(future, h[:, T:], strict=True)) < -15
    assert np.all(np.asarray(paths.window)[np.asarray(paths.amplitude)[..., 0] > 0.3] == 1)


def test_doppler_shifts_are_found_near_the_bound(rng):
    """The Cramer-Rao bound of the frequency of a plane wave over the whole grid."""
    num, snr_db = 200, 0.0
    doppler = rng.uniform(-0.4, 0.4, num)
    angle, delay = rng.uniform(-0.4, 0.4, (2, num))
    h = np.stack([plant([(1.0, *p)]) for p in zip(doppler, angle, delay)])
    history = np.stack([noisy(rng, x, snr_db) for x in h])
    # Without drift: a chirp would be estimated along, which the bound does not know.
    fit = PathFit(T, M, K, num_paths=1, chirp=1e-6, drift=(1e-6, 1e-6), window_penalty=np.inf)
    paths, _, _ = run(fit, history, np.full(num, 10 ** (-snr_db / 10), np.float32))
    error = np.mean((np.asarray(fit.doppler(paths))[:, 0] - doppler) ** 2)
    bound = 6 / ((2 * np.pi) ** 2 * 10 ** (snr_db / 10) * M * K * T * (T**2 - 1))
    assert 0.7 < error / bound < 2.0  # 3 dB


def test_noise_alone_holds_no_path(rng):
    noise = rng.standard_normal((64, T, M, K)) + 1j * rng.standard_normal((64, T, M, K))
    paths, _, future = run(PathFit(T, M, K, num_paths=3), noise)
    assert np.mean(np.asarray(paths.amplitude)[:, 0] > 0) < 0.1
    assert np.abs(future[np.asarray(paths.amplitude)[:, 0, 0] == 0]).max() == 0


def test_close_paths_stay_finite(rng):
    """Two paths within a fraction of a cell cannot be told apart, and must not blow up."""
    h = plant([(1.0, 0.1, 0.2, 0.1), (-0.9, 0.105, 0.205, 0.1)], T + 5)
    _, _, future = run(PathFit(T, M, K, num_paths=6), noisy(rng, h[None, :T], 30), horizons=5)
    assert np.isfinite(future).all()
    assert error_db(future[0], h[T:]) < 0
    zeros = run(PathFit(T, M, K, num_paths=2), np.zeros((2, T, M, K), complex))[2]
    assert np.abs(zeros).max() == 0


def plant_planar(paths, array_shape, num_snapshots):
    """Paths `(gains of the polarisations, doppler, column, row, delay, bend over columns)`.

    Complex `[num_snapshots, antenna, subcarrier]`, antennas by polarisation, column and row.
    """
    rows, cols, num_pols = array_shape
    sizes = (num_pols, num_snapshots, cols, rows, K)
    grid = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
    pol, t, c, r, k = grid[0], *(g - (s - 1) / 2 for g, s in zip(grid[1:], (T, *sizes[2:])))
    h = np.zeros(sizes, complex)
    for gains, doppler, column, row, delay, bend in paths:
        turns = doppler * t + column * c + row * r + delay * k
        h += np.asarray(gains)[pol] * np.exp(2j * np.pi * turns + 1j * bend * t * c)
    return np.moveaxis(h, 0, 1).reshape(num_snapshots, -1, K)


PLANTED = [
    ((1.0, 0.4j), 0.13, 0.21, 0.07, 0.1, 0.004),
    ((0.1, -0.8j), -0.31, -0.2, 0.33, -0.3, 0.0),
    # Its direction along the columns is that of the first: only the rows tell them apart.
    ((-0.5, 0.2), 0.11, 0.21, -0.3, 0.1, 0.0),
]


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("array_shape", [(4, 4, 1), (4, 2, 2), (8, 1, 2)])
def test_paths_are_resolved_over_rows_columns_and_polarisations(rng, array_shape):
    planted = PLANTED if array_shape[1] > 1 else PLANTED[:2]
    h = plant_planar(planted, array_shape, T + 3)
    history = noisy(rng, h[None, :T], 30)
    fit = PathFit(T, h.shape[1], K, num_paths=5, array_shape=array_shape)
    paths, residual, future = run(fit, history)
    assert error_db(future[0], h[T:]) < -32
    amplitude = np.asarray(paths.amplitude)[0]
    assert amplitude.shape == (5, array_shape[2])
    chosen = amplitude.max(axis=1) > 0
    assert chosen.sum() == len(planted)
    found = np.sort(np.asarray(fit.doppler(paths))[0][chosen])
    np.testing.assert_allclose(found, sorted(path[1] for path in planted), atol=2e-3)
    left = np.mean(np.abs(residual) ** 2) / np.mean(np.abs(h[:T]) ** 2)
    assert 10 * np.log10(left) == pytest.approx(-30, abs=0.5)


def test_polarisations_share_their_paths(rng):
    """Two polarisations tell a path that either of them alone hides in its noise."""
    gain = 0.115  # 14 / (T * M * K) of the noise power is what is seen, and this is 13.5
    h = plant_planar([((gain, 1j * gain), 0.13, 0.21, 0.07, 0.1, 0.0)], (2, 4, 2), T)
    noise = rng.standard_normal((24, *h.shape)) + 1j * rng.standard_normal((24, *h.shape))
    history = h + noise / np.sqrt(2)
    alone = PathFit(T, M, K, num_paths=1, array_shape=(2, 4, 1))
    both = PathFit(T, 2 * M, K, num_paths=1, array_shape=(2, 4, 2))
    seen = [
        np.mean(np.asarray(run(fit, x, np.ones(24, np.float32))[0].amplitude).max(axis=(1, 2)) > 0)
        for fit, x in ((alone, history[:, :, :M]), (both, history))
    ]
    assert seen[0] < 0.8 and seen[1] > 0.95


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(("num_ant", "shape"), [(1, None), (2, (1, 1, 2)), (2, (2, 1, 1))])
@pytest.mark.parametrize("num_subcarriers", [1, 4])
def test_what_has_no_direction_or_no_delay_has_a_doppler_shift(
    rng, num_ant, shape, num_subcarriers
):
    h = np.ones((num_ant, num_subcarriers)) * np.exp(0.7j * np.arange(T + 3))[:, None, None]
    noise = np.full(1, 1e-3, np.float32)
    fit = PathFit(T, num_ant, num_subcarriers, num_paths=2, array_shape=shape)
    _, _, future = run(fit, noisy(rng, h[None, :T], 30), noise)
    assert error_db(future[0], h[T:]) < -25


def test_a_channel_known_without_noise_is_fitted_as_well(rng):
    h = noisy(rng, plant([_REST, (0.5, 0.13, 0.21, 0.07)])[None], 60)
    known, _, _ = run(PathFit(T, M, K, num_paths=4), h, np.zeros(1))
    found, _, _ = run(PathFit(T, M, K, num_paths=4), h)
    for paths in (known, found):
        strongest = np.sort(np.asarray(paths.amplitude).ravel())[::-1][:2]
        np.testing.assert_allclose(strongest, [1.0, 0.5], rtol=0.02)


def test_more_peaks_than_places(rng):
    """Three peaks at a time and five paths: those that find no place are left alone."""
    spots = [(0.13, 0.21, 0.07), (-0.31, -0.2, 0.33), (0.4, 0.45, -0.4), (-0.1, 0.0, -0.2)]
    h = plant([(0.9**i, *spot) for i, spot in enumerate([*spots, (0.0, -0.4, 0.45)])])
    paths, _, _ = run(PathFit(T, M, K, num_paths=4, num_peaks=3), noisy(rng, h[None], 40))
    assert np.sum(np.asarray(paths.amplitude) > 0) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PathFit(1, 8, 8), "num_snapshots=1"),
        (lambda: PathFit(16, 8, 8, num_paths=0), "num_paths=0"),
        (lambda: PathFit(16, 8, 8, drift=(0.0, 1.0)), "drift"),
        (lambda: PathFit(16, 8, 8, drift=(1e-2,)), r"drift=\(0.01,\)"),
        (lambda: PathFit(16, 8, 8, full_drift=0.0), "full_drift=0.0"),
        (lambda: PathFit(16, 8, 8, window_penalty=float("nan")), "window_penalty=nan"),
        (lambda: PathFit(16, 8, 8, shortest=-3), "shortest=-3"),
        (lambda: PathFit(16, 8, 8)(np.zeros((1, 16, 8, 4, 2))), r"h\.shape"),
        (lambda: PathFit(16, 0, 8), "num_ant=0"),
        (lambda: PathFit(16, 8, 8, array_shape=(2, 2, 1)), r"array_shape=\(2, 2, 1\)"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
