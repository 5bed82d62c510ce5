"""Local linear prediction in two forms whose long forecasts do not explode."""

import numpy as np

from lwmt_sionna.baselines.bins import BinPredictor, chosen_covariance, pool

__all__ = [
    "ClampedAutoregression",
    "DirectAutoregression",
    "clamp_poles",
    "iterate",
    "prediction_coefficients",
]

_TINY = 1e-30


class DirectAutoregression(BinPredictor):
    """One regression per horizon and bin, in place of iterating a one-step model.

    Ridge regression of `x[t + h]` on the last `order` snapshots, over the sequence's own history
    and the 3 x 3 bins around; the time-reversed, conjugated history counts as well.

    Args:
        order: Number of coefficients.
        ridge: Regularisation relative to the mean power of the regressors.
        pool_weight: Weight of a neighbouring bin along an axis.
        **kwargs: Arguments of `BinPredictor`.

    Reference:
        Marcellino, Stock and Watson 2006, A comparison of direct and iterated multistep AR methods.
    """

    name = "direct_ar"

    def __init__(
        self,
        order=4,
        ridge=3e-3,
        pool_weight=1.0,
        denoise_radius=3,
        significance=0.1,
        **kwargs,
    ):
        super().__init__(denoise_radius=denoise_radius, significance=significance, **kwargs)
        _check(order=order, ridge=ridge)
        self.order = int(order)
        self.ridge = float(ridge)
        self.pool_weight = float(pool_weight)

    def extrapolate(self, x, noise, chosen, num_horizons):
        order, num_snapshots = self.order, x.shape[1]
        mirrored = x[:, ::-1].conj()
        recent = np.stack([_pick(x[:, -1 - k], chosen) for k in range(order)], axis=-1)
        futures = []
        for horizon in range(1, num_horizons + 1):
            # The farthest horizons leave few equations; as many as coefficients stay.
            lags = min(order, max(1, (num_snapshots - horizon + 1) // 2))
            first, last = lags - 1, num_snapshots - horizon
            if last <= first:
                raise ValueError(
                    "The history is too short for this horizon. Received: "
                    f"num_snapshots={num_snapshots}, num_horizons={num_horizons}"
                )
            normal = np.empty((len(chosen), lags, lags), np.complex128)
            target = np.empty((len(chosen), lags), np.complex128)
            for i in range(lags):
                for j in range(i, lags):
                    normal[:, i, j] = self._product(x, mirrored, chosen, (first, last), i, j)
                    normal[:, j, i] = normal[:, i, j].conj()
                target[:, i] = self._product(x, mirrored, chosen, (first, last), i, -horizon)
            load = self.ridge * np.trace(normal, axis1=1, axis2=2).real / lags + _TINY
            normal += load[:, None, None] * np.eye(lags)
            coefficients = np.linalg.solve(normal, target[..., None])[..., 0]
            futures.append(np.sum(coefficients * recent[:, :lags], axis=1))
        return np.stack(futures, axis=1)

    def _product(self, x, mirrored, chosen, span, i, j):
        """Pooled sum over `t` in a span of `conj(x[t - i]) x[t - j]`, both directions of time."""
        first, last = span
        total = sum(
            np.sum(y[:, first - i : last - i].conj() * y[:, first - j : last - j], axis=1)
            for y in (x, mirrored)
        )
        return _pick(pool(total, self.pool_weight), chosen)


class ClampedAutoregression(BinPredictor):
    """Least-squares linear prediction whose poles are drawn back to the unit circle.

    The covariance method is exact for as many noiseless tones as its order, but its iterated
    forecasts grow without bound where a pole lies outside of the unit circle. Here every pole keeps
    its frequency and gets at most the given radius.

    Args:
        order: Number of coefficients.
        ridge: Regularisation relative to the mean power of the regressors.
        radius: Largest modulus of a pole.
        pool_weight: Weight of a neighbouring bin along an axis.
        **kwargs: Arguments of `BinPredictor`.

    Reference:
        Marple 1987, Digital Spectral Analysis with Applications, section 8.5 (modified covariance
        method).
    """

    name = "clamped_ar"

    def __init__(
        self,
        order=6,
        ridge=1e-4,
        radius=1.0,
        pool_weight=0.5,
        denoise_radius=3,
        significance=0.1,
        **kwargs,
    ):
        super().__init__(denoise_radius=denoise_radius, significance=significance, **kwargs)
        _check(order=order, ridge=ridge, radius=radius)
        self.order = int(order)
        self.ridge = float(ridge)
        self.radius = float(radius)
        self.pool_weight = float(pool_weight)

    def extrapolate(self, x, noise, chosen, num_horizons):
        covariance = chosen_covariance(x, chosen, self.order + 1, self.pool_weight)
        coefficients = prediction_coefficients(covariance, self.ridge)
        coefficients = clamp_poles(coefficients, self.radius)[0]
        recent = np.stack([_pick(x[:, -1 - k], chosen) for k in range(self.order)], axis=-1)
        return iterate(recent, coefficients, num_horizons)


def prediction_coefficients(covariance, ridge=0.0):
    """Coefficients of the linear prediction of the last snapshot of a window from the others.

    Args:
        covariance: complex `[n, order + 1, order + 1]`, see `lag_covariance`.
        ridge: Regularisation relative to the mean diagonal.

    Returns:
        complex `[n, order]`, the nearest lag first.
    """
    order = covariance.shape[-1] - 1
    # conj(x[t - i]) x[t - j] is element (order - j, order - i) of the covariance.
    lags = order - np.arange(1, order + 1)
    normal = covariance[:, lags[None, :], lags[:, None]]
    target = covariance[:, order, lags]
    load = ridge * np.trace(normal, axis1=1, axis2=2).real / order + _TINY
    normal = normal + load[:, None, None] * np.eye(order)
    return np.linalg.solve(normal, target[..., None])[..., 0]


def clamp_poles(coefficients, radius):
    """Moves the poles of linear predictions into a disc; their frequencies stay.

    Args:
        coefficients: complex `[n, order]`, the nearest lag first.
        radius: Largest modulus.

    Returns:
        Tuple of the new coefficients and the poles, complex `[n, order]` both.
    """
    order = coefficients.shape[1]
    companion = np.zeros((len(coefficients), order, order), np.complex128)
    companion[:, 0] = coefficients
    companion[:, np.arange(1, order), np.arange(order - 1)] = 1.0
    poles = np.linalg.eigvals(companion)
    modulus = np.abs(poles)
    poles = poles * np.minimum(1.0, radius / np.maximum(modulus, _TINY))
    polynomial = np.zeros((len(coefficients), order + 1), np.complex128)
    polynomial[:, 0] = 1.0
    for k in range(order):
        polynomial[:, 1 : k + 2] -= poles[:, k : k + 1] * polynomial[:, : k + 1].copy()
    clamped = np.where(
        (modulus > radius).any(axis=1, keepdims=True), -polynomial[:, 1:], coefficients
    )
    return clamped, poles


def iterate(recent, coefficients, num_horizons):
    """Iterated linear prediction.

    Args:
        recent: complex `[n, order]`, the latest snapshot first.
        coefficients: complex `[n, order]`, the nearest lag first.
        num_horizons: Snapshots to predict.

    Returns:
        complex `[n, num_horizons]`.
    """
    futures = []
    for _ in range(num_horizons):
        future = np.sum(coefficients * recent, axis=1)
        futures.append(future)
        recent = np.concatenate([future[:, None], recent[:, :-1]], axis=1)
    return np.stack(futures, axis=1)


def _pick(values, chosen):
    return values.reshape(-1)[chosen]


def _check(order, ridge, radius=1.0):
    if int(order) != order or order < 1:
        raise ValueError(f"order must be a positive integer. Received: order={order}")
    if ridge < 0:
        raise ValueError(f"ridge must not be negative. Received: ridge={ridge}")
    if not 0 < radius <= 2:
        raise ValueError(f"radius must lie in (0, 2]. Received: radius={radius}")
