"""Drops: groups of users that one base station serves in one slot, and who is served together."""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from lwmt_sionna import data
from lwmt_sionna.baselines.estimation import path_lmmse
from lwmt_sionna.data.paths import OPTIONAL_FIELDS, PATH_FIELDS, SEQUENCE_FIELDS
from lwmt_sionna.evaluation import Trial, causal_channel, event_subsets
from lwmt_sionna.link.csi.sounding import (
    SoundingConfig,
    pilot_frequencies,
    sound,
)
from lwmt_sionna.link.phy.config import DownlinkConfig
from lwmt_sionna.masking import HardwareConfig, Impaired
from lwmt_sionna.runs.configuration import Config, NonNegativeInt, Positive, PositiveInt
from lwmt_sionna.typing import Array, Random

logger = logging.getLogger(__name__)

# Users walk and drive over slopes, at speeds that differ a little; they are one regime still.
_SPEED_TOLERANCE = 0.05
# More users of other speeds than this share of them are no mishap.
_MOST_OFF_SPEED = 0.05
# Users whose last measured snapshot has less power than this, relative to the mean over their
# history, are not scheduled [dB].
_MIN_LAST_DB = -10.0
# Sequences whose channels at the sounding pilots are in memory at once.
_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class LinkDrops:
    """Channels of all drops of one mobility regime at one horizon.

    Every user's channel is divided by the RMS of its own *noisy history*: perfect power control
    between users that uses nothing of the future.

    `num_links` counts the receive antennas of all users, those of a user being neighbours; with
    single-antenna users it is `num_users`. A predictor sees one sequence per receive antenna.

    Args:
        history: complex64 `[num_drops, num_links, num_snapshots, num_antennas, num_subcarriers]`,
            what the base station has measured; NaN where sparse sounding has no pilot.
        target: complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`, true channel in
            the middle of the scheduled slot, through the antenna chains where the hardware says so.
        slot: complex64 `[num_drops, num_links, num_ofdm_symbols, num_antennas, num_subcarriers]`,
            true channel of the scheduled slot, through the same chains.
        horizon: int, snapshots from the last one of the history to the slot; 0 if it is that of the
            slot.
        history_rms: float32 `[num_drops, num_users]` or None, RMS of the true history in the same
            scale.
        event: bool `[num_drops, num_users]` or None, whether a path of notable power was born or
            died between the last history snapshot and the slot.
        num_user_antennas: int, antennas of a user.
        arrived: bool `[num_drops, num_links, num_snapshots]` or None, which reports are known to
            have arrived; the others repeat the one before. All when None.
    """

    history: np.ndarray
    target: np.ndarray
    slot: np.ndarray
    horizon: int
    history_rms: np.ndarray | None = None
    event: np.ndarray | None = None
    num_user_antennas: int = 1
    arrived: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes = {n: getattr(self, n).shape for n in ("history", "target", "slot")}
        common = [shapes["target"], *(shapes[n][:2] + shapes[n][3:] for n in ("history", "slot"))]
        if len(set(common)) > 1 or [*map(len, shapes.values())] != [5, 4, 5]:
            raise ValueError(
                "History, target and slot are of rank 5, 4 and 5, and agree in drops, users, "
                f"antennas and subcarriers. Received shapes: {shapes}"
            )
        if self.arrived is not None and self.arrived.shape != self.history.shape[:3]:
            raise ValueError(
                f"`arrived` must be of shape {self.history.shape[:3]}. "
                f"Received: arrived.shape={self.arrived.shape}"
            )
        if self.horizon < 0:
            raise ValueError(f"`horizon` must not be negative. Received: horizon={self.horizon}")
        if self.num_user_antennas < 1 or self.history.shape[1] % self.num_user_antennas:
            raise ValueError(
                "The links of a drop must be those of whole users. Received: "
                f"num_links={self.history.shape[1]}, num_user_antennas={self.num_user_antennas}"
            )

    @property
    def num_drops(self) -> int:
        """int, number of drops."""
        return self.history.shape[0]

    @property
    def num_users(self) -> int:
        """int, users of a drop."""
        return self.history.shape[1] // self.num_user_antennas


