"""Stored paths as a channel model of Sionna PHY."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lwmt_sionna.data import PathSequences, PlanarArray, check_values
from lwmt_sionna.data.synthesis import element_gains
from lwmt_sionna.typing import Array

if TYPE_CHECKING:
    from sionna.phy.channel import CIRDataset

logger = logging.getLogger(__name__)

# Of Sionna's `TimeChannel`, unless it is told otherwise [s].
_MAX_DELAY = 3e-6


class CirGenerator:
    """Yields the impulse responses of stored snapshots, as Sionna's `CIRDataset` asks for.

    One example is one snapshot of `num_users` sequences that the same base station serves. Gains
    hold the carrier phase and delays are absolute: consecutive snapshots belong together, and
    `cir_to_ofdm_channel` gives the channel that `lwmt_sionna.data.synthesize` gives.

    Args:
        array: `lwmt_sionna.data.PlanarArray` of the base station.
        num_time_steps: Time steps of each response; paths evolve by their Doppler shifts.
        sampling_frequency: Time steps per second in hertz.
        num_users: Users of each example: sequences of one base station, in the order in which they
            are stored. Those left over are not used.
        uplink: Whether the users transmit. Otherwise the base station does.
        max_delay: Largest delay in seconds that is waited for. Channels in time have so many taps:
            what arrives later is lost to them, and its share of the energy is reported. The default
            is that of Sionna's `TimeChannel(maximum_delay_spread=)`. `None` for channels in
            frequency, which lose nothing.

    Raises:
        ValueError: If a number in the paths cannot be, no base station serves that many sequences,
            or the array's polarisations are not those the paths were traced with.

    Example:

    >>> paths = read_paths("experiments/data/san_francisco_30kmh_5ms.h5")
    >>> generator = CirGenerator(paths, PlanarArray(), num_time_steps=14, sampling_frequency=28e3)
    >>> a, tau = next(generator())
    >>> a.shape, tau.shape
    ((1, 1, 1, 32, 49, 14), (1, 1, 49))
    """

    def __init__(
        self,
        paths: PathSequences,
        array: PlanarArray,
        *,
        num_time_steps: int = 1,
        sampling_frequency: float = 1.0,
        num_users: int = 1,
        uplink: bool = False,
        max_delay: float | None = _MAX_DELAY,
    ) -> None:
        problems = check_values(paths)
        if problems:
            raise ValueError(f"These paths cannot be: {problems[0]}")
        self._paths = paths
        self._array = array
        self._instants = np.arange(num_time_steps) / float(sampling_frequency)
        self._uplink = uplink
        groups = []
        for station in np.unique(paths.bs_index):
            served = np.nonzero(paths.bs_index == station)[0]
            count = len(served) // num_users * num_users
            groups.append(served[:count].reshape(-1, num_users))
        self._groups = np.concatenate(groups) if groups else np.zeros((0, num_users), int)
        if not len(self._groups):
            raise ValueError(
                "No base station serves that many sequences. Received: "
                f"num_users={num_users}, num_sequences={paths.num_sequences}"
            )
        # Fails here rather than in the middle of an epoch.
        self._example(0, 0)
        if max_delay is not None:
            _report_late(paths.select(self._groups.ravel()), max_delay)

    def __len__(self) -> int:
        """Number of examples in one pass."""
        return len(self._groups) * self._paths.num_snapshots

    @property
    def shape(self) -> tuple[int, ...]:
        """`(num_rx, num_rx_ant, num_tx, num_tx_ant, num_paths, num_time_steps)`."""
        users = (self._groups.shape[1], self._paths.a.shape[-2])
        station = (1, self._array.num_ant)
        sides = (*station, *users) if self._uplink else (*users, *station)
        return (*sides, self._paths.num_paths, len(self._instants))

    def __call__(self) -> Iterator[tuple[Array, Array]]:
        """Yields `(a, tau)`, one example at a time.

        `a` is complex64 of `shape`, `tau` float32 `[num_rx, num_tx, num_paths]` in seconds, zero
        where there is no path.
        """
        for group in range(len(self._groups)):
            for snapshot in range(self._paths.num_snapshots):
                yield self._example(group, snapshot)

    def _example(self, group, snapshot):
        part = self._paths.select(self._groups[group])
        # [user, 1 snapshot, user pol, path, base station antenna]
        gain = element_gains(part, self._array, [snapshot])[:, 0]
        turn = part.doppler[:, snapshot, :, None].astype(np.float64) * self._instants
        evolution = np.exp(2j * np.pi * (turn % 1.0))
        # u user, r user polarisation, p path, m antenna, i instant
        a = np.einsum("urpm,upi->urmpi", gain, evolution)[:, :, None].astype(np.complex64)
        tau = np.where(part.valid[:, snapshot], part.tau[:, snapshot], np.float32(0.0))[:, None]
        if self._uplink:
            a, tau = np.moveaxis(a, (2, 3), (0, 1)), np.moveaxis(tau, 1, 0)
        return a, tau


def _report_late(paths, max_delay):
    """Warns of energy that channels in time lose."""
    energy = np.sum(np.abs(paths.a) ** 2, axis=(-2, -1)) * paths.valid
    late = np.where(paths.tau > max_delay, energy, 0.0)
    if late.any():
        share = late.sum() / energy.sum()
        logger.warning(
            "%d of %d sequences have paths that arrive later than %g us, with %.3g %% of all "
            "energy (%.1f dB): channels in time lose them. Give `TimeChannel` a larger "
            "`maximum_delay_spread`, and the same as `max_delay` here.",
            np.count_nonzero(late.any(axis=(1, 2))),
            paths.num_sequences,
            1e6 * max_delay,
            100 * share,
            10 * np.log10(share),
        )


def cir_dataset(
    paths: PathSequences, array: PlanarArray, batch_size: int, **settings: Any
) -> "CIRDataset":
    """A channel model for `OFDMChannel` and `TimeChannel` that plays stored paths.

    Examples are shuffled and repeated for ever, as `CIRDataset` has it.

    Args:
        array: `lwmt_sionna.data.PlanarArray` of the base station.
        batch_size: Examples per call.
        **settings: See `CirGenerator`.
    """
    from sionna.phy.channel import CIRDataset

    generator = CirGenerator(paths, array, **settings)
    return CIRDataset(generator, batch_size, *generator.shape)
