"""From the results of a sweep to its points: rates, intervals, goodput."""

import numpy as np

from lwmt_sionna.link.phy.mcs import get_mcs
from lwmt_sionna.link.sweep.adaptation import adapt
from lwmt_sionna.link.sweep.statistics import cluster_bootstrap, cluster_mean, paired_bootstrap

__all__ = ["ADAPTATIONS", "goodput_rows", "scheme_point", "survey_columns"]

#: How schemes are chosen: the best one of the sweep for all, by the base station's belief, by its
#: belief and what the users acknowledge.
ADAPTATIONS = ("fixed", "inner", "outer")


def survey_columns(survey):
    """Columns of a point that do not depend on the scheme.

    Args:
        survey: dict, result of a task without a scheme.

    Returns:
        Dict: the NMSE of the policy, `sum_rate` (mean over drops of the users' summed rate of
        Gaussian signalling [bit/s/Hz]), `user_rate_median` and `user_rate_q05` over users.
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


def scheme_point(downlink, mcs, failure, event, num_bit_errors=None, reference=None):
    """Columns of a point that depend on the scheme.

    Args:
        downlink: `DownlinkConfig`.
        mcs: int.
        failure: `[num_drops, num_users, num_slots]`, bool where blocks were decoded, float
            probabilities where they were not.
        event: bool `[num_drops, num_users]` or None.
        num_bit_errors: int or None, wrong information bits.
        reference: like `failure` or None, of the policy to compare with.

    Returns:
        Dict.
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
        num_symbols = downlink.num_data_symbols * downlink.streams_per_user
        num_bits = failure.size * scheme.num_info_bits(num_symbols)
        point |= {
            "num_bits": num_bits,
            "num_bit_errors": num_bit_errors,
            "ber": num_bit_errors / num_bits,
        }
    if event is not None:
        free = failure[~event]
        point["num_blocks_event_free"] = free.size
        point["bler_event_free"] = float(free.mean()) if free.size else None
    if reference is not None:
        # The same bits and noise met both in the slots that both have.
        common = min(failure.shape[2], reference.shape[2])
        pair = [x[..., :common].sum(axis=(1, 2)) for x in (failure, reference)]
        values = paired_bootstrap(*pair, np.full(len(failure), failure[0, :, :common].size))
        names = ("", "_low", "_high")
        point |= {f"bler_minus_hold{name}": value for name, value in zip(names, values)}
    return point


def goodput_rows(downlink, schemes, failure, survey, table, config):
    """Goodput of one policy at one SNR, with each way of choosing schemes.

    Goodput is information bits of blocks that arrive the first time, over all resource elements of
    the slot, pilots included: no HARQ, no segmentation.

    Args:
        downlink: `DownlinkConfig`.
        schemes: tuple of int, ascending in rate.
        failure: per scheme float or bool `[num_drops, num_users, num_slots]`.
        survey: dict, result of the task without a scheme.
        table: `DecoderTable` or None; without one there is no adaptation.
        config: `AdaptationConfig`.

    Returns:
        List of dict with `adaptation` (see `ADAPTATIONS`), `goodput` per user [bit/s/Hz] with its
        interval over drops, its distribution over users (`user_goodput_q05`, `user_goodput_q25`,
        `user_goodput_median`), `bler` of the blocks sent, `mcs`, the mean index of their schemes,
        and `offset_db`, where the loop stood on average.
    """
    rates = np.array([downlink.rate(mcs) for mcs in schemes])
    failure = np.stack([np.asarray(x, np.float32) for x in failure])
    # Schemes may have been simulated for different numbers of slots; these are common to all.
    shape = failure.shape[1:]
    best = int(np.argmax(rates * (1 - failure.mean(axis=(1, 2, 3)))))
    chosen = {"fixed": np.full(shape, best)}
    offset = {}
    if table is not None:
        num_symbols = downlink.num_data_symbols * downlink.streams_per_user
        waterfalls = [table.waterfall(mcs, num_symbols) for mcs in schemes]
        modulation = [get_mcs(mcs).num_bits_per_symbol // 2 - 1 for mcs in schemes]
        snr_db = survey["believed_snr_db"][..., modulation].astype(np.float64)
        for name in ("inner", "outer"):
            chosen[name], offsets = adapt(
                failure, snr_db, waterfalls, config, outer_loop=name == "outer"
            )
            offset[name] = float(offsets.mean())
    rows = []
    for name, scheme in chosen.items():
        lost = np.take_along_axis(failure, scheme[None], axis=0)[0]
        goodput = rates[scheme] * (1 - lost)
        by_user = goodput.mean(axis=2)
        low, high = cluster_mean(by_user.mean(axis=1))
        rows.append(
            {
                "adaptation": name,
                "goodput": float(by_user.mean()),
                "goodput_low": low,
                "goodput_high": high,
                "user_goodput_q05": float(np.quantile(by_user, 0.05)),
                "user_goodput_q25": float(np.quantile(by_user, 0.25)),
                "user_goodput_median": float(np.median(by_user)),
                "bler": float(lost.mean()),
                "mcs": schemes[best]
                if name == "fixed"
                else float(np.mean(np.take(schemes, scheme))),
                "offset_db": offset.get(name),
            }
        )
    return rows