@dataclasses.dataclass(frozen=True)
class DropConfig(Config):
    """How drops are formed.

    Attributes:
        num_drops: int or None, drops to form per regime; as many as the data allows when None.
        num_history: int, snapshots of history.
        stride: int, snapshots of the data from one CSI snapshot to the next: a longer CSI period
            from the same motion.
        history_snr_db: float, SNR of the measured history [dB].
        csi_subcarrier_spacing: float, spacing of the CSI grid [Hz]; channels that are stored as
            such have theirs.
        max_similarity: float, largest similarity of the measured spatial covariances of two users
            that are served together (0 to 1); 1 groups users blindly.
        seed: int, seed of grouping and of the history noise.
    """

    num_drops: PositiveInt | None = None
    num_history: PositiveInt = 16
    stride: PositiveInt = 1
    history_snr_db: float = 15.0
    csi_subcarrier_spacing: Positive = 540e3
    max_similarity: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    seed: NonNegativeInt = 0


class RegimeChannels:
    """Synthesises the channels of stored paths for one link.

    Args:
        csi_subcarrier_spacing: float, spacing of the CSI grid [Hz].
        seed: int, seed of the orientation of the users' arrays.
    """

    #: What happens between the snapshots, during a slot: every path turns by its Doppler shift.
    slot_motion = "doppler"

    def __init__(
        self,
        paths: data.PathSequences,
        downlink: DownlinkConfig,
        csi_subcarrier_spacing: float,
        seed: int = 0,
    ) -> None:
        self.paths = paths
        self.sampling_period = float(paths.sampling_period)
        self.downlink = downlink
        self.frequencies = data.subcarrier_frequencies(
            downlink.num_subcarriers, csi_subcarrier_spacing
        )
        rng = np.random.default_rng([seed, 2])
        #: float `[num_sequences]`, orientation of the users' arrays [radians].
        self.yaw = rng.uniform(-np.pi, np.pi, paths.num_sequences)

    def true(
        self,
        users: Array,
        snapshots: Sequence[int],
        times: Array | None = None,
        frequencies: Array | None = None,
    ) -> Array:
        """True channels.

        Args:
            users: int `[num_users]`, sequences.
            snapshots: list of int.
            times: float `[num_times]` or None, instants relative to each snapshot [s].
            frequencies: float `[num_frequencies]` or None, those of the CSI grid when None [Hz].

        Returns:
            complex64 `[num_users, num_user_antennas, num_snapshots, (num_times,) num_antennas,
            num_frequencies]`.
        """
        frequencies = self.frequencies if frequencies is None else frequencies
        channels = [
            data.synthesize(
                paths, self.downlink.array, frequencies, times=times, snapshots=snapshots
            )
            for paths in self._per_antenna(users)
        ]
        return np.stack(channels, axis=1)

    def causal(self, users: Array, last: int, target: int) -> Array:
        """What could be foreseen at best of the true channels of sequences, int `[num_users]`.

        complex64 `[num_users, num_user_antennas, num_antennas, num_subcarriers]`; see
        `lwmt_sionna.evaluation.causal_channel`.
        """
        channels = [
            causal_channel(paths, self.downlink.array, self.frequencies, last, target)
            for paths in self._per_antenna(users)
        ]
        return np.stack(channels, axis=1)

    def lmmse(self, users: Array, h: Array, mask: Array, noise: Array) -> Array:
        """Estimates of sequences from noisy pilots, with the true statistics: see `path_lmmse`.

        Args:
            users: int `[num_users]`, sequences.
            h: complex64 `[num_users, num_user_antennas, num_snapshots, num_antennas,
                num_subcarriers]`, of the first snapshots.
            mask: bool `[num_snapshots, num_subcarriers]`, true where there is no pilot.
            noise: float `[num_users, num_user_antennas]`, power of the noise.

        Returns:
            complex64, shape as `h`.
        """
        estimates = [
            path_lmmse(
                h[:, one], mask, _at_snapshots(paths, slice(h.shape[2])), self.downlink.array,
                self.frequencies, noise[:, one],
            )
            for one, paths in enumerate(self._per_antenna(users))
        ]  # fmt: skip
        return np.stack(estimates, axis=1)

    def _per_antenna(self, users):
        paths, size = self.paths.select(users), self.downlink.num_user_antennas
        return [with_user_antenna(paths, one, size, self.yaw[users]) for one in range(size)]

    def measured(
        self,
        true: Array,
        snapshots: Sequence[int],
        history_snr_db: float,
        sounding: SoundingConfig,
        seed: int = 0,
        hardware: HardwareConfig | None = None,
    ) -> Impaired:
        """What the base station measures of all sequences.

        Args:
            true: what `true` returns of them at `snapshots`.
            history_snr_db: float, see `sound` [dB].
            seed: int, seed of noise and impairments.
            hardware: what impairs the measurement.

        Returns:
            `Impaired`: complex64, shape of `true`, and which reports are known to have arrived,
            bool `[num_sequences, num_snapshots]`.
        """
        rng = np.random.default_rng([seed, 1])
        hardware = HardwareConfig() if hardware is None else hardware
        through = functools.partial(_through, hardware, self.sampling_period, seed)
        if sounding.mode != "pilots":
            noisy = functools.partial(data.add_noise, history_snr_db=history_snr_db, rng=rng)
            return through(true, self.frequencies, noisy)
        history, arrived = np.empty_like(true), np.empty((len(true), len(snapshots)), bool)
        for offset in range(sounding.comb):
            pilots = pilot_frequencies(
                self.frequencies, self.downlink.subcarrier_spacing, sounding.comb, offset
            )
            users = np.arange(offset, len(true), sounding.comb)
            for first in range(0, len(users), _CHUNK):
                chunk = users[first : first + _CHUNK]
                estimate = functools.partial(
                    sound,
                    pilots=pilots,
                    frequencies=self.frequencies,
                    history_snr_db=history_snr_db,
                    config=sounding,
                    rng=rng,
                )
                h = self.true(chunk, snapshots, frequencies=pilots)
                history[chunk], arrived[chunk] = through(h, pilots, estimate, int(chunk[0]))
        return Impaired(history, arrived)


