"""What the downlink looks like."""

from dataclasses import dataclass

import numpy as np

from lwmt_sionna.link.phy.mcs import get_mcs

__all__ = ["DownlinkConfig"]

# Symbols of an NR slot with the normal cyclic prefix.
_SLOT_SYMBOLS = 14
# Numerologies 0 to 3 of NR [Hz].
_SPACINGS = (15e3, 30e3, 60e3, 120e3)


@dataclass(frozen=True)
class DownlinkConfig:
    """What the downlink looks like, whatever the CSI and the coding scheme.

    Args:
        num_users: int, users served at once.
        num_antennas: int, antennas of the base station.
        num_user_antennas: int, antennas of a user.
        streams_per_user: int, streams (layers) of a user, all of one code word. One user with
            several streams is single-user MIMO, several users are multi-user MIMO.
        combining: "antenna" or "eigen", what a stream is precoded for. "antenna": a receive
            antenna each, as Sionna's regularised zero-forcing has it; as many streams as antennas.
            "eigen": the strongest eigenmodes of the user's estimated channel.
        num_subcarriers: int, subcarriers that are simulated: those of the CSI grid.
        num_ofdm_symbols: int, OFDM symbols of a slot.
        subcarrier_spacing: float, spacing of the NR carrier [Hz]: 15e3, 30e3, 60e3 or 120e3. It
            sets the duration of a symbol, not the spacing of the simulated subcarriers: these are
            a comb of the carrier.
        pilot_groups: tuple of tuples of int, OFDM symbols with pilots. Each group is one
            measurement of all streams; two groups let the receiver follow the channel in time.
        pilot_comb: int, spacing in subcarriers of the pilots of one stream.
        receiver: "ls", "lmmse" or "perfect". With "ls" a user estimates its effective channel from
            precoded pilots by least squares and interpolates linearly, with "lmmse" it
            interpolates by a Wiener filter (see `WienerInterpolator`), with "perfect" it knows it.
        lmmse_delay_spread: float, width of the window of delays that the Wiener filter expects,
            as a share of the reciprocal of the spacing of the simulated subcarriers.
        lmmse_doppler_spread: float, width of its window of Doppler shifts [Hz].
        num_iterations: int, iterations of the LDPC decoder.
        cn_update: str, check-node update of Sionna's LDPC decoder: "boxplus-phi" (exact),
            "boxplus", "minsum" or "offset-minsum" (half the time, 0.2 dB worse).
        csi_error_variance: float, CSI error that the precoder is regularised for, per coefficient
            of a channel of unit power. 0 trusts the CSI, whatever its policy.
    """

    num_users: int = 4
    num_antennas: int = 32
    num_user_antennas: int = 1
    streams_per_user: int = 1
    combining: str = "antenna"
    num_subcarriers: int = 32
    num_ofdm_symbols: int = 14
    subcarrier_spacing: float = 30e3
    pilot_groups: tuple = ((2, 3), (10, 11))
    pilot_comb: int = 2
    receiver: str = "ls"
    lmmse_delay_spread: float = 0.2
    lmmse_doppler_spread: float = 800.0
    num_iterations: int = 20
    cn_update: str = "boxplus-phi"
    csi_error_variance: float = 0.0

    def __post_init__(self):
        groups = tuple(tuple(int(symbol) for symbol in group) for group in self.pilot_groups)
        object.__setattr__(self, "pilot_groups", groups)
        self._check_sizes()
        self._check_choices()
        symbols = [symbol for group in groups for symbol in group]
        if len(set(symbols)) != len(symbols) or not all(
            0 <= symbol < self.num_ofdm_symbols for symbol in symbols
        ):
            raise ValueError(
                "Pilot symbols must be different and lie within the slot of "
                f"{self.num_ofdm_symbols} symbols. Received: pilot_groups={groups}"
            )
        if not groups or any(self.pilot_comb * len(group) < self.num_streams for group in groups):
            raise ValueError(
                "Each group of pilot symbols needs room for all streams: `pilot_comb` times its "
                f"length must be at least {self.num_streams}, users times streams_per_user. "
                f"Received: pilot_comb={self.pilot_comb}, pilot_groups={groups}"
            )
        if not 1 <= self.pilot_comb <= self.num_subcarriers:
            raise ValueError(
                "`pilot_comb` must lie between 1 and num_subcarriers. "
                f"Received: pilot_comb={self.pilot_comb}"
            )
        if self.receiver == "lmmse" and self.pilot_comb * self.lmmse_delay_spread >= 1:
            raise ValueError(
                "Pilots on every `pilot_comb`-th subcarrier tell delays apart within a window of "
                f"1 / pilot_comb only. Received: lmmse_delay_spread={self.lmmse_delay_spread}, "
                f"pilot_comb={self.pilot_comb}"
            )

    def _check_sizes(self):
        sizes = ("num_users", "num_antennas", "num_user_antennas", "streams_per_user")
        for name in (*sizes, "num_subcarriers", "num_ofdm_symbols", "num_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be positive. Received: {name}={getattr(self, name)}"
                )
        if self.num_streams > self.num_antennas:
            raise ValueError(
                "A base station radiates at most one stream per antenna. Received: "
                f"num_users={self.num_users}, streams_per_user={self.streams_per_user}, "
                f"num_antennas={self.num_antennas}"
            )
        if self.streams_per_user > self.num_user_antennas:
            raise ValueError(
                "A user receives at most one stream per antenna. Received: "
                f"streams_per_user={self.streams_per_user}, "
                f"num_user_antennas={self.num_user_antennas}"
            )
        for name in ("csi_error_variance", "lmmse_delay_spread", "lmmse_doppler_spread"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"`{name}` must not be negative. Received: {name}={getattr(self, name)}"
                )

    def _check_choices(self):
        choices = {
            "combining": ("antenna", "eigen"),
            "receiver": ("ls", "lmmse", "perfect"),
            "cn_update": ("boxplus-phi", "boxplus", "minsum", "offset-minsum"),
            "subcarrier_spacing": _SPACINGS,
        }
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                listed = ", ".join(f"{item!r}" for item in known)
                raise ValueError(f"`{name}` is one of {listed}. Received: {name}={value!r}")
        if self.combining == "antenna" and self.streams_per_user != self.num_user_antennas:
            raise ValueError(
                'With combining="antenna" every receive antenna has a stream of its own; choose '
                '"eigen" for fewer streams. Received: '
                f"num_user_antennas={self.num_user_antennas}, "
                f"streams_per_user={self.streams_per_user}"
            )

    @property
    def num_links(self):
        """int, receive antennas of all users; those of a user are neighbours."""
        return self.num_users * self.num_user_antennas

    @property
    def num_streams(self):
        """int, streams of all users; those of a user are neighbours."""
        return self.num_users * self.streams_per_user

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
        return len(self.data_symbols) * self.num_subcarriers

    @property
    def data_symbols(self):
        """tuple of int, OFDM symbols that carry data."""
        pilots = {symbol for group in self.pilot_groups for symbol in group}
        return tuple(t for t in range(self.num_ofdm_symbols) if t not in pilots)

    def rate(self, mcs):
        """float, spectral efficiency of a user whose blocks all arrive [bit/s/Hz].

        Information bits over all resource elements of the slot, pilots included; the cyclic
        prefix and guard bands are left out.
        """
        num_resource_elements = self.num_ofdm_symbols * self.num_subcarriers
        num_data_symbols = self.num_data_symbols * self.streams_per_user
        return get_mcs(mcs).num_info_bits(num_data_symbols) / num_resource_elements
