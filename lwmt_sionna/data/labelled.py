"""Sequences as data sets of xarray, whose axes have names and whose arrays have units."""

from collections.abc import Mapping
from typing import Any

from lwmt_sionna.runs.shipped import how_to_install
from lwmt_sionna.typing import Array

# Names of axes are Sionna's where it has one, without "num_".
AXES = {
    "S": "sequence", "T": "snapshot", "P": "path", "R": "rx_pol", "Q": "tx_pol", "B": "tx",
    "A": "tx_ant", "K": "subcarrier", "3": "axis",
}  # fmt: skip
UNITS = {
    "tau": "s", "theta_t": "rad", "phi_t": "rad", "theta_r": "rad", "phi_r": "rad",
    "doppler": "Hz", "position": "m", "velocity": "m/s", "speed": "m/s", "time": "s",
    "bs_position": "m", "bs_orientation": "rad",
}  # fmt: skip
_COORDINATES = ("time", "frequency", "trajectory_id", "sequence_id", "bs_index")


def label(arrays: Mapping[str, tuple[str, Array]], attributes: Mapping[str, Any]) -> Any:
    """Makes an `xarray.Dataset` of arrays by name, each after the letters of its axes.

    Raises:
        ImportError: If xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise ImportError(f"Named axes need xarray: {how_to_install('xarray')}") from error
    units = UNITS | {"frequency": "Hz"}
    labelled = {
        name: (
            [AXES[axis] for axis in axes],
            value,
            {"units": units[name]} if name in units else {},
        )
        for name, (axes, value) in arrays.items()
    }
    coordinates = {name: labelled.pop(name) for name in _COORDINATES if name in labelled}
    return xarray.Dataset(labelled, coordinates, dict(attributes))
