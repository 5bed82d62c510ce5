"""Sequences with named axes: each array keeps its numbers, and says its axes and its unit."""

import sys
import types

import numpy as np
import pytest

from lwmt_sionna.data import ChannelSequences, draw_clusters
from lwmt_sionna.data.labelled import UNITS

SPACING = 30e3


@pytest.fixture
def paths(rng):
    return draw_clusters(3, 4, 2.5e-3, rng)


@pytest.fixture
def channels(rng):
    h = rng.standard_normal((3, 5, 8, 6)) + 1j * rng.standard_normal((3, 5, 8, 6))
    return ChannelSequences(h, 2.5e-3, 3.5e9, SPACING, (2, 2, 2), "made up", speed=[3, np.nan, 30])


@pytest.fixture
def stand_in(monkeypatch):
    """What xarray is given, whether it is installed or not."""
    module = types.SimpleNamespace(Dataset=lambda *given: given)
    monkeypatch.setitem(sys.modules, "xarray", module)


def check_arrays(sequences, variables, coordinates, computed=()):
    """Axes have one size each in all arrays, and the arrays are those of the sequences."""
    sizes = {}
    for name, (axes, value, attributes) in (variables | coordinates).items():
        assert len(axes) == np.ndim(value) == len(set(axes)), name
        for axis, size in zip(axes, np.shape(value)):
            assert sizes.setdefault(axis, size) == size, name
        if name not in computed:
            np.testing.assert_array_equal(value, getattr(sequences, name))
            assert attributes == ({"units": UNITS[name]} if name in UNITS else {})
    return sizes


def test_paths_say_their_axes_and_units(paths, stand_in):
    variables, coordinates, attributes = paths.to_xarray()
    sizes = check_arrays(paths, variables, coordinates)
    assert set(paths.arrays) < set(variables | coordinates)
    assert sizes["sequence"] == 3 and sizes["snapshot"] == 4 and sizes["path"] == paths.num_paths
    assert set(coordinates) == {"time", "trajectory_id", "bs_index"}
    assert variables["a"][0] == ["sequence", "snapshot", "path", "rx_pol", "tx_pol"]
    assert attributes["carrier_frequency_hz"] == paths.carrier_frequency


def test_channels_say_their_axes_and_frequencies(channels, stand_in):
    variables, coordinates, attributes = channels.to_xarray()
    sizes = check_arrays(channels, variables, coordinates, computed=("time", "frequency"))
    assert sizes == {"sequence": 3, "snapshot": 5, "tx_ant": 8, "subcarrier": 6}
    axes, frequency, told = coordinates["frequency"]
    assert (axes, told) == (["subcarrier"], {"units": "Hz"})
    # Subcarriers lie around the carrier, which is one of them.
    np.testing.assert_allclose(np.diff(frequency), SPACING)
    assert 3.5e9 in frequency
    np.testing.assert_allclose(coordinates["time"][1], 2.5e-3 * np.arange(5))
    assert attributes["num_cols"] == 2 and attributes["origin"] == "made up"


def test_without_xarray_one_line_says_what_to_install(paths, channels, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    for sequences in (paths, channels):
        with pytest.raises(ImportError, match=r"need xarray: pip install .*\[xarray\]") as caught:
            sequences.to_xarray()
        assert "\n" not in str(caught.value)


def test_xarray_takes_and_selects_them(paths, channels):
    pytest.importorskip("xarray")
    for sequences in (paths, channels):
        whole = sequences.to_xarray()
        part = whole.isel(sequence=[2, 0])
        for name, value in sequences.select([2, 0]).to_xarray().data_vars.items():
            np.testing.assert_array_equal(part[name], value)
    power = (abs(channels.to_xarray().h) ** 2).mean(["tx_ant", "subcarrier"])
    assert power.dims == ("sequence", "snapshot") and power.time.attrs["units"] == "s"
