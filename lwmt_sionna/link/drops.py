"""Drops: groups of users that one base station serves in one slot."""

import hashlib
import logging
from dataclasses import dataclass

import numpy as np

from lwmt_sionna import data
from lwmt_sionna.link.config import DownlinkConfig

__all__ = ["DropFactory", "LinkDrops"]

logger = logging.getLogger(__name__)

_SPEED_OF_LIGHT = 299_792_458.0


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
        digest: str, hash of what the channels were made from; a sweep resumes only if it agrees.
    """

    history: np.ndarray
    target: np.ndarray
    slot: np.ndarray
    horizon: int
    history_rms: np.ndarray | None = None
    event: np.ndarray | None = None
    digest: str = ""

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
        if not self.digest:
            digest = hashlib.sha256()
            for array in (self.history, self.target, self.slot):
                digest.update(np.ascontiguousarray(array))
            object.__setattr__(self, "digest", digest.hexdigest())

    @property
    def num_drops(self):
        """int, number of drops."""
        return self.history.shape[0]

    @property
    def num_users(self):
        """int, users of a drop."""
        return self.history.shape[1]


class DropFactory:
    """Forms drops from stored paths and synthesises their channels.

    All sequences must share scene, speed and sampling period: a *regime*. The users of a drop
    belong to one base station and to different trajectories, and a trajectory serves in at most one
    drop, so that drops are independent and intervals over drops are honest. Sequences whose history
    vanishes in some snapshot are left out and counted (`num_vanished`).

    Args:
        paths: `lwmt_sionna.data.PathSequences` of one regime.
        config: `DownlinkConfig`.
        num_drops: int or None, drops to form; as many as the data allows when None.
        num_history: int, snapshots of history.
        csi_subcarrier_spacing: float, spacing of the CSI grid [Hz].
        history_snr_db: float, SNR of the measured history [dB].
        seed: int, seed of grouping and of the history noise.

    Raises:
        ValueError: the sequences do not form a regime, or too few users remain for one drop.
    """

    def __init__(
        self,
        paths,
        config=None,
        num_drops=None,
        num_history=16,
        csi_subcarrier_spacing=540e3,
        history_snr_db=15.0,
        seed=0,
    ):
        self.config = DownlinkConfig() if config is None else config
        self.num_history = num_history
        self.history_snr_db = float(history_snr_db)
        self.sampling_period = float(paths.sampling_period)
        self.scene = paths.scene
        self.speed_kmh = _common_speed_kmh(paths.speed)
        self.normalized_doppler = (
            self.speed_kmh / 3.6 * paths.carrier_frequency / _SPEED_OF_LIGHT * self.sampling_period
        )
        if paths.num_snapshots <= num_history:
            raise ValueError(
                f"Sequences need more than num_history={num_history} snapshots. "
                f"Received: num_snapshots={paths.num_snapshots}"
            )
        self.max_horizon = paths.num_snapshots - num_history
        self._array = data.PlanarArray(
            num_rows=1, num_cols=self.config.num_antennas, polarization="V"
        )
        self._frequencies = data.subcarrier_frequencies(
            self.config.num_subcarriers, csi_subcarrier_spacing
        )

        lit = paths.valid[:, :num_history].any(axis=2).all(axis=1)
        self.num_vanished = int(np.count_nonzero(~lit))
        if self.num_vanished:
            logger.warning(
                "%d of %d sequences left out: their channel vanishes in the history.",
                self.num_vanished,
                len(lit),
            )
        rng = np.random.default_rng([seed, 0])
        groups = _group_users(
            np.flatnonzero(lit), paths.trajectory_id, paths.bs_index, self.config.num_users, rng
        )
        if len(groups) == 0:
            raise ValueError(
                f"Too few users for one drop of {self.config.num_users}: each needs a trajectory "
                f"of its own. Received: {np.unique(paths.trajectory_id[lit]).size} trajectories"
            )
        if num_drops is not None and len(groups) < num_drops:
            logger.warning(
                "%.0f km/h: %d drops asked for, the data allows %d.",
                self.speed_kmh,
                num_drops,
                len(groups),
            )
        #: int `[num_drops, num_users]`, sequence of every user in `paths`.
        self.users = groups[:num_drops]
        self._paths = paths.select(self.users.ravel())
        self._history, self._rms, true_rms = self._make_history(np.random.default_rng([seed, 1]))
        self._history_rms = true_rms / self._rms
        self.digest = self._make_digest(csi_subcarrier_spacing, seed)

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
        snapshot = self.num_history - 1 + horizon
        target = self._synthesize([snapshot])[:, 0]
        slot = self._synthesize([snapshot], times=self.config.symbol_times)[:, 0]
        target, slot = (self._by_drop(self._scaled(h)) for h in (target, slot))
        event = data.event_mask(self._paths, self.num_history - 1, snapshot)
        return LinkDrops(
            history=self._by_drop(self._history),
            target=target,
            slot=slot,
            horizon=horizon,
            history_rms=self._by_drop(self._history_rms),
            event=self._by_drop(np.asarray(event, bool)),
            digest=self.digest,
        )

    def _by_drop(self, x):
        return x.reshape(self.users.shape + x.shape[1:])

    def _scaled(self, h):
        return (h / self._rms.reshape((-1,) + (1,) * (h.ndim - 1))).astype(np.complex64)

    def _synthesize(self, snapshots, times=None):
        return data.synthesize(
            self._paths, self._array, self._frequencies, times=times, snapshots=snapshots
        )

    def _make_history(self, rng):
        true = self._synthesize(list(range(self.num_history)))
        noisy = data.add_noise(true, self.history_snr_db, rng)
        rms = data.history_scale(noisy)
        return noisy / rms, rms.ravel(), data.history_scale(true).ravel()

    def _make_digest(self, csi_subcarrier_spacing, seed):
        digest = hashlib.sha256()
        for array in (self._paths.a, self._paths.tau, self._paths.phi_t, self._paths.doppler):
            digest.update(np.ascontiguousarray(array))
        settings = (self.users.tolist(), self.num_history, self.history_snr_db, seed)
        digest.update(repr((settings, csi_subcarrier_spacing, self.sampling_period)).encode())
        return digest.hexdigest()


def _common_speed_kmh(speed):
    low, high = float(np.min(speed)), float(np.max(speed))
    if high - low > 0.01 * max(high, 1e-3):
        raise ValueError(
            "The users of a link regime move at one speed. "
            f"Received: speeds from {low * 3.6:.1f} to {high * 3.6:.1f} km/h"
        )
    return round(float(np.mean(speed)) * 3.6, 2)


def _group_users(candidates, trajectory_id, bs_index, num_users, rng):
    """Indices `[num_drops, num_users]`: one base station per group, each trajectory once."""
    candidates = rng.permutation(candidates)
    # The first sequence of every trajectory in random order, a random one of its windows.
    _, first = np.unique(trajectory_id[candidates], return_index=True)
    candidates = candidates[np.sort(first)]
    groups = []
    for station in np.unique(bs_index[candidates]):
        users = candidates[bs_index[candidates] == station]
        users = users[: len(users) // num_users * num_users]
        groups.append(users.reshape(-1, num_users))
    groups = np.concatenate(groups) if groups else np.empty((0, num_users), int)
    return groups[rng.permutation(len(groups))]
