"""What hardware makes of measured channels: one configuration for evaluation and link."""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from lwmt_sionna.masking import impairments
from lwmt_sionna.masking.draws import Draws
from lwmt_sionna.runs.configuration import ORDERED, Config, Interval, NonNegative, Share
from lwmt_sionna.typing import Array, ArrayLike, Random

__all__ = ["HardwareConfig", "HardwareRanges", "Impaired"]

_Degrees = Annotated[float, msgspec.Meta(ge=0, le=360)]


class Impaired(NamedTuple):
    """Histories as the base station has them.

    Attributes:
        h: complex64 `[batch, num_snapshots, num_ant, num_subcarriers]`.
        arrived: Which reports the base station knows to have arrived, bool `[batch,
            num_snapshots]`: the others repeat the report before. All where losses go unseen.
    """

    h: Array
    arrived: Array


@dataclasses.dataclass(frozen=True)
class HardwareConfig(Config):
    """Impairments of measured channels; none as it is.

    In the order in which a signal meets them: the user's oscillator and clock turn and delay it,
    the base station's antenna chains weigh it, noise comes on top, the estimate is quantised, and
    a report may be lost. Phases, delays and losses are each user's own and common to its antennas;
    the chains are those of the base station, the same for all users. What is drawn follows from
    the seed alone: a longer history or a larger batch begins with the same.

    Attributes:
        phase_jitter_deg: Standard deviation of a phase in degrees, drawn anew for every snapshot.
        phase_walk_deg: Standard deviation of the step in degrees by which the phase walks from
            snapshot to snapshot.
        frequency_offset: Magnitude of a carrier frequency offset in hertz; its sign is random.
        timing_jitter: Standard deviation of a delay in seconds, drawn anew for every snapshot.
        timing_offset: Magnitude of a constant delay in seconds; its sign is random.
        calibration_error_db: Mean power of the relative error of an antenna's complex gain in
            decibels; no error if `None`.
        calibration_memory: Correlation of that error from one snapshot to the next, from 0 (drawn
            anew) to 1 (constant).
        quantization_bits: Bits per real and imaginary part, full scale being the largest part of a
            snapshot; not quantised if `None`.
        dropped: Snapshots of the history whose reports are lost; negative ones count from the end.
        dropped_share: Probability of a loss besides. The first report always arrives.
        dropped_known: Whether the base station knows which reports are lost. It holds the one
            before in either case.
        target: What is to be predicted: `"true"`, the true channel, or `"chains"`, the channel
            through the same antenna chains, which is what a precoder that sends through them
            needs. Noise, phases, delays and quantisation are never part of it.

    Example:

    >>> hardware = HardwareConfig(timing_jitter=10e-9, calibration_error_db=-20.0)
    >>> history, arrived = hardware.impair(h[:, :16], frequencies, 5e-3, seed=0)
    >>> future = hardware.targets(h[:, 16:], first_snapshot=16, seed=0)
    """

    phase_jitter_deg: _Degrees = 0.0
    phase_walk_deg: _Degrees = 0.0
    frequency_offset: NonNegative = 0.0
    timing_jitter: NonNegative = 0.0
    timing_offset: NonNegative = 0.0
    calibration_error_db: Annotated[float, msgspec.Meta(le=20)] | None = None
    calibration_memory: Share = 1.0
    quantization_bits: Annotated[int, msgspec.Meta(ge=1, le=24)] | None = None
    dropped: tuple[int, ...] = ()
    dropped_share: Share = 0.0
    dropped_known: bool = True
    target: Literal["true", "chains"] = "true"

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 in self.dropped:
            raise ValueError(
                "`dropped` cannot name the first report, which there is none before to hold. "
                f"Received: dropped={self.dropped}"
            )

    def impair(
        self,
        h: ArrayLike,
        frequencies: ArrayLike,
        sampling_period: float,
        seed: int = 0,
        *,
        estimate: Callable[[Array], Array] | None = None,
        first_user: int = 0,
    ) -> Impaired:
        """What the base station has of a history.

        Args:
            h: True channels, complex `[batch, num_snapshots, num_ant, num_subcarriers]`. A user's
                further antennas are further subcarriers: they share its oscillator and clock.
            frequencies: Baseband frequencies in hertz, float `[num_subcarriers]`.
            sampling_period: Time between snapshots in seconds.
            seed: Seed of all draws.
            estimate: How the receiver measures what its chains hand over, with its noise: a
                callable from and to complex `[batch, num_snapshots, num_ant, num_subcarriers]`;
                the grid that it returns may be another. Without noise if `None`.
            first_user: Place of the first user among those of one base station, where they come
                in several calls: each call draws phases, delays and losses of its own.

        Returns:
            `Impaired`.

        Raises:
            ValueError: If `dropped` names snapshots that the history has not.
        """
        h = np.asarray(h, np.complex64)
        num_users, num_snapshots = h.shape[:2]
        jitter, frequency, timing, drops = _user_seeds(seed, first_user)
        ones = _pairs(np.ones((num_users, num_snapshots, 1, 1)))
        if self.phase_jitter_deg or self.phase_walk_deg:
            h = h * _complex(
                impairments.common_phase_error(
                    ones, jitter, _exactly(self.phase_jitter_deg), _exactly(self.phase_walk_deg)
                )
            )
        if self.frequency_offset:
            # In double precision: hertz times seconds may be many whole cycles.
            cycles = _exactly(self.frequency_offset * sampling_period % 1.0)
            h = h * _complex(impairments.frequency_offset(ones, frequency, cycles))
        if self.timing_jitter or self.timing_offset:
            ramp = np.repeat(ones, h.shape[3], axis=3)
            delays = _exactly(self.timing_offset), _exactly(self.timing_jitter)
            h = h * _complex(impairments.timing_offset(ramp, timing, *delays, frequencies))
        if self.calibration_error_db is not None:
            h = h * self._chains(range(num_snapshots), h.shape[2], seed)[:, :, None]
        if estimate is not None:
            h = estimate(h)
        if self.quantization_bits is not None:
            h = _complex(impairments.quantization(_pairs(h), 0, _exactly(self.quantization_bits)))
        arrived = np.ones((num_users, num_snapshots), bool)
        if self.dropped or self.dropped_share:
            held, told = impairments.dropped_reports(
                _pairs(h), drops, _exactly(self.dropped_share), self.dropped, return_arrived=True
            )
            h = _complex(held)
            arrived = np.asarray(told) if self.dropped_known else arrived
        return Impaired(np.asarray(h, np.complex64), arrived)

    def targets(self, h: ArrayLike, first_snapshot: int, seed: int = 0) -> Array:
        """What is to be predicted: the true channels, or those through the antenna chains.

        Args:
            h: True channels, complex `[batch, num_snapshots, num_ant, num_subcarriers]`.
            first_snapshot: Place of the first of them in the sequence, 0 being that of the first
                measured snapshot.
            seed: The seed of `impair`.

        Returns:
            complex64, shape as `h`.
        """
        h = np.asarray(h, np.complex64)
        if self.target == "true" or self.calibration_error_db is None:
            return h
        snapshots = range(first_snapshot, first_snapshot + h.shape[1])
        return h * self._chains(snapshots, h.shape[2], seed)[:, :, None]

    def _chains(self, snapshots, num_ant, seed):
        """Complex gains of the base station's antennas, complex64 `[num_snapshots, num_ant]`."""
        # exp(x + jy), both normal of this variance, is 1 in the mean, its relative error `power`.
        power = 10 ** (self.calibration_error_db / 10)
        deviation = math.sqrt(math.log1p(power) / 2)
        gains = impairments.antenna_calibration_error(
            _pairs(np.ones((1, snapshots.stop, num_ant, 1))),
            Draws(seed).child(),
            gain_db=_exactly(20 / math.log(10) * deviation),
            phase_deg=_exactly(math.degrees(deviation)),
            memory=self.calibration_memory,
        )
        return _complex(gains)[0, snapshots.start :, :, 0]


