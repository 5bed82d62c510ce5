"""Link adaptation: the scheme of every block, from what the base station believes."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from lwmt_sionna.evaluation import cluster_mean
from lwmt_sionna.link.decoding import DecoderTable, Waterfall
from lwmt_sionna.link.phy.config import DownlinkConfig, get_mcs
from lwmt_sionna.link.phy.information import MODULATIONS
from lwmt_sionna.runs.configuration import Config, NonNegativeInt, Positive
from lwmt_sionna.typing import Array

#: How schemes are chosen, and the words for it: the best one of the sweep for all, by the base
#: station's belief, by its belief and what the users acknowledge.
ADAPTATIONS = {
    "fixed": "the best fixed scheme",
    "inner": "schemes chosen by the base station's belief",
    "outer": "schemes adapted by an outer loop",
}
# Bound of the outer loop's offset [dB].
_MAX_OFFSET_DB = 20.0


@dataclasses.dataclass(frozen=True)
class AdaptationConfig(Config):
    """How schemes are chosen.

    Attributes:
        bler_target: float, block error rate that the base station aims at.
        step_db: float, how much an error makes the outer loop more careful [dB]. A block that
            arrives makes it less careful by `step_db * bler_target / (1 - bler_target)`, so that it
            settles where the target is met.
        seed: int, seed of the feedback where blocks are not decoded but have a probability.
    """

    bler_target: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    step_db: Positive = 0.5
    seed: NonNegativeInt = 0


def adapt(
    failure: Array,
    believed_snr_db: Array,
    waterfalls: Sequence[Waterfall],
    config: AdaptationConfig | None = None,
    outer_loop: bool = True,
) -> tuple[Array, Array]:
    """Chooses a scheme for every block of a sequence of drops.

    It is the fastest one that is expected to meet the target, or the slowest. Without the outer
    loop the base station takes its belief for the truth (inner loop). With it, an
    offset common to all users of the cell follows their acknowledgements: it learns how far this
    CSI may be trusted. The drops are gone through once for the offset to settle and once more to
    count.

    Args:
        failure: float `[num_schemes, num_drops, num_users, num_slots]`, whether a block of each
            scheme fails (0 or 1), or the probability.
        believed_snr_db: float `[num_drops, num_users, num_schemes]`, effective SNR that the base
            station believes [dB].
        waterfalls: list of `Waterfall`, of the schemes in order of their rate, the slowest first.

    Returns:
        The pair of the schemes chosen, int `[num_drops, num_users, num_slots]`, positions in
        `waterfalls`, and the offset before each drop and slot, float `[num_drops, num_slots]` [dB].

    Reference:
        A. Sampath, P. Sarath Kumar, J. M. Holtzman, "On setting reverse link target SIR in a CDMA
        system", IEEE VTC, 1997; K. I. Pedersen et al., "Frequency domain scheduling for OFDMA with
        limited and noisy channel feedback", IEEE VTC, 2007.
    """
    config = AdaptationConfig() if config is None else config
    _, num_drops, num_users, num_slots = failure.shape
    chosen = np.zeros((num_drops, num_users, num_slots), int)
    offsets = np.zeros((num_drops, num_slots))
    required = np.array([w.required_snr_db(config.bler_target) for w in waterfalls])
    margin = believed_snr_db - required
    if not outer_loop:
        chosen[:] = _fastest(margin)[..., None]
        return chosen, offsets
    down = config.step_db * config.bler_target / (1 - config.bler_target)
    users = np.arange(num_users)
    rng = np.random.default_rng(config.seed)
    offset = 0.0
    for _ in range(2):
        for slot in range(num_slots):
            for drop in range(num_drops):
                offsets[drop, slot] = offset
                scheme = _fastest(margin[drop] - offset)
                chosen[drop, :, slot] = scheme
                lost = rng.random(num_users) < failure[scheme, drop, users, slot]
                offset += np.sum(np.where(lost, config.step_db, -down))
                offset = float(np.clip(offset, -_MAX_OFFSET_DB, _MAX_OFFSET_DB))
    return chosen, offsets


def _fastest(margin):
    """Last scheme with a margin that is not negative, or the first one."""
    met = margin >= 0
    last = met.shape[-1] - 1 - np.argmax(met[..., ::-1], axis=-1)
    return np.where(met.any(axis=-1), last, 0)


def goodput_rows(
    downlink: DownlinkConfig,
    schemes: Sequence[int],
    failure: Sequence[Array],
    survey: dict[str, Any],
    table: DecoderTable | None,
    config: AdaptationConfig | None,
) -> list[tuple[dict[str, Any], Array]]:
    """Goodput of one policy at one SNR, with each way of choosing schemes.

    Goodput is information bits of blocks that arrive the first time, over all resource elements of
    the slot, pilots included: no HARQ, no segmentation.

    Args:
        schemes: tuple of int, ascending in rate.
        failure: per scheme float or bool `[num_drops, num_users, num_slots]`.
        survey: dict, result of the task without a scheme.
        table: `DecoderTable` or None; without one there is no adaptation.

    Returns:
        List of pairs. First a dict with `adaptation` (see `ADAPTATIONS`), `goodput` per user
        [bit/s/Hz] with its interval over drops, its distribution over users (`user_goodput_q05`,
        `user_goodput_q25`, `user_goodput_median`), `bler` of the blocks sent, `mcs`, the mean index
        of their schemes, and `offset_db`, where the loop stood on average. Then the goodput per
        user in every drop, float `[num_drops]`.
    """
    rates = np.array([downlink.rate(mcs) for mcs in schemes])
    failed = np.stack([np.asarray(x, np.float32) for x in failure])
    best = int(np.argmax(rates * (1 - failed.mean(axis=(1, 2, 3)))))
    chosen = {"fixed": np.full(failed.shape[1:], best)}
    offset = {}
    if table is not None:
        waterfalls = [table.waterfall(mcs, downlink.block_symbols) for mcs in schemes]
        modulation = [MODULATIONS.index(get_mcs(mcs).num_bits_per_symbol) for mcs in schemes]
        believed = survey["believed_snr_db"][..., modulation].astype(np.float64)
        for name in ("inner", "outer"):
            chosen[name], offsets = adapt(
                failed, believed, waterfalls, config, outer_loop=name == "outer"
            )
            offset[name] = float(offsets.mean())
    rows = []
    for name, scheme in chosen.items():
        lost = np.take_along_axis(failed, scheme[None], axis=0)[0]
        goodput = rates[scheme] * (1 - lost)
        by_user = goodput.mean(axis=2)
        by_drop = by_user.mean(axis=1)
        low, high = cluster_mean(by_drop)
        mean_mcs = float(np.mean(np.take(schemes, scheme)))
        row = {
            "adaptation": name,
            "goodput": float(by_user.mean()),
            "goodput_low": low,
            "goodput_high": high,
            "user_goodput_q05": float(np.quantile(by_user, 0.05)),
            "user_goodput_q25": float(np.quantile(by_user, 0.25)),
            "user_goodput_median": float(np.median(by_user)),
            "bler": float(lost.mean()),
            "mcs": schemes[best] if name == "fixed" else mean_mcs,
            "offset_db": offset.get(name),
        }
        rows.append((row, by_drop))
    return rows
