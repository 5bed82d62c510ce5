"""What the downlink looks like."""

from dataclasses import dataclass

import numpy as np

from lwmt_sionna.link.mcs import get_mcs

__all__ = ["DownlinkConfig"]

# Symbols of an NR slot with the normal cyclic prefix.
_SLOT_SYMBOLS = 14


@dataclass(frozen=True)
class DownlinkConfig:
    """What the downlink looks like, whatever the CSI and the coding scheme.

    Args:
        num_users: int, single-antenna users served at once, one stream each.
        num_antennas: int, antennas of the base station.
        num_subcarriers: int, subcarriers that are simulated: those of the CSI grid.
        num_ofdm_symbols: int, OFDM symbols of a slot.
        subcarrier_spacing: float, spacing of the NR carrier [Hz]. It sets the duration of a
            symbol, not the spacing of the simulated subcarriers: these are a comb of the carrier.
        pilot_groups: tuple of tuples of int, OFDM symbols with pilots. Each group is one
            measurement of all streams; two groups let the receiver follow the channel in time.
        pilot_comb: int, spacing in subcarriers of the pilots of one stream.
        receiver: "ls" or "perfect". With "ls" a user estimates its effective channel from
            precoded pilots by least squares and interpolates linearly, with "perfect" it knows it.
        num_iterations: int, iterations of the LDPC decoder.
        cn_update: str, check-node update of Sionna's LDPC decoder: "boxplus-phi" (exact),
            "boxplus", "minsum" or "offset-minsum" (half the time, 0.2 dB worse).
        csi_error_variance: float, CSI error that the precoder is regularised for, per coefficient
            of a channel of unit power. 0 trusts the CSI, whatever its policy.
    """

    num_users: int = 4
    num_antennas: int = 32
    num_subcarriers: int = 32
    num_ofdm_symbols: int = 14
    subcarrier_spacing: float = 30e3
    pilot_groups: tuple = ((2, 3), (10, 11))
    pilot_comb: int = 2
    receiver: str = "ls"
    num_iterations: int = 20
    cn_update: str = "boxplus-phi"
    csi_error_variance: float = 0.0

    def __post_init__(self):
        groups = tuple(tuple(int(symbol) for symbol in group) for group in self.pilot_groups)
        object.__setattr__(self, "pilot_groups", groups)
        sizes = ("num_users", "num_antennas", "num_subcarriers", "num_ofdm_symbols")
        for name in (*sizes, "num_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be positive. Received: {name}={getattr(self, name)}"
                )
        if self.num_users > self.num_antennas:
            raise ValueError(
                "A base station serves at most one user per antenna. Received: "
                f"num_users={self.num_users}, num_antennas={self.num_antennas}"
            )
        if self.receiver not in ("ls", "perfect"):
            raise ValueError(
                f'`receiver` is "ls" or "perfect". Received: receiver={self.receiver!r}'
            )
        if not self.csi_error_variance >= 0:
            raise ValueError(
                "`csi_error_variance` must not be negative. "
                f"Received: csi_error_variance={self.csi_error_variance}"
            )
        if self.cn_update not in ("boxplus-phi", "boxplus", "minsum", "offset-minsum"):
            raise ValueError(
                '`cn_update` is "boxplus-phi", "boxplus", "minsum" or "offset-minsum". '
                f"Received: cn_update={self.cn_update!r}"
            )
        symbols = [symbol for group in groups for symbol in group]
        if len(set(symbols)) != len(symbols) or not all(
            0 <= symbol < self.num_ofdm_symbols for symbol in symbols
        ):
            raise ValueError(
                "Pilot symbols must be different and lie within the slot of "
                f"{self.num_ofdm_symbols} symbols. Received: pilot_groups={groups}"
            )
        if not groups or any(self.pilot_comb * len(group) < self.num_users for group in groups):
            raise ValueError(
                "Each group of pilot symbols needs room for all streams: `pilot_comb` times its "
                f"length must be at least num_users={self.num_users}. "
                f"Received: pilot_comb={self.pilot_comb}, pilot_groups={groups}"
            )
        if not 1 <= self.pilot_comb <= self.num_subcarriers:
            raise ValueError(
                "`pilot_comb` must lie between 1 and num_subcarriers. "
                f"Received: pilot_comb={self.pilot_comb}"
            )

    @property
    def symbol_duration(self):
        """float, duration of an OFDM symbol with its (mean) cyclic prefix [s]."""
        # A slot of 14 symbols lasts 1 ms at 15 kHz, and less in proportion.
        return 1e-3 * (15e3 / self.subcarrier_spacing) / _SLOT_SYMBOLS

    @property
    def symbol_times(self):
        """float64 `[num_ofdm_symbols]`, times of the symbols relative to the slot's middle [s].

        The snapshot that a predictor aims at is the middle of the slot that carries the data.
        """
        index = np.arange(self.num_ofdm_symbols)
        return (index - (self.num_ofdm_symbols - 1) / 2) * self.symbol_duration

    @property
    def num_data_symbols(self):
        """int, resource elements of a slot that carry data, per stream."""
        num_pilots = sum(len(group) for group in self.pilot_groups)
        return (self.num_ofdm_symbols - num_pilots) * self.num_subcarriers

    def rate(self, mcs):
        """float, spectral efficiency of a user whose blocks all arrive [bit/s/Hz].

        Information bits over all resource elements of the slot, pilots included; the cyclic
        prefix and guard bands are left out.
        """
        num_resource_elements = self.num_ofdm_symbols * self.num_subcarriers
        return get_mcs(mcs).num_info_bits(self.num_data_symbols) / num_resource_elements
