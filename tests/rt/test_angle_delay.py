"""The angle-delay transform on the array responses of Sionna itself."""

import numpy as np
import pytest

from lwmt_sionna.ops.angle_delay import angle_delay_transform

SPEED_OF_LIGHT = 299_792_458.0
SPACING, NUM_SUBCARRIERS = 540e3, 24


def power_of(h, array_shape):
    """Power over polarisation, column, row and delay bins of channels `[num_ant, subcarrier]`."""
    x = np.asarray(angle_delay_transform(np.stack([h.real, h.imag], axis=-1), array_shape))
    rows, cols, pols = array_shape
    return np.sum(x**2, axis=-1).reshape(pols, cols, rows, -1)


@pytest.mark.rt
@pytest.mark.parametrize(
    ("array_shape", "polarization"),
    [((1, 16, 1), "V"), ((4, 8, 1), "V"), ((1, 8, 2), "VH"), ((4, 8, 2), "cross")],
    ids=["linear", "planar", "linear-dual", "planar-dual"],
)
def test_line_of_sight_lies_in_the_bin_that_theory_names(array_shape, polarization):
    """Free space, traced by Sionna RT: one wave, one bin per polarisation.

    The user stands where the direction's components along y and z are whole numbers of bins, at a
    distance whose delay is a whole number of bins.
    """
    from lwmt_sionna.rt.tracing.engine import sionna_rt

    rows, cols, pols = array_shape
    col_bin, row_bin, delay_bin = cols // 4, rows // 4, 5
    u_y, u_z = 2 * col_bin / cols, -2 * row_bin / rows
    direction = np.array([np.sqrt(1 - u_y**2 - u_z**2), u_y, u_z])
    distance = delay_bin / (NUM_SUBCARRIERS * SPACING) * SPEED_OF_LIGHT
    scene = sionna_rt.load_scene()
    scene.frequency = 3.5e9
    kwargs = {"vertical_spacing": 0.5, "horizontal_spacing": 0.5, "pattern": "iso"}
    scene.tx_array = sionna_rt.PlanarArray(
        num_rows=rows, num_cols=cols, polarization=polarization, **kwargs
    )
    scene.rx_array = sionna_rt.PlanarArray(num_rows=1, num_cols=1, polarization="V", **kwargs)
    scene.add(sionna_rt.Transmitter("station", position=[0.0, 0.0, 0.0]))
    scene.add(sionna_rt.Receiver("user", position=[float(c) for c in distance * direction]))
    paths = sionna_rt.PathSolver()(scene, max_depth=0, synthetic_array=True)
    frequencies = sionna_rt.subcarrier_frequencies(NUM_SUBCARRIERS, SPACING)
    h = paths.cfr(frequencies=frequencies, normalize_delays=False, out_type="numpy")
    power = power_of(h[0, 0, 0, :, 0, :], array_shape)
    seen = [p for p in range(pols) if power[p].sum() > 1e-6 * power.sum()]
    assert seen
    for polarisation in seen:
        plane = power[polarisation]
        peak = np.unravel_index(np.argmax(plane), plane.shape)
        assert peak == (col_bin, row_bin, delay_bin)
        # A distance of 100 m is known to 1e-5 m in float32; nothing else leaks.
        assert plane[peak] > 0.999 * plane.sum()


def test_panel_of_sionna_phy_lies_in_the_same_bin():
    """The antenna positions of TR 38.901 panels, which number their elements alike."""
    tr38901 = pytest.importorskip("sionna.phy.channel.tr38901")
    rows, cols = 4, 8
    panel = tr38901.PanelArray(
        num_rows_per_panel=rows,
        num_cols_per_panel=cols,
        polarization="dual",
        polarization_type="cross",
        antenna_pattern="omni",
        carrier_frequency=3.5e9,
    )
    wavelength = SPEED_OF_LIGHT / 3.5e9
    direction = np.array([0.0, 2 * 3 / cols, -2 * 1 / rows])
    wave = np.exp(2j * np.pi / wavelength * np.asarray(panel.ant_pos, np.float64) @ direction)
    # One panel: all elements of one polarisation, then all of the other.
    order = np.concatenate([panel.ant_ind_pol1, panel.ant_ind_pol2])
    power = power_of(wave[order][:, None].astype(np.complex64), (rows, cols, 2))
    for plane in power:
        assert np.unravel_index(np.argmax(plane), plane.shape) == (3, 1, 0)
        assert plane.max() > 0.9999 * plane.sum()
