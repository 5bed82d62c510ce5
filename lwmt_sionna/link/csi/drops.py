"""Drops: groups of users that one base station serves in one slot."""

import hashlib
import logging
from dataclasses import dataclass

import numpy as np

from lwmt_sionna import data
from lwmt_sionna.link.csi.channels import RegimeChannels, with_stride
from lwmt_sionna.link.csi.sounding import SoundingConfig
from lwmt_sionna.link.csi.users import admitted, group_users, spatial_similarity
from lwmt_sionna.link.phy.config import DownlinkConfig

__all__ = ["DropConfig", "DropFactory", "LinkDrops"]

logger = logging.getLogger(__name__)

# Users walk and drive over slopes, at speeds that differ a little; they are one regime still.
_SPEED_TOLERANCE = 0.05
# More users of other speeds than this share of them are no mishap.
_MOST_OFF_SPEED = 0.05


@dataclass(frozen=True)
class LinkDrops:
    """Channels of all drops of one mobility regime at one horizon.

    Every user's channel is divided by the RMS of its own *noisy history*: perfect power control
    between users that uses nothing of the future.

    `num_links` counts the receive antennas of all users, those of a user being neighbours; with
    single-antenna users it is `num_users`. A predictor sees one sequence per receive antenna.

    Args:
        history: complex64 `[num_drops, num_links, num_snapshots, num_antennas, num_subcarriers]`,
            what the base station has measured.
        target: complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`, true channel in
            the middle of the scheduled slot.
        slot: complex64 `[num_drops, num_links, num_ofdm_symbols, num_antennas, num_subcarriers]`,
            true channel of the scheduled slot.
        horizon: int, snapshots from the last one of the history to the slot.
        history_rms: float32 `[num_drops, num_users]` or None, RMS of the true history in the same
            scale.
        event: bool `[num_drops, num_users]` or None, whether a path of notable power was born or
            died between the last history snapshot and the slot.
        num_user_antennas: int, antennas of a user.
    """

    history: np.ndarray
    target: np.ndarray
    slot: np.ndarray
    horizon: int
    history_rms: np.ndarray | None = None
    event: np.ndarray | None = None
    num_user_antennas: int = 1

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
        if self.num_user_antennas < 1 or self.history.shape[1] % self.num_user_antennas:
            raise ValueError(
                "The links of a drop must be those of whole users. Received: "
                f"num_links={self.history.shape[1]}, num_user_antennas={self.num_user_antennas}"
            )

    @property
    def num_drops(self):
        """int, number of drops."""
        return self.history.shape[0]

    @property
    def num_users(self):
        """int, users of a drop."""
        return self.history.shape[1] // self.num_user_antennas


