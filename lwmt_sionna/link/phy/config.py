"""What the downlink looks like, and its modulation and coding schemes.

The table of schemes is that of 3GPP TS 38.214, Table 5.1.3.1-1 (up to 64-QAM). An index of it names
a scheme everywhere in the link: in configurations, on command lines and in records.
"""

import dataclasses
from typing import Literal

import numpy as np

from lwmt_sionna.data.arrays import PlanarArray, Polarization
from lwmt_sionna.runs.configuration import Config, NonNegativeInt, PositiveInt
from lwmt_sionna.typing import Array

# Symbols of an NR slot with the normal cyclic prefix.
_SLOT_SYMBOLS = 14
# Numerologies 0 to 3 of NR [Hz].
_SPACINGS = (15e3, 30e3, 60e3, 120e3)
# A stream has a pilot on every second subcarrier, like NR's demodulation reference signals.
PILOT_COMB = 2
_MODULATIONS = {2: "QPSK", 4: "16-QAM", 6: "64-QAM"}


@dataclasses.dataclass(frozen=True)
class Mcs:
    """One modulation and coding scheme.

    Attributes:
        index: int, index in the table of 3GPP TS 38.214.
        num_bits_per_symbol: int, bits per constellation point: 2, 4 or 6.
        code_rate_1024: int, target code rate times 1024.
    """

    index: int
    num_bits_per_symbol: int
    code_rate_1024: int

    @property
    def code_rate(self) -> float:
        """float, target code rate: information bits per coded bit."""
        return self.code_rate_1024 / 1024

    @property
    def name(self) -> str:
        """str, name for tables and figures."""
        modulation = _MODULATIONS[self.num_bits_per_symbol]
        return f"MCS {self.index} ({modulation}, rate {self.code_rate:.2f})"

    def num_info_bits(self, num_data_symbols: int) -> int:
        """Information bits of a code word that fills the given number of resource elements."""
        return int(num_data_symbols * self.num_bits_per_symbol * self.code_rate)


_RATES = {
    2: (120, 157, 193, 251, 308, 379, 449, 526, 602, 679),
    4: (340, 378, 434, 490, 553, 616, 658),
    6: (438, 466, 517, 567, 616, 666, 719, 772, 822, 873, 910, 948),
}

#: The 29 schemes, by index.
MCS_TABLE = tuple(
    Mcs(index, num_bits, rate)
    for index, (num_bits, rate) in enumerate(
        (num_bits, rate) for num_bits, rates in _RATES.items() for rate in rates
    )
)


def get_mcs(mcs: int | Mcs) -> Mcs:
    """The scheme of an index of the table; an `Mcs` is handed back as it is.

    Raises:
        ValueError: the table has no such index.
    """
    if isinstance(mcs, Mcs):
        return mcs
    if isinstance(mcs, bool) or int(mcs) != mcs or not 0 <= mcs < len(MCS_TABLE):
        raise ValueError(
            f"An MCS index is an integer from 0 to {len(MCS_TABLE) - 1} "
            f"(3GPP TS 38.214, Table 5.1.3.1-1). Received: mcs={mcs!r}"
        )
    return MCS_TABLE[int(mcs)]


