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

__all__ = ["check_experts", "forecast_features"]


def check_experts(experts, whole_experts, num_paths):
    """Normalises the linear predictions of a predictor.

    Args:
        experts: Pairs (window, order), at least one.
        whole_experts: Pairs (window, order); only with paths.
        num_paths: Largest number of paths to resolve.

    Returns:
        Tuple of both as tuples of pairs of integers.

    Raises:
        ValueError: If a pair is impossible, or they do not fit together.
    """
    experts, whole_experts = (
        tuple((int(window), int(order)) for window, order in pairs)
        for pairs in (experts, whole_experts)
    )
    for name, pairs in (("experts", experts), ("whole_experts", whole_experts)):
        if any(not 0 < order < window for window, order in pairs):
            raise ValueError(
                f"`{name}` must be pairs (window, order) with 0 < order < window. Received: "
                f"{name}={pairs}"
            )
    if not experts:
        raise ValueError("`experts` must not be empty. Received: experts=()")
    if whole_experts and not num_paths:
        raise ValueError(
            "`whole_experts` stand beside paths: they need `num_paths`. Received: "
            f"whole_experts={whole_experts}, num_paths={num_paths}"
        )
    return experts, whole_experts


def forecast_features(
    x, num_horizons, experts, context, denoise_radius, num_paths=0, whole_experts=()
):
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
        whole_experts: Pairs (window, order) of linear predictions of the whole history beside the
            paths; only with paths.

    Returns:
        Dictionary of real tensors without gradient: `observed` and `clean` `[batch, context,
        angle, delay, 2]`, the last snapshots as measured and as understood; `forecasts` `[batch,
        expert, horizon, angle, delay, 2]`, of the linear predictions, by what those of the whole
        history differ from the paths, and, last, of the paths; `misfit` `[batch, angle, delay,
        expert]`, the power over the context of the one-step errors of each linear prediction and of
        what the paths leave (with `whole_experts` that of the last two snapshots as well);
        `noise` `[batch]`, its power per bin.
    """
    x = ops.stop_gradient(x)
    rest = x
    if num_paths:
        ahead, rest = _resolve(x, num_paths, num_horizons)
    noise = noise_power(rest)
    clean = denoise(rest, radius=denoise_radius, noise=noise)
    forecasts, misfit = _continue(clean, num_horizons, experts, context)
    if whole_experts:
        whole = denoise(x, radius=denoise_radius, noise=noise)
        others, errors = _continue(whole, num_horizons, whole_experts, context)
        forecasts += [other - ahead for other in others]
        misfit += errors
    if num_paths:
        forecasts.append(ahead)
        left = ops.sum(ops.square(rest[:, -context:]), axis=-1)
        misfit.append(ops.mean(left, axis=1))
        clean = clean + (x - rest)
        if whole_experts:
            misfit.append(ops.mean(left[:, -2:], axis=1))
    features = {
        "observed": x[:, -context:],
        "clean": clean[:, -context:],
        "forecasts": ops.stack(forecasts, axis=1),
        "misfit": ops.stack(misfit, axis=-1),
        "noise": noise,
    }
    return {name: ops.stop_gradient(value) for name, value in features.items()}


def _continue(clean, num_horizons, experts, context):
    """Linear predictions of several memories and the power of their one-step errors."""
    num_snapshots = clean.shape[1]
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
    return forecasts, misfit


def _resolve(x, num_paths, num_horizons):
    """Forecasts of the resolved paths, and what they leave of the history."""
    fit = PathFit(*x.shape[1:4], num_paths=num_paths)
    future, rest = fit.continued(inverse_angle_delay_transform(x), num_horizons)
    return angle_delay_transform(future), angle_delay_transform(rest)
