import pytest
from sionna.phy.nr.utils import decode_mcs_index

from lwmt_sionna.link import MCS_TABLE, get_mcs


@pytest.mark.parametrize("index", [0, 9, 10, 16, 17, 22, 28])
def test_table_is_that_of_sionna(index):
    bits, rate = decode_mcs_index(index, table_index=1, is_pusch=False)
    mcs = get_mcs(index)
    assert mcs.num_bits_per_symbol == int(bits)
    assert mcs.code_rate == pytest.approx(float(rate))


def test_indices_are_positions():
    assert [mcs.index for mcs in MCS_TABLE] == list(range(29))
    assert get_mcs(MCS_TABLE[7]) is MCS_TABLE[7]


@pytest.mark.parametrize("mcs", [-1, 29, 3.5, True])
def test_unknown_index(mcs):
    with pytest.raises(ValueError, match=r"0 to 28.*Received: mcs="):
        get_mcs(mcs)
