"""Drops: groups of users that one base station serves in one slot."""

import hashlib
import logging
from dataclasses import dataclass

import numpy as np

from lwmt_sionna import data
from lwmt_sionna.link.config import DownlinkConfig
from lwmt_sionna.link.selection import admitted, group_users, spatial_similarity

__all__ = ["DropConfig", "DropFactory", "LinkDrops"]

logger = logging.getLogger(__name__)

# Lines are drawn at speeds that differ a little; they are one regime still.
_SPEED_TOLERANCE = 0.05


@dataclass(frozen=True)
class LinkDrops:
    """Channels of all drops of one mobility regime at one horizon.

    Every user's channel is divided by the RMS of its own *noisy history*: perfect power control
    between users that uses nothing of the future.

    Args:
        history: complex64 `[num_drops, num_users, num_snapshots, num_antennas, num_subcarriers]`,
            what the base station has measured.
        target: complex64 `[num_drops, num_users, num_antennas, num_subcarriers]`, true channel in
            the middle of the scheduled slot.
        slot: complex64 `[num_drops, num_users, num_ofdm_symbols, num_antennas, num_subcarriers]`,
            true channel of the scheduled slot.
        horizon: int, snapshots from the last one of the history to the slot.
        history_rms: float32 `[num_drops, num_users]`, RMS of the true history in the same scale.
        event: bool `[num_drops, num_users]` or None, whether a path of notable power was born or
            died between the last history snapshot and the slot.
    """

    history: np.ndarray
    target: np.ndarray
    slot: np.ndarray
    horizon: int
    history_rms: np.ndarray | None = None
    event: np.ndarray | None = None

    def __post_init__(self):
        if self.history.ndim != 5 or self.target.ndim != 4 or self.slot.ndim != 5:
            raise ValueError(
                "Drops need history and slot of rank 5 and target of rank 4. Received shapes: "
                f"history={self.history.shape}, target={self.target.shape}, slot={self.slot.shape}"
            )
        expected = self.history.shape[:2] + self.history.shape[3:]
        if self.target.shape != expected or self.slot.shape[:2] + self.slot.shape[3:] != expected:
            raise ValueError(
                "History, target and slot must agree in drops, users, antennas and subcarriers. "
                f"Received shapes: history={self.history.shape}, target={self.target.shape}, "
                f"slot={self.slot.shape}"
            )
        if self.horizon < 0:
            raise ValueError(f"`horizon` must not be negative. Received: horizon={self.horizon}")

    @property
    def num_drops(self):
        """int, number of drops."""
        return self.history.shape[0]

    @property
    def num_users(self):
        """int, users of a drop."""
        return self.history.shape[1]


