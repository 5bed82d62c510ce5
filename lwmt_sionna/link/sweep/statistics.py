"""Counts into rates with honest intervals."""

import numpy as np

from lwmt_sionna.evaluation import normalized_error, summarize_errors

_FLOOR_DB = -200.0

__all__ = [
    "cluster_bootstrap",
    "cluster_mean",
    "nmse_summary",
    "paired_bootstrap",
    "recovered_share",
]


def cluster_bootstrap(errors, blocks, level=0.95, num_resamples=2000, seed=0):
    """Confidence interval of an error rate whose blocks come in drops.

    Blocks of one drop share a channel, so drops are what is resampled, with replacement. Where
    every drop failed or none did, resampling sees no spread; the bound is then that of a binomial
    over drops (with `n` drops and no error: `1 - (1 - level)^(1/n)`), which is cautious.

    Args:
        errors: int `[num_drops]`, block errors of every drop.
        blocks: int `[num_drops]`, blocks of every drop.
        level: float, confidence level.
        num_resamples: int, bootstrap resamples.
        seed: int, seed of the resampling.

    Returns:
        The pair `(low, high)` of floats.

    Example:
        >>> cluster_bootstrap([0, 0, 4, 0], [4, 4, 4, 4])[0]
        0.0
    """
    errors = np.asarray(errors, np.float64).ravel()
    blocks = np.asarray(blocks, np.float64).ravel()
    if errors.shape != blocks.shape or errors.size == 0 or np.any(blocks <= 0):
        raise ValueError(
            "Every drop needs an error count and a positive block count. Received shapes: "
            f"errors={errors.shape}, blocks={blocks.shape}"
        )
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1. Received: level={level}")
    rule = 1 - (1 - level) ** (1 / errors.size)
    if not errors.any():
        return 0.0, rule
    if np.array_equal(errors, blocks):
        return 1 - rule, 1.0
    return _bootstrap(errors, blocks, level, num_resamples, seed)


def paired_bootstrap(errors, reference, blocks, level=0.95, num_resamples=2000, seed=0):
    """Confidence interval of the difference of two error rates on the same drops.

    Args:
        errors: int `[num_drops]`, block errors of every drop.
        reference: int `[num_drops]`, those of the policy to compare with.
        blocks: int `[num_drops]`, blocks of every drop.
        level, num_resamples, seed: as for `cluster_bootstrap`.

    Returns:
        The triple `(difference, low, high)` of floats; negative where `errors` has fewer.
    """
    errors, reference, blocks = (
        np.asarray(x, np.float64).ravel() for x in (errors, reference, blocks)
    )
    difference = errors - reference
    low, high = _bootstrap(difference, blocks, level, num_resamples, seed)
    return float(difference.sum() / blocks.sum()), low, high


def cluster_mean(values, level=0.95, num_resamples=2000, seed=0):
    """Confidence interval of a mean over drops.

    Args:
        values: float `[num_drops]`, one value per drop.
        level, num_resamples, seed: as for `cluster_bootstrap`.

    Returns:
        The pair `(low, high)` of floats.
    """
    values = np.asarray(values, np.float64).ravel()
    return _bootstrap(values, np.ones_like(values), level, num_resamples, seed)


def _bootstrap(errors, blocks, level, num_resamples, seed):
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(errors.size, np.full(errors.size, 1 / errors.size), num_resamples)
    rates = (weights @ errors) / (weights @ blocks)
    tail = (1 - level) / 2
    low, high = np.quantile(rates, [tail, 1 - tail])
    return float(low), float(high)


def recovered_share(rows, quantity, worst="hold", best="perfect"):
    """Share of what age costs that a policy wins back.

    `(q(policy) - q(worst)) / (q(best) - q(worst))`, per regime, horizon, SNR and, where rows have
    it, adaptation.

    Args:
        rows: list of dict with `regime`, `horizon`, `policy`, `snr_db` and the quantity; one row
            per cell.
        quantity: str, name of the quantity: `goodput` or `sum_rate`.
        worst: str, policy that wins nothing back.
        best: str, policy that wins all back.

    Returns:
        List of float or None, one per row; None where the two are missing or differ by less than
        1 % of the best: there is nothing to win back.
    """
    cells = {}
    for row in rows:
        key = _cell(row)
        cells.setdefault(key, {})[row["policy"]] = row[quantity]
    shares = []
    for row in rows:
        cell = cells[_cell(row)]
        low, high = cell.get(worst), cell.get(best)
        if low is None or high is None or high - low <= 0.01 * high:
            shares.append(None)
        else:
            shares.append((row[quantity] - low) / (high - low))
    return shares


def _cell(row):
    return row["regime"], row["horizon"], row["snr_db"], row.get("adaptation")


def nmse_summary(h_hat, h, rms):
    """NMSE in the three ways of the project, in decibels.

    Args:
        h_hat: complex `[..., num_antennas, num_subcarriers]`, estimates.
        h: complex, same shape, true channels.
        rms: float `[...]`, RMS of each user's true history: the weights of the pooled figure.

    Returns:
        Dict with `nmse_pooled_db` (sum of errors over sum of powers, every user scaled to unit
        RMS of its true history), `nmse_mean_db`, `nmse_median_db` and `nmse_q90_db`; None where
        there is no user.
    """
    error, power = normalized_error(
        h_hat.reshape(-1, *h_hat.shape[-2:]), h.reshape(-1, *h.shape[-2:]), np.ravel(rms)
    )
    names = ("nmse_pooled_db", "nmse_mean_db", "nmse_median_db", "nmse_q90_db")
    if not np.any(power > 0):
        return dict.fromkeys(names)
    summary = summarize_errors(error, power)
    # Perfect CSI has no error at all; a floor keeps records free of infinities.
    return {name: round(max(summary[name], _FLOOR_DB), 4) for name in names}