class StoredChannels(RegimeChannels):
    """Channels that are stored as such, for one link.

    Between the snapshots nothing is known of them: a slot has the channel of its snapshot from its
    first symbol to its last.

    Args:
        channels: `lwmt_sionna.data.ChannelSequences`, whose array and subcarriers are the link's.
        downlink: `DownlinkConfig` of that array and so many subcarriers, users of one antenna.

    Raises:
        ValueError: users have several antennas.
    """

    slot_motion = "held"

    def __init__(self, channels: data.ChannelSequences, downlink: DownlinkConfig) -> None:
        if downlink.num_user_antennas != 1:
            raise ValueError(
                "Users of stored channels have one antenna. Received: "
                f"num_user_antennas={downlink.num_user_antennas}"
            )
        self.channels = channels
        self.sampling_period = float(channels.sampling_period)
        self.downlink = downlink
        self.frequencies = channels.frequencies

    def true(
        self,
        users: Array,
        snapshots: Sequence[int],
        times: Array | None = None,
        frequencies: Array | None = None,
    ) -> Array:
        """True channels: see `RegimeChannels`; frequencies are some of the stored ones."""
        h = self.channels.h[np.ix_(users, snapshots)][:, None]
        if frequencies is not None:
            h = h[..., self._columns(frequencies)]
        if times is None:
            return h
        return np.repeat(h[:, :, :, None], len(times), axis=3)

    def _columns(self, frequencies):
        spacing = self.channels.subcarrier_spacing
        place = (np.asarray(frequencies) - self.frequencies[0]) / spacing
        columns = np.rint(place).astype(int)
        if np.abs(place - columns).max() > 1e-3 or columns.max() >= len(self.frequencies):
            raise ValueError(
                "Sounding pilots need channels at every subcarrier of the carrier: expected stored "
                f"channels {self.downlink.subcarrier_spacing:g} Hz apart. Received: channels "
                f"{spacing:g} Hz apart"
            )
        return columns


def _through(hardware, sampling_period, seed, h, frequencies, estimate, first_user=0):
    """`Impaired` of `[num_users, num_user_antennas, num_snapshots, num_antennas, ...]`.

    The antennas of a user sound in turn, and each estimate stands for itself; oscillator, clock and
    report are the user's.
    """
    num_users, size = h.shape[:2]

    def together(x):
        x = np.moveaxis(x, 1, 3)
        return x.reshape(*x.shape[:3], -1)

    def apart(x):
        return np.moveaxis(x.reshape(*x.shape[:3], size, -1), 3, 1)

    def estimates(received):
        links = apart(received)
        links = estimate(links.reshape(-1, *links.shape[2:]))
        return together(links.reshape(num_users, size, *links.shape[1:]))

    measured = hardware.impair(
        together(h),
        np.tile(frequencies, size),
        sampling_period,
        seed,
        estimate=estimates,
        first_user=first_user,
    )
    return Impaired(apart(measured.h), measured.arrived)


