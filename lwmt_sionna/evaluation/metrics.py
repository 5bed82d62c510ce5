"""Figures of merit of predicted channels."""

import numpy as np

__all__ = [
    "evaluate_predictors",
    "normalized_error",
    "sgcs",
    "summarize_errors",
    "to_db",
    "zero_forcing_rates",
]


def to_db(ratio):
    """Decibels of a power ratio; minus infinity for zero."""
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(ratio)


def normalized_error(h_hat, h, scale=None):
    """Squared errors and powers per sequence.

    Args:
        h_hat: Predicted channels, complex `[batch, ...]`.
        h: True channels, same shape.
        scale: Root mean square of each sequence's true history, float `[batch]`, by which both are
            divided; one if `None`.

    Returns:
        Tuple of the squared errors and the powers, float64 `[batch]` each.
    """
    if h_hat.shape != h.shape:
        raise ValueError(
            "Predicted and true channels differ in shape. Received: "
            f"h_hat.shape={h_hat.shape}, h.shape={h.shape}"
        )
    axes = tuple(range(1, h.ndim))
    error = np.sum(np.abs(h_hat - h) ** 2, axis=axes, dtype=np.float64)
    power = np.sum(np.abs(h) ** 2, axis=axes, dtype=np.float64)
    if scale is not None:
        square = np.asarray(scale, dtype=np.float64).reshape(-1) ** 2
        error, power = error / square, power / square
    return error, power


def summarize_errors(error, power):
    """Normalised mean squared error in its four forms, which differ by 5 dB and more.

    Args:
        error: Squared errors per sequence, float `[batch]`, of sequences scaled alike.
        power: Powers per sequence, float `[batch]`.

    Returns:
        Dictionary in decibels: `nmse_pooled_db` (sum of errors over sum of powers),
        `nmse_mean_db` (mean of the ratios), `nmse_median_db`, `nmse_q90_db` (90 % quantile), and
        the number of sequences `num_sequences`. Sequences without power are left out of the
        ratios.
    """
    seen = power > 0
    ratio = error[seen] / power[seen]
    if not ratio.size:
        raise ValueError("No sequence has power; expected at least one")
    return {
        "nmse_pooled_db": float(to_db(error.sum() / power.sum())),
        "nmse_mean_db": float(to_db(ratio.mean())),
        "nmse_median_db": float(to_db(np.median(ratio))),
        "nmse_q90_db": float(to_db(np.quantile(ratio, 0.9))),
        "num_sequences": int(error.size),
    }


def sgcs(h_hat, h):
    """Squared generalised cosine similarity over the antennas, mean over subcarriers.

    Args:
        h_hat: Predicted channels, complex `[batch, num_ant, num_subcarriers]`.
        h: True channels, same shape.

    Returns:
        float64 `[batch]`, between 0 and 1.
    """
    h_hat, h = np.asarray(h_hat, np.complex128), np.asarray(h, np.complex128)
    inner = np.abs(np.sum(np.conj(h_hat) * h, axis=1)) ** 2
    norms = np.sum(np.abs(h_hat) ** 2, axis=1) * np.sum(np.abs(h) ** 2, axis=1)
    return np.mean(inner / np.where(norms > 0, norms, 1.0), axis=-1)