@dataclasses.dataclass(frozen=True)
class DownlinkConfig(Config):
    """What the downlink looks like, whatever the CSI and the coding scheme.

    Attributes:
        num_users: int, users served at once.
        num_antennas: int, antennas of the base station, both polarisations counted, at half a
            wavelength from each other.
        num_rows: int, rows of its array; one makes a horizontal line.
        polarization: str, "V", "H", "VH" or "cross", that of its array: see
            `lwmt_sionna.data.PlanarArray`.
        num_user_antennas: int, antennas of a user.
        streams_per_user: int, streams (layers) of a user, all of one code word. One user with
            several streams is single-user MIMO, several users are multi-user MIMO.
        combining: "antenna" or "eigen", what a stream is precoded for. "antenna": a receive
            antenna each, as Sionna's regularised zero-forcing has it; as many streams as antennas.
            "eigen": the strongest eigenmodes of the user's estimated channel.
        num_subcarriers: int, subcarriers that are simulated: those of the CSI grid.
        subcarrier_spacing: float, spacing of the NR carrier [Hz]: 15e3, 30e3, 60e3 or 120e3. It
            sets the duration of a symbol, not the spacing of the simulated subcarriers: these are
            a comb of the carrier.
        pilot_groups: tuple of tuples of int, OFDM symbols with pilots. Each group is one
            measurement of all streams; two groups let the receiver follow the channel in time.
        receiver: "ls", "lmmse" or "perfect". With "ls" a user estimates its effective channel from
            precoded pilots by least squares and interpolates linearly, with "lmmse" it
            interpolates by a Wiener filter (see `WienerInterpolator`), with "perfect" it knows it.
        num_iterations: int, iterations of the LDPC decoder.
        cn_update: str, check-node update of Sionna's LDPC decoder: "boxplus-phi" (exact),
            "boxplus", "minsum" or "offset-minsum" (half the time, 0.2 dB worse).
    """

    num_users: PositiveInt = 4
    num_antennas: PositiveInt = 32
    num_rows: PositiveInt = 1
    polarization: Polarization = "V"
    num_user_antennas: PositiveInt = 1
    streams_per_user: PositiveInt = 1
    combining: Literal["antenna", "eigen"] = "antenna"
    num_subcarriers: PositiveInt = 32
    subcarrier_spacing: float = 30e3
    pilot_groups: tuple[tuple[NonNegativeInt, ...], ...] = ((2, 3), (10, 11))
    receiver: Literal["ls", "lmmse", "perfect"] = "ls"
    num_iterations: PositiveInt = 20
    cn_update: Literal["boxplus-phi", "boxplus", "minsum", "offset-minsum"] = "boxplus-phi"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subcarrier_spacing not in _SPACINGS:
            raise ValueError(
                f"`subcarrier_spacing` is one of {_SPACINGS}. "
                f"Received: subcarrier_spacing={self.subcarrier_spacing}"
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
        if self.combining == "antenna" and self.streams_per_user != self.num_user_antennas:
            raise ValueError(
                'With combining="antenna" every receive antenna has a stream of its own; choose '
                '"eigen" for fewer streams. Received: '
                f"num_user_antennas={self.num_user_antennas}, "
                f"streams_per_user={self.streams_per_user}"
            )
        # Said here rather than when the files are read.
        _ = self.array
        groups = self.pilot_groups
        symbols = [symbol for group in groups for symbol in group]
        if len(set(symbols)) != len(symbols) or max(symbols, default=0) >= _SLOT_SYMBOLS:
            raise ValueError(
                "Pilot symbols must be different and lie within the slot of "
                f"{_SLOT_SYMBOLS} symbols. Received: pilot_groups={groups}"
            )
        if self.num_subcarriers < PILOT_COMB:
            raise ValueError(
                f"The pilots of a stream lie {PILOT_COMB} subcarriers apart. "
                f"Received: num_subcarriers={self.num_subcarriers}"
            )
        if not groups or any(PILOT_COMB * len(group) < self.num_streams for group in groups):
            raise ValueError(
                f"Each group of pilot symbols needs room for all streams, {PILOT_COMB} to a "
                f"symbol: {self.num_streams} here, users times streams_per_user. "
                f"Received: pilot_groups={groups}"
            )

    @property
    def array(self) -> PlanarArray:
        """`PlanarArray` of the base station."""
        return PlanarArray.of(self.num_antennas, self.num_rows, self.polarization)

    @property
    def num_ofdm_symbols(self) -> int:
        """int, OFDM symbols of a slot."""
        return _SLOT_SYMBOLS

    @property
    def num_links(self) -> int:
        """int, receive antennas of all users; those of a user are neighbours."""
        return self.num_users * self.num_user_antennas

    @property
    def num_streams(self) -> int:
        """int, streams of all users; those of a user are neighbours."""
        return self.num_users * self.streams_per_user

    @property
    def symbol_duration(self) -> float:
        """float, duration of an OFDM symbol with its (mean) cyclic prefix [s]."""
        # A slot of 14 symbols lasts 1 ms at 15 kHz, and less in proportion.
        return 1e-3 * (15e3 / self.subcarrier_spacing) / _SLOT_SYMBOLS

    @property
    def symbol_times(self) -> Array:
        """float64 `[num_ofdm_symbols]`, times of the symbols relative to the slot's middle [s].

        The snapshot that a predictor aims at is the middle of the slot that carries the data.
        """
        return (np.arange(_SLOT_SYMBOLS) - (_SLOT_SYMBOLS - 1) / 2) * self.symbol_duration

    @property
    def data_symbols(self) -> tuple[int, ...]:
        """tuple of int, OFDM symbols that carry data."""
        pilots = {symbol for group in self.pilot_groups for symbol in group}
        return tuple(t for t in range(_SLOT_SYMBOLS) if t not in pilots)

    @property
    def num_data_symbols(self) -> int:
        """int, resource elements of a slot that carry data, per stream."""
        return len(self.data_symbols) * self.num_subcarriers

    @property
    def block_symbols(self) -> int:
        """int, resource elements that a block of a user fills: data on all its streams."""
        return self.num_data_symbols * self.streams_per_user

    def rate(self, mcs: int | Mcs) -> float:
        """float, spectral efficiency of a user whose blocks all arrive [bit/s/Hz].

        Information bits over all resource elements of the slot, pilots included; the cyclic
        prefix and guard bands are left out.
        """
        return get_mcs(mcs).num_info_bits(self.block_symbols) / (
            _SLOT_SYMBOLS * self.num_subcarriers
        )
