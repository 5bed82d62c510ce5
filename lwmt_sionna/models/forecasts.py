"""What physics says about the future, before any network: forecasts in the angle-delay domain."""

from keras import ops

from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.linear_prediction import (
    burg_coefficients,
    denoise,
    extrapolate,
    noise_power,
    prediction_error,
)
from lwmt_sionna.ops.path_fit import PathFit

__all__ = ["forecast_features"]


def forecast_features(x, num_horizons, experts, context, denoise_radius, num_paths=0):
    """Forecasts of a history, and what a network may want to know about them.

    Without paths, every bin is denoised with its neighbours and continued by linear predictions of
    several memories. With paths, the history is first resolved into moving paths, each continued by
    its own motion (`lwmt_sionna.ops.path_fit`); what they leave is continued by the linear
    predictions.

    Args:
        x: History in the angle-delay domain, scaled to a root mean square near one, real
            `[batch, time, angle, delay, 2]`.
        num_horizons: Number of snapshots to forecast.
        experts: Pairs (window, order) of the linear predictions.
        context: Number of the most recent snapshots to return.
        denoise_radius: See `lwmt_sionna.ops.linear_prediction.denoise`.
        num_paths: Largest number of paths to resolve; 0 for linear prediction alone.

    Returns:
        Dictionary of real tensors without gradient: `observed` and `clean` `[batch, context,
        angle, delay, 2]`, the last snapshots as measured and as understood; `forecasts` `[batch,
        expert, horizon, angle, delay, 2]`, of the linear predictions and, last, of the paths;
        `misfit` `[batch, angle, delay, expert]`, the power over the context of the one-step errors
        of each linear prediction and of what the paths leave; `noise` `[batch]`, its power per bin.
    """
    x = ops.stop_gradient(x)
    num_snapshots = x.shape[1]
    rest = x
    if num_paths:
        ahead, rest = _resolve(x, num_paths, num_horizons)
    noise = noise_power(rest)
    clean = denoise(rest, radius=denoise_radius, noise=noise)
    windows = [min(window, num_snapshots) for window, _ in experts]
    coefficients = {}
    for window in sorted(set(windows)):
        orders = [o for (_, o), w in zip(experts, windows, strict=True) if w == window]
        coefficients[window] = burg_coefficients(clean[:, -window:], max(orders))
    forecasts, misfit = [], []
    for window, (_, order) in zip(windows, experts, strict=True):
        taps = coefficients[window][order - 1]
        forecasts.append(extrapolate(clean, taps, num_horizons))
        misfit.append(prediction_error(clean, taps, min(context, num_snapshots - order)))
    if num_paths:
        forecasts.append(ahead)
        misfit.append(ops.mean(ops.sum(ops.square(rest[:, -context:]), axis=-1), axis=1))
        clean = clean + (x - rest)
    features = {
        "observed": x[:, -context:],
        "clean": clean[:, -context:],
        "forecasts": ops.stack(forecasts, axis=1),
        "misfit": ops.stack(misfit, axis=-1),
        "noise": noise,
    }
    return {name: ops.stop_gradient(value) for name, value in features.items()}


def _resolve(x, num_paths, num_horizons):
    """Forecasts of the resolved paths, and what they leave of the history."""
    fit = PathFit(*x.shape[1:4], num_paths=num_paths)
    future, rest = fit.continued(inverse_angle_delay_transform(x), num_horizons)
    return angle_delay_transform(future), angle_delay_transform(rest)