@dataclass(frozen=True)
class DropConfig:
    """How drops are formed.

    Args:
        num_drops: int or None, drops to form per regime; as many as the data allows when None.
        num_history: int, snapshots of history.
        history_snr_db: float, SNR of the measured history [dB].
        csi_subcarrier_spacing: float, spacing of the CSI grid [Hz].
        min_last_db: float, users whose last measured snapshot has less power than this, relative
            to the mean over their history, are not scheduled [dB].
        max_similarity: float, largest similarity of the measured spatial covariances of two users
            that are served together (0 to 1); 1 groups users blindly.
        seed: int, seed of grouping and of the history noise.
    """

    num_drops: int | None = None
    num_history: int = 16
    history_snr_db: float = 15.0
    csi_subcarrier_spacing: float = 540e3
    min_last_db: float = -10.0
    max_similarity: float = 0.5
    seed: int = 0

    def __post_init__(self):
        for name in ("num_drops", "num_history"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        if not self.csi_subcarrier_spacing > 0:
            raise ValueError(
                "`csi_subcarrier_spacing` must be positive. "
                f"Received: csi_subcarrier_spacing={self.csi_subcarrier_spacing}"
            )
        if not 0 < self.max_similarity <= 1:
            raise ValueError(
                "`max_similarity` must lie between 0 and 1. "
                f"Received: max_similarity={self.max_similarity}"
            )


class DropFactory:
    """Forms drops from stored paths and synthesises their channels.

    All sequences must share scene, speed and sampling period: a *regime*. Drops are formed from
    the measured histories alone, as a scheduler would: users of a drop belong to one base station,
    are still heard in the last snapshot and are not too similar. A trajectory serves in at most
    one drop, so that drops are independent and intervals over drops are honest.

    Args:
        paths: `lwmt_sionna.data.PathSequences` of one regime.
        downlink: `DownlinkConfig`.
        config: `DropConfig`.

    Raises:
        ValueError: the sequences do not form a regime, or too few users remain for one drop.
    """

    def __init__(self, paths, downlink=None, config=None):
        self.downlink = DownlinkConfig() if downlink is None else downlink
        self.config = DropConfig() if config is None else config
        self.scene = paths.scene
        self.sampling_period = float(paths.sampling_period)
        self.speed_kmh = _common_speed_kmh(paths.speed)
        self.normalized_doppler = round(float(np.median(paths.normalized_doppler)), 3)
        self._last = self.config.num_history - 1
        self.max_horizon = paths.num_snapshots - self.config.num_history
        if self.max_horizon < 1:
            raise ValueError(
                f"Sequences need more than num_history={self.config.num_history} snapshots. "
                f"Received: num_snapshots={paths.num_snapshots}"
            )
        if paths.a.shape[-1] != 1:
            raise ValueError(
                "The link uses a base station with one polarisation. "
                f"Received: paths with {paths.a.shape[-1]} polarisations"
            )
        self._array = data.PlanarArray(num_rows=1, num_cols=self.downlink.num_antennas)
        self._frequencies = data.subcarrier_frequencies(
            self.downlink.num_subcarriers, self.config.csi_subcarrier_spacing
        )

        true = self._synthesize(paths, list(range(self.config.num_history)))
        rng = np.random.default_rng([self.config.seed, 1])
        history = data.add_noise(true, self.config.history_snr_db, rng)
        #: int `[num_drops, num_users]`, sequence of every user in `paths`.
        self.users, self.counts = self._form_drops(paths, true, history)
        chosen = self.users.ravel()
        self._paths = paths.select(chosen)
        self._rms = data.history_scale(history[chosen])
        self._history = history[chosen] / self._rms
        self._history_rms = (data.history_scale(true[chosen]) / self._rms).ravel()
        self.digest = self._make_digest()

    @property
    def num_drops(self):
        """int, number of drops formed."""
        return len(self.users)

    @property
    def name(self):
        """str, the regime in words."""
        return f"{self.speed_kmh:g} km/h, {self.sampling_period * 1e3:g} ms"

    def at(self, horizon):
        """Channels for the slot `horizon` snapshots after the history.

        Args:
            horizon: int, from 1 to `max_horizon`.

        Returns:
            `LinkDrops`.
        """
        if not 1 <= horizon <= self.max_horizon:
            raise ValueError(
                f"The sequences allow horizons from 1 to {self.max_horizon}. "
                f"Received: horizon={horizon}"
            )
        snapshot = self._last + horizon
        target = self._synthesize(self._paths, [snapshot])[:, 0] / self._rms[:, 0]
        slot = self._synthesize(self._paths, [snapshot], times=self.downlink.symbol_times)
        return LinkDrops(
            history=self._by_drop(self._history),
            target=self._by_drop(target),
            slot=self._by_drop(slot[:, 0] / self._rms),
            horizon=horizon,
            history_rms=self._by_drop(self._history_rms),
            event=self._by_drop(data.event_mask(self._paths, self._last, snapshot)),
        )

    def _form_drops(self, paths, true, history):
        config = self.config
        lit = np.abs(true).max(axis=(2, 3)).min(axis=1) > 0
        heard = lit & admitted(history, config.min_last_db)
        users = group_users(
            np.flatnonzero(heard),
            paths.trajectory_id,
            paths.bs_index,
            spatial_similarity(history),
            self.downlink.num_users,
            config.max_similarity,
            np.random.default_rng([config.seed, 0]),
        )
        counts = {
            "num_sequences": paths.num_sequences,
            "num_vanished": int(np.count_nonzero(~lit)),
            "num_not_heard": int(np.count_nonzero(lit & ~heard)),
            "num_grouped": users.size,
        }
        if not len(users):
            raise ValueError(
                f"Too few users for one drop of {self.downlink.num_users}: each needs a trajectory "
                f"of its own and the same base station. Received: {counts}"
            )
        logger.info("%s: %d drops can be formed.", self.name, len(users))
        if config.num_drops is not None and len(users) < config.num_drops:
            logger.warning(
                "%s: %d drops asked for, the data allows %d.",
                self.name,
                config.num_drops,
                len(users),
            )
        return users[: config.num_drops], counts

    def _by_drop(self, x):
        return x.reshape(self.users.shape + x.shape[1:])

    def _synthesize(self, paths, snapshots, times=None):
        return data.synthesize(
            paths, self._array, self._frequencies, times=times, snapshots=snapshots
        )

    def _make_digest(self):
        digest = hashlib.sha256()
        for array in (self._paths.a, self._paths.tau, self._paths.phi_t, self._paths.doppler):
            digest.update(np.ascontiguousarray(array))
        # Two runs with other numbers of drops share no counts, but other settings of theirs do.
        digest.update(repr((self.users.tolist(), self.config, self.sampling_period)).encode())
        return digest.hexdigest()


def _common_speed_kmh(speed):
    low, high = float(np.min(speed)), float(np.max(speed))
    if high - low > _SPEED_TOLERANCE * max(high, 1e-3):
        raise ValueError(
            "The users of a link regime move at one speed. "
            f"Received: speeds from {low * 3.6:.1f} to {high * 3.6:.1f} km/h"
        )
    return round(float(np.median(speed)) * 3.6)
