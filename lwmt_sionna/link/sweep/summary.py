"""Counts into the columns of points, with honest intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lwmt_sionna.baselines import CLASSICAL
from lwmt_sionna.evaluation import (
    cluster_bootstrap,
    normalized_error,
    paired_difference,
    summarize_errors,
    verdict,
)
from lwmt_sionna.link.csi.policies import ESTIMATORS
from lwmt_sionna.link.phy.config import DownlinkConfig, get_mcs
from lwmt_sionna.typing import Array

# What policies are compared by.
_COMPARED = ("goodput", "sum_rate")
_TRAINING_FREE = (*CLASSICAL, *ESTIMATORS)


def survey_columns(survey: dict[str, Any]) -> dict[str, Any]:
    """Columns of a point that do not depend on the scheme, of the result of a task without one.

    The NMSE of the policy, `sum_rate` (mean over drops of the users' summed rate of Gaussian
    signalling [bit/s/Hz]), `user_rate_median` and `user_rate_q05` over users.
    """
    rate, event = survey["rate"].astype(np.float64), survey["event"]
    columns = {
        **survey["quality"],
        "sum_rate": float(rate.sum(axis=1).mean()),
        "user_rate_median": float(np.median(rate)),
        "user_rate_q05": float(np.quantile(rate, 0.05)),
    }
    if event is not None and not event.all():
        columns["user_rate_mean_event_free"] = float(rate[~event].mean())
    return columns


def scheme_point(
    downlink: DownlinkConfig,
    mcs: int,
    failure: Array,
    event: Array | None,
    num_bit_errors: int | None = None,
    reference: Array | None = None,
) -> dict[str, Any]:
    """Columns of a point that depend on the scheme.

    Args:
        failure: `[num_drops, num_users, num_slots]`, bool where blocks were decoded, float
            probabilities where they were not.
        event: bool `[num_drops, num_users]` or None.
        num_bit_errors: int or None, wrong information bits.
        reference: like `failure` or None, of the policy to compare with.
    """
    scheme = get_mcs(mcs)
    decoded = failure.dtype == bool
    per_drop = failure.sum(axis=(1, 2), dtype=np.float64)
    blocks = np.full(len(failure), failure[0].size)
    bler = float(per_drop.sum() / blocks.sum())
    low, high = cluster_bootstrap(per_drop, blocks)
    rate = downlink.rate(scheme)
    point = {
        "mcs": scheme.index,
        "mcs_name": scheme.name,
        "num_drops": len(failure),
        "num_blocks": failure.size,
        # Of blocks that were not decoded the errors are expected ones.
        "num_block_errors": int(per_drop.sum()) if decoded else round(float(per_drop.sum()), 2),
        "bler": bler,
        "bler_low": low,
        "bler_high": high,
        "rate": rate,
        "goodput": rate * (1 - bler),
    }
    if num_bit_errors is not None:
        num_bits = failure.size * scheme.num_info_bits(downlink.block_symbols)
        point |= {"num_bits": num_bits, "num_bit_errors": num_bit_errors}
        point["ber"] = num_bit_errors / num_bits
    if event is not None:
        free = failure[~event]
        point["num_blocks_event_free"] = free.size
        point["bler_event_free"] = float(free.mean()) if free.size else None
    if reference is not None:
        # The same bits and noise met both in the slots that both have.
        common = min(failure.shape[2], reference.shape[2])
        values = paired_difference(
            *(x[..., :common].mean(axis=(1, 2), dtype=np.float64) for x in (failure, reference))
        )
        names = ("", "_low", "_high")
        point |= {f"bler_minus_hold{name}": value for name, value in zip(names, values)}
    return point


def add_differences(
    rows: Sequence[tuple[dict[str, Any], dict[str, Array]]], *cell: str
) -> list[dict[str, Any]]:
    """How every policy differs from the best training-free one on the same drops.

    The best is the one with the largest mean among the policies that are named like a training-free
    baseline or estimator. It is chosen by the same drops, whose chance it has on its side: what is
    better than it is so with caution, what is worse may be so by the choice.

    Args:
        rows: list of pairs of a dict with `policy`, `link_snr_db` and the quantities `goodput` and
            `sum_rate`, and of the same quantities drop by drop, float `[num_drops]`; all of one
            regime and horizon.
        *cell: str, further keys of rows that are compared only where they are equal.

    Returns:
        List of dict: the rows in their order. Where their cell has a training-free policy, they say
        for each quantity `QUANTITY_reference`, the policy that they are compared with,
        `QUANTITY_difference`, `QUANTITY_difference_low` and `QUANTITY_difference_high` (95 %, over
        drops; None with a single drop), and `QUANTITY_verdict`; see
        `lwmt_sionna.evaluation.paired_difference` and `verdict`.
    """
    best: dict[Any, tuple[dict[str, Any], dict[str, Array]]] = {}
    names = [(quantity, "link_snr_db", *cell) for quantity in _COMPARED]
    keys = [[(name[0], *(row[part] for part in name[1:])) for name in names] for row, _ in rows]
    for own, places in zip(rows, keys):
        for place in places if own[0]["policy"] in _TRAINING_FREE else ():
            best[place] = max(best.get(place, own), own, key=lambda pair: pair[0][place[0]])
    found = []
    for (row, by_drop), places in zip(rows, keys):
        columns = dict(row)
        for quantity, place in zip(_COMPARED, places):
            if place not in best:
                continue
            reference, other = best[place]
            difference, *ends = paired_difference(by_drop[quantity], other[quantity])
            low, high = (end if np.isfinite(end) else None for end in ends)
            columns |= {
                f"{quantity}_reference": reference["policy"],
                f"{quantity}_difference": difference,
                f"{quantity}_difference_low": low,
                f"{quantity}_difference_high": high,
                f"{quantity}_verdict": verdict(*ends),
            }
        found.append(columns)
    return found


def recovered_share(rows: Sequence[dict[str, Any]], quantity: str) -> list[float | None]:
    """Share of what age costs that a policy wins back.

    `(q(policy) - q(hold)) / (q(perfect) - q(hold))`, per regime, horizon, SNR and, where rows have
    it, adaptation.

    Args:
        rows: list of dict with `regime`, `horizon`, `policy`, `link_snr_db` and the quantity; one
            row per cell.
        quantity: str, name of the quantity: `goodput` or `sum_rate`.

    Returns:
        List of float or None, one per row; None where hold or perfect CSI is missing or they differ
        by less than 1 % of the latter: there is nothing to win back.
    """
    cells: dict[Any, dict[str, float]] = {}
    for row in rows:
        key = _cell(row)
        cells.setdefault(key, {})[row["policy"]] = row[quantity]
    shares: list[float | None] = []
    for row in rows:
        cell = cells[_cell(row)]
        low, high = cell.get("hold"), cell.get("perfect")
        if low is None or high is None or high - low <= 0.01 * high:
            shares.append(None)
        else:
            shares.append((row[quantity] - low) / (high - low))
    return shares


def _cell(row):
    return row["regime"], row["horizon"], row["link_snr_db"], row.get("adaptation")


def nmse_summary(h_hat: Array, h: Array, rms: Array) -> dict[str, float | None]:
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
    return {name: round(summary[name], 4) for name in names}