def with_user_antenna(
    paths: data.PathSequences, antenna: int, num_antennas: int, yaw: Array
) -> data.PathSequences:
    """Paths as one antenna of the users' arrays receives them.

    Users carry horizontal linear arrays with half a wavelength between antennas, centred on the
    position that was traced.

    Args:
        antenna: int, index within the array.
        num_antennas: int, size of the array.
        yaw: float `[num_sequences]`, orientation of the arrays [radians].
    """
    if num_antennas == 1:
        return paths
    array = data.PlanarArray(num_rows=1, num_cols=num_antennas)
    turn = array.response(paths.theta_r, paths.phi_r - yaw[:, None, None])[..., antenna]
    return dataclasses.replace(paths, a=paths.a * turn[..., None, None])


def _with_stride(paths, stride):
    """Every `stride`-th snapshot: the same motion with less frequent CSI."""
    if stride == 1:
        return paths
    if isinstance(paths, data.ChannelSequences):
        period = stride * paths.sampling_period
        return dataclasses.replace(paths, h=paths.h[:, ::stride], sampling_period=period)
    paths = _at_snapshots(paths, slice(None, None, stride))
    return dataclasses.replace(paths, sampling_period=stride * paths.sampling_period)


def _at_snapshots(paths, snapshots):
    """Paths of some snapshots, which are told by a slice."""
    chosen = {
        name: getattr(paths, name)[:, snapshots]
        for name, (_, axes) in {**PATH_FIELDS, **SEQUENCE_FIELDS, **OPTIONAL_FIELDS}.items()
        if axes.startswith("ST") and getattr(paths, name) is not None
    }
    return dataclasses.replace(paths, **chosen)


def _advanced(paths, num_history):
    """Paths whose delays count from the first one in the history, as timing advance leaves them."""
    tau = np.where(paths.valid, paths.tau, np.inf)[:, :num_history].min(axis=(1, 2))
    tau = np.where(np.isfinite(tau), tau, 0.0)
    return dataclasses.replace(paths, tau=paths.tau - tau[:, None, None])