@dataclasses.dataclass(frozen=True)
class HardwareRanges(Config):
    """Impairments that are drawn anew for each base station, alone and combined.

    Attributes:
        clean_share: Share of the draws without any.
        share: Share of the others that each impairment has, whatever the rest.
        phase_jitter_deg: Least and most; see `HardwareConfig` for it and the following.
        phase_walk_deg: The same.
        frequency_offset: The same. Large ones cannot be told from motion, nor be foreseen away.
        timing_jitter: The same.
        timing_offset: The same. Large ones cannot be told from a distance.
        calibration_error_db: The same. The target then is the channel through the same chains.
        quantization_bits: The same.
        dropped_share: The same. Losses are not known.

    Example:

    >>> hardware = HardwareRanges(share=0.5).draw(np.random.default_rng(0))
    """

    clean_share: Share = 0.4
    share: Share = 0.25
    phase_jitter_deg: Interval = (1.0, 10.0)
    phase_walk_deg: Interval = (0.5, 5.0)
    frequency_offset: Interval = (0.1, 1.0)
    timing_jitter: Interval = (1e-9, 2e-8)
    timing_offset: Interval = (1e-10, 2e-9)
    calibration_error_db: Interval = (-30.0, -10.0)
    quantization_bits: Annotated[tuple[int, int], ORDERED] = (4, 10)
    dropped_share: Interval = (0.02, 0.2)

    def draw(self, rng: Random) -> HardwareConfig:
        """Draws one: numbers uniformly, magnitudes log-uniformly.

        Args:
            rng: `numpy.random.Generator`.

        Returns:
            `HardwareConfig`.

        Raises:
            ValueError: If a range holds what `HardwareConfig` refuses.
        """
        clean = rng.uniform() < self.clean_share
        values: dict[str, Any] = {"dropped_known": False, "target": "chains"}
        for name in _DRAWN:
            low, high = getattr(self, name)
            # As many draws for each, so that one more impairment does not change the others.
            happens, place = rng.uniform(size=2)
            if clean or happens >= self.share:
                continue
            if name == "quantization_bits":
                values[name] = low + int(place * (high - low + 1))
            elif low > 0:
                values[name] = float(low * (high / low) ** place)
            else:
                values[name] = float(low + place * (high - low))
        return HardwareConfig(**values)


_DRAWN = tuple(
    field.name
    for field in dataclasses.fields(HardwareRanges)
    if field.name not in ("clean_share", "share")
)


def _user_seeds(seed, first_user):
    """Seeds of phase, frequency, timing and losses; the first child is that of the chains."""
    draws = Draws(seed)
    draws.child()
    draws = Draws(draws.child() + first_user)
    return [draws.child() for _ in range(4)]


def _exactly(value):
    """A range that holds one value."""
    return value, value


def _pairs(h):
    h = np.ascontiguousarray(h, np.complex64)
    return h.view(np.float32).reshape(*h.shape, 2)


def _complex(h):
    return np.ascontiguousarray(h, np.float32).view(np.complex64)[..., 0]
