"""Link adaptation: the scheme of every block, from what the base station believes."""

import dataclasses

import numpy as np

__all__ = ["AdaptationConfig", "adapt", "choose_scheme"]


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """How schemes are chosen.

    Args:
        bler_target: float, block error rate that the base station aims at.
        step_db: float, how much an error makes the outer loop more careful [dB]. A block that
            arrives makes it less careful by `step_db * bler_target / (1 - bler_target)`, so that it
            settles where the target is met.
        max_offset_db: float, bound of the outer loop's offset [dB].
        seed: int, seed of the feedback where blocks are not decoded but have a probability.
    """

    bler_target: float = 0.1
    step_db: float = 0.5
    max_offset_db: float = 20.0
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.bler_target < 1:
            raise ValueError(
                f"`bler_target` must lie between 0 and 1. Received: bler_target={self.bler_target}"
            )
        for name in ("step_db", "max_offset_db"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"`{name}` must be positive. Received: {name}={getattr(self, name)}"
                )


def choose_scheme(snr_db, waterfalls, bler_target, offset_db=0.0):
    """The fastest scheme that is expected to meet the target, or the slowest one.

    Args:
        snr_db: float `[..., num_schemes]`, effective SNR that the base station believes each
            scheme to have [dB].
        waterfalls: list of `Waterfall`, of the schemes in order of their rate, the slowest first.
        bler_target: float.
        offset_db: float, what is taken off the belief [dB].

    Returns:
        int `[...]`, position in `waterfalls`.
    """
    required = np.array([waterfall.required_snr_db(bler_target) for waterfall in waterfalls])
    return _fastest(snr_db - required - offset_db)


def _fastest(margin):
    """Last scheme with a margin that is not negative, or the first one."""
    met = margin >= 0
    last = met.shape[-1] - 1 - np.argmax(met[..., ::-1], axis=-1)
    return np.where(met.any(axis=-1), last, 0)


def adapt(failure, snr_db, waterfalls, config=None, outer_loop=True):
    """Chooses a scheme for every block of a sequence of drops.

    Without the outer loop the base station takes its belief for the truth (inner loop). With it, an
    offset common to all users of the cell follows their acknowledgements: it learns how far this
    CSI may be trusted. The drops are gone through once for the offset to settle and once more to
    count.

    Args:
        failure: float `[num_schemes, num_drops, num_users, num_slots]`, whether a block of each
            scheme fails (0 or 1), or the probability.
        snr_db: float `[num_drops, num_users, num_schemes]`, effective SNR that the base station
            believes [dB].
        waterfalls: list of `Waterfall`, of the schemes in order of their rate, the slowest first.
        config: `AdaptationConfig`.
        outer_loop: bool.

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
    if not outer_loop:
        chosen[:] = choose_scheme(snr_db, waterfalls, config.bler_target)[..., None]
        return chosen, offsets
    required = np.array([w.required_snr_db(config.bler_target) for w in waterfalls])
    margin = snr_db - required
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
                offset = float(np.clip(offset, -config.max_offset_db, config.max_offset_db))
    return chosen, offsets