class DropFactory:
    """Forms drops from stored paths, whose channels it synthesises, or from stored channels.

    All sequences must share scene, speed and sampling period: a *regime*. A few that are more than
    5 % faster or slower than the median, as down a steep slope, are left out and counted. A user
    whose speed is unknown is taken for one of them.

    The base station's array is that of the downlink for paths. Stored channels bring theirs, and
    their subcarriers, in place of those of the downlink (see `downlink`), have one antenna per user
    and do not move within a slot (see `StoredChannels`).

    Drops are formed from the measured histories alone, as a scheduler would: users of a drop belong
    to one base station, are still heard in the last snapshot and are not too similar. A trajectory
    serves in at most one drop, so that drops are independent and intervals over drops are honest.

    Where sounding is sparse, drops are formed and scaled by what sounding the whole grid would have
    measured, so that all combs have the same ones; what is not sounded is NaN only then. Delays of
    paths count from the first one in the history, as timing advance leaves them.

    Args:
        sequences: `lwmt_sionna.data.PathSequences` or `ChannelSequences` of one regime.
        sounding: `SoundingConfig`, how the history is measured.
        label: str, what tells this regime from others of the same speed and CSI period.
        hardware: `lwmt_sionna.masking.HardwareConfig`, what impairs the history, and whether target
            and slot are those through the same antenna chains.

    Raises:
        ValueError: a number in the paths cannot be, the sequences do not form a regime, or too few
            users remain for one drop.
    """

    def __init__(
        self,
        sequences: data.PathSequences | data.ChannelSequences,
        downlink: DownlinkConfig | None = None,
        config: DropConfig | None = None,
        sounding: SoundingConfig | None = None,
        label: str = "",
        hardware: HardwareConfig | None = None,
    ) -> None:
        self.downlink = DownlinkConfig() if downlink is None else downlink
        self.config = DropConfig() if config is None else config
        self.sounding = SoundingConfig() if sounding is None else sounding
        self.hardware = HardwareConfig() if hardware is None else hardware
        self._label = label
        # Stored channels have been checked when they were made.
        if isinstance(sequences, data.PathSequences):
            problems = data.check_values(sequences)
            if problems:
                raise ValueError(f"These paths cannot be: {problems[0]}")
        else:
            self.downlink = _with_array_of(self.downlink, sequences)
        paths = _with_stride(sequences, self.config.stride)
        sparse = self.sounding.mode == "sparse"
        if sparse and isinstance(paths, data.PathSequences):
            paths = _advanced(paths, self.config.num_history)
        self.scene = paths.scene
        self.sampling_period = float(paths.sampling_period)
        self.speed_kmh, at_speed = _common_speed_kmh(paths.speed)
        num_off_speed = int(np.count_nonzero(~at_speed))
        if num_off_speed:
            paths = paths.select(at_speed)
        turns = paths.normalized_doppler[np.isfinite(paths.speed)]
        self.normalized_doppler = round(float(np.median(turns)), 3) if turns.size else None
        self._last = self.config.num_history - 1
        self.max_horizon = paths.num_snapshots - self.config.num_history
        if self.max_horizon < 1:
            raise ValueError(
                f"Sequences need more than num_history={self.config.num_history} snapshots. "
                f"Received: {paths.num_snapshots} snapshots with stride={self.config.stride}"
            )
        #: `RegimeChannels` of all sequences at the speed of the regime.
        self.channels: RegimeChannels = (
            StoredChannels(paths, self.downlink)
            if isinstance(paths, data.ChannelSequences)
            else RegimeChannels(
                paths, self.downlink, self.config.csi_subcarrier_spacing, self.config.seed
            )
        )
        self._sequences = paths
        snapshots = list(range(self.config.num_history))
        true = self.channels.true(np.arange(paths.num_sequences), snapshots)
        ratio, seed = self.config.history_snr_db, self.config.seed
        history, arrived = self.channels.measured(
            true, snapshots, ratio, self.sounding, seed, self.hardware
        )
        #: int `[num_drops, num_users]`, sequence of every user among those of `paths` at its speed.
        self.users, self.counts = self._form_drops(paths, true, history)
        self.counts["num_sequences"] += num_off_speed
        self.counts["num_off_speed"] = num_off_speed
        chosen = self.users.ravel()
        self._rms = _user_rms(history[chosen])
        if sparse:
            shape = len(snapshots), self.downlink.num_subcarriers
            hidden = data.sparse_mask(*shape, self.sounding.comb)
            history = np.where(hidden[:, None], np.complex64(np.nan), history)
        self._measured = history, arrived
        self._history = self._by_drop(self._scaled(history[chosen]))
        self._arrived = self._by_drop(
            np.repeat(arrived[chosen][:, None], self.downlink.num_user_antennas, axis=1)
        )
        self._history_rms = (_user_rms(true[chosen]) / self._rms).reshape(self.users.shape)
        self.digest = self._make_digest(paths.select(chosen))

    @property
    def num_drops(self) -> int:
        """int, number of drops formed."""
        return len(self.users)

    @property
    def rms(self) -> Array:
        """float32 `[num_drops, num_users]`, what the users' channels are divided by."""
        return self._rms.reshape(self.users.shape)

    @property
    def name(self) -> str:
        """str, the regime in words."""
        speed = "speed unknown" if self.speed_kmh is None else f"{self.speed_kmh:g} km/h"
        name = f"{speed}, {self.sampling_period * 1e3:g} ms"
        return f"{name}, {self._label}" if self._label else name

    @property
    def columns(self) -> dict[str, Any]:
        """dict, what every point of this regime says about it."""
        return {
            "scene": self.scene,
            "speed_kmh": self.speed_kmh,
            "sampling_period": self.sampling_period,
            "normalized_doppler": self.normalized_doppler,
            "num_users": self.downlink.num_users,
            "history_snr_db": self.config.history_snr_db,
            "sounding": self.sounding.mode,
            **({"comb": self.sounding.comb} if self.sounding.mode == "sparse" else {}),
            "target": self.hardware.target,
            "slot_motion": self.channels.slot_motion,
        }

    def at(self, horizon: int) -> LinkDrops:
        """Channels for the slot `horizon` snapshots after the history, at most `max_horizon`.

        Horizon 0 is the last snapshot of the history itself.
        """
        if not 0 <= horizon <= self.max_horizon:
            told = f"horizons from 0 to {self.max_horizon}. Received: horizon={horizon}"
            raise ValueError(f"The sequences allow {told}")
        snapshot = self._last + horizon
        chosen = self.users.ravel()
        target = self.channels.true(chosen, [snapshot])[:, :, 0]
        slot = self.channels.true(chosen, [snapshot], times=self.downlink.symbol_times)[:, :, 0]
        event = None
        if isinstance(self._sequences, data.PathSequences):
            event = data.event_mask(self._sequences.select(chosen), self._last, snapshot)
            event = event.reshape(self.users.shape)
        return LinkDrops(
            history=self._history,
            target=self._aimed_at(target, snapshot),
            slot=self._aimed_at(slot, snapshot),
            horizon=horizon,
            history_rms=self._history_rms,
            event=event,
            num_user_antennas=self.downlink.num_user_antennas,
            arrived=self._arrived,
        )

    def trial(self, num_horizons: int) -> Trial:
        """All sequences at the speed of the regime, as they were measured: for `evaluate`.

        Of users with one antenna, in the order that `users` counts; channels have the scale of the
        sequences.
        """
        history, arrived = self._measured
        first = self._last + 1
        true = self.channels.true(np.arange(len(history)), range(first + num_horizons))[:, 0]
        return Trial(
            history=history[:, 0],
            future=self.hardware.targets(true[:, first:], first, self.config.seed),
            scale=data.history_scale(true[:, :first]).ravel(),
            subsets=event_subsets(self._sequences, first, num_horizons),
            groups=self._sequences.bs_index,
            labels=self.columns,
            sequences=self._sequences,
            arrived=arrived,
        )

    def causal(self, horizon: int) -> Array:
        """What could be foreseen at best of the targets of `at`, complex64, of their shape.

        See `lwmt_sionna.evaluation.causal_channel`.
        """
        snapshot = self._last + horizon
        foreseen = self.channels.causal(self.users.ravel(), self._last, snapshot)
        return self._aimed_at(foreseen, snapshot)

    def lmmse(self, h: Array, mask: Array) -> Array:
        """Estimates of the histories of `at` with the true statistics of every user.

        See `lwmt_sionna.baselines.estimation.path_lmmse`, whose noise is that of the histories.

        Args:
            h: complex64 `[num_drops * num_links, num_snapshots, num_antennas, num_subcarriers]`,
                those histories, one link after the other.
            mask: bool `[num_snapshots, num_subcarriers]`, true where there is no pilot.

        Returns:
            complex64, shape as `h`.
        """
        chosen = self.users.ravel()
        true = self.channels.true(chosen, range(self.config.num_history))
        power = np.mean(np.abs(true) ** 2, axis=(2, 3, 4))
        noise = power * 10 ** (-0.1 * self.config.history_snr_db)
        scale = self._rms.reshape(-1, 1, 1, 1, 1)
        h = self.channels.lmmse(chosen, h.reshape(true.shape) * scale, mask, noise) / scale
        return h.reshape(-1, *true.shape[2:])

    def _form_drops(self, paths, true, history):
        config = self.config
        lit = np.abs(true).max(axis=(1, 3, 4)).min(axis=1) > 0
        # All antennas of a user at once: to the scheduler they are further subcarriers.
        history = np.concatenate(np.moveaxis(history, 1, 0), axis=-1)
        heard = lit & admitted(history)
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
                "of its own, the same base station, and directions unlike those of the others. "
                f"Received: max_similarity={config.max_similarity}, {counts}"
            )
        logger.info("%s: %d drops can be formed.", self.name, len(users))
        if config.num_drops is not None and len(users) < config.num_drops:
            told = self.name, config.num_drops, len(users)
            logger.warning("%s: %d drops asked for, the data allows %d.", *told)
        return users[: config.num_drops], counts

    def _aimed_at(self, h, snapshot):
        """Channels of one snapshot as what is predicted and sent through, by drop and in scale."""
        flat = h.reshape(-1, 1, *h.shape[-2:])
        flat = self.hardware.targets(flat, snapshot, self.config.seed)
        return self._by_drop(self._scaled(flat.reshape(h.shape)))

    def _scaled(self, x):
        """Divides `[num_users, num_user_antennas, ...]` by the RMS of the users' histories."""
        return x / self._rms.reshape(-1, *[1] * (x.ndim - 1))

    def _by_drop(self, x):
        return x.reshape(len(self.users), -1, *x.shape[2:])

    def _make_digest(self, paths):
        digest = hashlib.sha256()
        for name in PATH_FIELDS if isinstance(paths, data.PathSequences) else ("h",):
            digest.update(np.ascontiguousarray(getattr(paths, name)))
        grid = float(np.ptp(self.channels.frequencies))
        periods = (self.sampling_period, float(paths.carrier_frequency), grid)
        # Two runs with other numbers of drops share no counts, but other settings of theirs do.
        settings = (self.users.tolist(), self.config, self.sounding, self.hardware, self.downlink)
        settings += (periods,)
        digest.update(repr(settings).encode())
        return digest.hexdigest()