@dataclass(frozen=True)
class DropConfig:
    """How drops are formed.

    Args:
        num_drops: int or None, drops to form per regime; as many as the data allows when None.
        num_history: int, snapshots of history.
        stride: int, snapshots of the data from one CSI instant to the next: a longer CSI period
            from the same motion.
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
    stride: int = 1
    history_snr_db: float = 15.0
    csi_subcarrier_spacing: float = 540e3
    min_last_db: float = -10.0
    max_similarity: float = 0.5
    seed: int = 0

    def __post_init__(self):
        for name in ("num_drops", "num_history", "stride"):
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

    All sequences must share scene, speed and sampling period: a *regime*. A few that are more than
    5 % faster or slower than the median, as down a steep slope, are left out and counted.

    Drops are formed from the measured histories alone, as a scheduler would: users of a drop belong
    to one base station, are still heard in the last snapshot and are not too similar. A trajectory
    serves in at most one drop, so that drops are independent and intervals over drops are honest.

    Args:
        paths: `lwmt_sionna.data.PathSequences` of one regime.
        downlink: `DownlinkConfig`.
        config: `DropConfig`.
        sounding: `SoundingConfig`, how the history is measured.
        label: str, what tells this regime from others of the same speed and CSI period.

    Raises:
        ValueError: the sequences do not form a regime, or too few users remain for one drop.
    """

    def __init__(self, paths, downlink=None, config=None, sounding=None, label=""):
        self.downlink = DownlinkConfig() if downlink is None else downlink
        self.config = DropConfig() if config is None else config
        self.sounding = SoundingConfig() if sounding is None else sounding
        self._label = label
        paths = with_stride(paths, self.config.stride)
        self.scene = paths.scene
        self.sampling_period = float(paths.sampling_period)
        self.speed_kmh, at_speed = _common_speed_kmh(paths.speed)
        num_off_speed = int(np.count_nonzero(~at_speed))
        if num_off_speed:
            paths = paths.select(at_speed)
        self.normalized_doppler = round(float(np.median(paths.normalized_doppler)), 3)
        self._last = self.config.num_history - 1
        self.max_horizon = paths.num_snapshots - self.config.num_history
        if self.max_horizon < 1:
            raise ValueError(
                f"Sequences need more than num_history={self.config.num_history} snapshots. "
                f"Received: {paths.num_snapshots} snapshots with stride={self.config.stride}"
            )
        if paths.a.shape[-1] != 1:
            raise ValueError(
                "The link uses a base station with one polarisation. "
                f"Received: paths with {paths.a.shape[-1]} polarisations"
            )
        self._channels = RegimeChannels(
            paths, self.downlink, self.config.csi_subcarrier_spacing, self.config.seed
        )
        snapshots = list(range(self.config.num_history))
        true = self._channels.true(np.arange(paths.num_sequences), snapshots)
        history = self._channels.measured(
            true, snapshots, self.config.history_snr_db, self.sounding, self.config.seed
        )
        #: int `[num_drops, num_users]`, sequence of every user among those of `paths` at its speed.
        self.users, self.counts = self._form_drops(paths, true, history)
        self.counts["num_sequences"] += num_off_speed
        self.counts["num_off_speed"] = num_off_speed
        chosen = self.users.ravel()
        self._rms = _user_rms(history[chosen])
        self._history = self._by_drop(self._scaled(history[chosen]))
        self._history_rms = (_user_rms(true[chosen]) / self._rms).reshape(self.users.shape)
        self.digest = self._make_digest(paths.select(chosen))

    @property
    def num_drops(self):
        """int, number of drops formed."""
        return len(self.users)

    @property
    def name(self):
        """str, the regime in words."""
        name = f"{self.speed_kmh:g} km/h, {self.sampling_period * 1e3:g} ms"
        return f"{name}, {self._label}" if self._label else name

    @property
    def columns(self):
        """dict, what every point of this regime says about it."""
        return {
            "scene": self.scene,
            "speed_kmh": self.speed_kmh,
            "sampling_period": self.sampling_period,
            "normalized_doppler": self.normalized_doppler,
            "num_users": self.downlink.num_users,
            "history_snr_db": self.config.history_snr_db,
            "sounding": self.sounding.mode,
        }

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
        chosen = self.users.ravel()
        target = self._channels.true(chosen, [snapshot])[:, :, 0]
        slot = self._channels.true(chosen, [snapshot], times=self.downlink.symbol_times)[:, :, 0]
        event = data.event_mask(self._channels.paths.select(chosen), self._last, snapshot)
        return LinkDrops(
            history=self._history,
            target=self._by_drop(self._scaled(target)),
            slot=self._by_drop(self._scaled(slot)),
            horizon=horizon,
            history_rms=self._history_rms,
            event=event.reshape(self.users.shape),
            num_user_antennas=self.downlink.num_user_antennas,
        )

    def _form_drops(self, paths, true, history):
        config = self.config
        lit = np.abs(true).max(axis=(1, 3, 4)).min(axis=1) > 0
        # All antennas of a user at once: to the scheduler they are further subcarriers.
        history = np.concatenate(np.moveaxis(history, 1, 0), axis=-1)
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

    def _scaled(self, x):
        """Divides `[num_users, num_user_antennas, ...]` by the RMS of the users' histories."""
        return x / self._rms.reshape(-1, *[1] * (x.ndim - 1))

    def _by_drop(self, x):
        return x.reshape(len(self.users), -1, *x.shape[2:])

    def _make_digest(self, paths):
        digest = hashlib.sha256()
        for name in ("a", "tau", "phi_t", "theta_t", "phi_r", "theta_r", "doppler"):
            digest.update(np.ascontiguousarray(getattr(paths, name)))
        # Two runs with other numbers of drops share no counts, but other settings of theirs do.
        settings = (self.users.tolist(), self.config, self.sounding, self.sampling_period)
        digest.update(repr(settings).encode())
        return digest.hexdigest()


def _user_rms(history):
    """RMS over everything but the user, float32 `[num_users]`; 1 where there is nothing."""
    square = np.mean(np.abs(history) ** 2, axis=tuple(range(1, history.ndim)), dtype=np.float64)
    return np.sqrt(np.where(square > 0, square, 1.0)).astype(np.float32)


def _common_speed_kmh(speed):
    """The speed in km/h, and whether sequences have it, bool `[num_sequences]`."""
    middle = float(np.median(speed))
    at_speed = np.abs(speed - middle) <= _SPEED_TOLERANCE * max(middle, 1e-3)
    if np.mean(~at_speed) > _MOST_OFF_SPEED:
        low, high = float(np.min(speed)), float(np.max(speed))
        raise ValueError(
            "The users of a link regime move at one speed. "
            f"Received: speeds from {low * 3.6:.1f} to {high * 3.6:.1f} km/h"
        )
    return round(middle * 3.6), at_speed
