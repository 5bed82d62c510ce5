"""Stored paths as a channel model of Sionna PHY."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lwmt_sionna.data import PathSequences, PlanarArray
from lwmt_sionna.data.synthesis import element_gains
from lwmt_sionna.typing import Array

if TYPE_CHECKING:
    from sionna.phy.channel import CIRDataset

__all__ = ["CirGenerator", "cir_dataset"]


class CirGenerator:
    """Yields the impulse responses of stored snapshots, as Sionna's `CIRDataset` asks for.

    One example is one snapshot of `num_users` sequences that the same base station serves. Gains
    hold the carrier phase and delays are absolute: consecutive snapshots belong together, and
    `cir_to_ofdm_channel` gives the channel that `lwmt_sionna.data.synthesize` gives.

    Args:
        paths: `lwmt_sionna.data.PathSequences`.
        array: `lwmt_sionna.data.PlanarArray` of the base station.
        num_time_steps: Time steps of each response; paths evolve by their Doppler shifts.
        sampling_frequency: Time steps per second in hertz.
        num_users: Users of each example: sequences of one base station, in the order in which they
            are stored. Those left over are not used.
        uplink: Whether the users transmit. Otherwise the base station does.

    Raises:
        ValueError: If no base station serves that many sequences, or the array's polarisations are
            not those the paths were traced with.

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
    ) -> None:
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


def cir_dataset(
    paths: PathSequences, array: PlanarArray, batch_size: int, **settings: Any
) -> "CIRDataset":
    """A channel model for `OFDMChannel` and `TimeChannel` that plays stored paths.

    Examples are shuffled and repeated for ever, as `CIRDataset` has it.

    Args:
        paths: `lwmt_sionna.data.PathSequences`.
        array: `lwmt_sionna.data.PlanarArray` of the base station.
        batch_size: Examples per call.
        **settings: See `CirGenerator`.

    Returns:
        `sionna.phy.channel.CIRDataset`.
    """
    from sionna.phy.channel import CIRDataset

    generator = CirGenerator(paths, array, **settings)
    return CIRDataset(generator, batch_size, *generator.shape)