def zero_forcing_rates(h_hat, h, snr_db, num_users=4, groups=None, seed=0):
    """Sum rates of users that a base station precodes to together, from what it believes.

    Regularised zero-forcing on every subcarrier, equal power per user and unit power in all,
    loading the number of users over the SNR; other users' signals are noise. Channels are taken as
    scaled: give every user unit mean power of its history for a link SNR that is the mean SNR per
    antenna.

    Args:
        h_hat: Predicted channels, complex `[batch, num_ant, num_subcarriers]`.
        h: True channels, same shape.
        snr_db: Link SNR in decibels.
        num_users: Users per group.
        groups: Labels of the users that may share a group (their base stations), `[batch]`; all
            may if `None`.
        seed: Seed of the draw of groups.

    Returns:
        float64 `[num_groups]`: sum over users of `log2(1 + SINR)`, mean over subcarriers, in
        bit/s/Hz.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(len(h), int) if groups is None else np.asarray(groups)
    teams = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        members = members[: len(members) // num_users * num_users]
        teams.append(members.reshape(-1, num_users))
    teams = np.concatenate(teams)
    snr = 10.0 ** (snr_db / 10.0)
    # g group, k subcarrier, u user, a antenna
    believed, true = (np.moveaxis(x[teams], -1, 1).astype(np.complex128) for x in (h_hat, h))
    gram = believed @ believed.conj().swapaxes(-1, -2)
    load = num_users / snr * np.eye(num_users)
    precoder = believed.conj().swapaxes(-1, -2) @ np.linalg.inv(gram + load)
    power = np.sum(np.abs(precoder) ** 2, axis=-2, keepdims=True)
    precoder = precoder / np.sqrt(num_users * np.maximum(power, 1e-30))
    received = np.abs(true @ precoder) ** 2
    signal = np.diagonal(received, axis1=-2, axis2=-1)
    interference = received.sum(axis=-1) - signal
    rate = np.log2(1 + snr * signal / (1 + snr * interference))
    return rate.sum(axis=-1).mean(axis=-1)


def evaluate_predictors(
    predictors, paths, array, frequencies, *, snr_db, num_history, num_horizons, seed=0
):
    """Judges predictors on the same noisy histories of stored sequences.

    Targets are the true channels. Sequences whose channel vanishes in a snapshot are left out and
    counted; the others are told apart by events, paths that are born or die between the last
    measured snapshot and the target.

    Args:
        predictors: Dictionary of names and `lwmt_sionna.baselines.Predictor`.
        paths: `lwmt_sionna.data.PathSequences` of one speed and period.
        array: `lwmt_sionna.data.PlanarArray`.
        frequencies: Subcarrier frequencies in hertz, float `[num_subcarriers]`.
        snr_db: Pilot SNR of the histories in decibels.
        num_history: Snapshots of history.
        num_horizons: Snapshots to predict.
        seed: Seed of the noise.

    Yields:
        One flat dictionary per predictor, horizon and subset: `"event_free"` and `"events"` (told
        by the window from the last measured snapshot to the target), `"quiet"` (no event from the
        first measured snapshot on) and `"all"`.
    """
    from lwmt_sionna.data import add_noise, event_mask, synthesize, vanishing_mask

    vanishing = vanishing_mask(paths)
    paths = paths.select(~vanishing)
    length = num_history + num_horizons
    h = synthesize(paths, array, frequencies, snapshots=np.arange(length))
    past, future = h[:, :num_history], h[:, num_history:]
    history = add_noise(past, snr_db, np.random.default_rng(seed))
    scale = np.sqrt(np.mean(np.abs(past) ** 2, axis=(1, 2, 3), dtype=np.float64))
    doppler = paths.normalized_doppler
    quiet = ~np.any([event_mask(paths, t, t + 1) for t in range(num_history - 1)], axis=0)
    common = {
        "scene": paths.scene,
        "speed_kmh": float(np.mean(paths.speed) * 3.6),
        "sampling_period_s": float(paths.sampling_period),
        "normalized_doppler": float(np.mean(doppler)),
        "history_snr_db": float(snr_db),
        "num_vanishing": int(vanishing.sum()),
    }
    for name, predictor in predictors.items():
        predicted = predictor(history, num_horizons)
        for horizon in range(1, num_horizons + 1):
            truth, guess = future[:, horizon - 1], predicted[:, horizon - 1]
            error, power = normalized_error(guess, truth, scale)
            similarity = sgcs(guess, truth)
            has_event = event_mask(paths, num_history - 1, num_history - 1 + horizon)
            subsets = {
                "event_free": ~has_event,
                "events": has_event,
                "quiet": quiet & ~has_event,
                "all": np.ones_like(has_event),
            }
            for subset, chosen in subsets.items():
                if not (chosen & (power > 0)).any():
                    continue
                yield {
                    **common,
                    "predictor": name,
                    "horizon": horizon,
                    "subset": subset,
                    "share": float(chosen.mean()),
                    **summarize_errors(error[chosen], power[chosen]),
                    "sgcs": float(similarity[chosen].mean()),
                }