def _user_rms(history):
    """RMS over everything but the user, float32 `[num_users]`; 1 where there is nothing."""
    square = np.mean(np.abs(history) ** 2, axis=tuple(range(1, history.ndim)), dtype=np.float64)
    return np.sqrt(np.where(square > 0, square, 1.0)).astype(np.float32)


def _with_array_of(downlink, channels):
    rows, _, polarizations = channels.array_shape
    return dataclasses.replace(
        downlink,
        num_antennas=channels.h.shape[2],
        num_rows=rows,
        polarization="V" if polarizations == 1 else "VH",
        num_subcarriers=channels.h.shape[3],
    )


def _common_speed_kmh(speed):
    """The speed in km/h, `None` if unknown, and whether sequences have it, `[num_sequences]`."""
    known = np.isfinite(speed)
    if not known.any():
        return None, ~known
    middle = float(np.median(speed[known]))
    at_speed = ~known | (np.abs(speed - middle) <= _SPEED_TOLERANCE * max(middle, 1e-3))
    if np.mean(~at_speed) > _MOST_OFF_SPEED:
        low, high = float(np.min(speed[known])), float(np.max(speed[known]))
        raise ValueError(
            "The users of a link regime move at one speed. "
            f"Received: speeds from {low * 3.6:.1f} to {high * 3.6:.1f} km/h"
        )
    return round(middle * 3.6), at_speed


