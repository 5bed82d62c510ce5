"""Modulation and coding schemes of 5G NR.

The table is that of 3GPP TS 38.214, Table 5.1.3.1-1 (up to 64-QAM). An index of this table names a
scheme everywhere in the link: in configurations, on command lines and in records.
"""

from dataclasses import dataclass

__all__ = ["MCS_TABLE", "Mcs", "get_mcs"]

_MODULATIONS = {2: "QPSK", 4: "16-QAM", 6: "64-QAM"}


@dataclass(frozen=True)
class Mcs:
    """One modulation and coding scheme.

    Args:
        index: int, index in the table of 3GPP TS 38.214.
        num_bits_per_symbol: int, bits per constellation point: 2, 4 or 6.
        code_rate_1024: int, target code rate times 1024.

    Example:
        >>> get_mcs(13).name
        'MCS 13 (16-QAM, rate 0.48)'
    """

    index: int
    num_bits_per_symbol: int
    code_rate_1024: int

    def __post_init__(self):
        if self.num_bits_per_symbol not in _MODULATIONS:
            raise ValueError(
                "A scheme has 2, 4 or 6 bits per symbol. "
                f"Received: num_bits_per_symbol={self.num_bits_per_symbol}"
            )
        if not 0 < self.code_rate_1024 < 1024:
            raise ValueError(
                "A code rate lies between 0 and 1 (times 1024). "
                f"Received: code_rate_1024={self.code_rate_1024}"
            )

    @property
    def code_rate(self):
        """float, target code rate: information bits per coded bit."""
        return self.code_rate_1024 / 1024

    @property
    def name(self):
        """str, name for tables and figures."""
        modulation = _MODULATIONS[self.num_bits_per_symbol]
        return f"MCS {self.index} ({modulation}, rate {self.code_rate:.2f})"

    def num_info_bits(self, num_data_symbols):
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


def get_mcs(mcs):
    """The scheme of an index of the table; an `Mcs` is handed back as it is.

    Args:
        mcs: int or `Mcs`.

    Returns:
        An `Mcs`.

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