def admitted(history: Array) -> Array:
    """Users that are still heard: no scheduler serves one that has gone behind a house.

    bool `[num_users]`, of measured histories, complex `[num_users, num_snapshots, num_antennas,
    num_subcarriers]`.
    """
    power = np.mean(np.abs(history) ** 2, axis=(2, 3))
    return power[:, -1] >= 10 ** (_MIN_LAST_DB / 10) * power.mean(axis=1)


def spatial_similarity(history: Array) -> Array:
    """Similarity of the users' spatial covariance matrices.

    `tr(R_i R_j) / (|R_i| |R_j|)` with Frobenius norms: 1 for users that share all directions, 0 for
    users that share none; float `[num_users, num_users]`, of histories as in `admitted`.
    """
    # u user, t snapshot, a and b antennas, f subcarrier
    h = history.transpose(0, 2, 1, 3).reshape(len(history), history.shape[2], -1)
    covariance = h @ h.conj().transpose(0, 2, 1)
    flat = covariance.reshape(len(history), -1)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = flat / np.where(norm > 0, norm, 1)
    return np.abs(flat @ flat.conj().T)


def group_users(
    candidates: Array,
    trajectory_id: Array,
    bs_index: Array,
    similarity: Array,
    num_users: int,
    max_similarity: float,
    rng: Random,
) -> Array:
    """Groups of users for one base station each; every trajectory serves at most once.

    Greedy, in random order: a group takes the next user that is not too similar to any of its
    members. Users that no group could take are left over.

    Args:
        candidates: int `[num_candidates]`, indices of sequences, whose trajectories and stations
            are int `[num_sequences]`.
        similarity: float `[num_sequences, num_sequences]`, see `spatial_similarity`.
        num_users: int, users of a group.
        max_similarity: float, largest similarity within a group.

    Returns:
        int `[num_groups, num_users]`, in random order.
    """
    candidates = rng.permutation(candidates)
    # Of the windows of a trajectory the first in random order.
    _, first = np.unique(trajectory_id[candidates], return_index=True)
    candidates = candidates[np.sort(first)]
    groups = []
    for station in np.unique(bs_index[candidates]):
        waiting = [user for user in candidates if bs_index[user] == station]
        while len(waiting) >= num_users:
            group = [waiting.pop(0)]
            for user in list(waiting):
                if len(group) == num_users:
                    break
                if np.all(similarity[user, group] <= max_similarity):
                    group.append(user)
                    waiting.remove(user)
            if len(group) == num_users:
                groups.append(group)
    groups = np.array(groups, int).reshape(-1, num_users)
    return groups[rng.permutation(len(groups))]
