"""Antenna arrays of the base station."""

import dataclasses
from typing import Literal, Self

import numpy as np

from lwmt_sionna.runs.configuration import Config, Positive, PositiveInt
from lwmt_sionna.typing import Array, ArrayLike

Polarization = Literal["V", "H", "VH", "cross"]


@dataclasses.dataclass(frozen=True)
class PlanarArray(Config):
    """Uniform planar array in the y-z plane, with the element order of Sionna's `PlanarArray`.

    Elements are numbered down the columns first; both elements of a dual-polarised pair share a
    place, and the second polarisation follows after all elements of the first.

    Attributes:
        num_rows: Number of rows (along z).
        num_cols: Number of columns (along y). One row makes a horizontal uniform linear array.
        vertical_spacing: Distance between rows in wavelengths.
        horizontal_spacing: Distance between columns in wavelengths.
        polarization: "V", "H", "VH" or "cross"; must match the polarisation the paths were traced
            with.
    """

    num_rows: PositiveInt = 1
    num_cols: PositiveInt = 32
    vertical_spacing: Positive = 0.5
    horizontal_spacing: Positive = 0.5
    polarization: Polarization = "V"

    @classmethod
    def of(cls, num_ant: int, num_rows: int = 1, polarization: Polarization = "V") -> Self:
        """The array of so many antennas, both polarisations counted, in so many rows.

        Raises:
            ValueError: If the antennas do not fill the rows.
        """
        pairs = 1 if polarization in ("V", "H") else 2
        array = cls(num_rows, max(1, num_ant // (num_rows * pairs)), polarization=polarization)
        if array.num_ant != num_ant:
            raise ValueError(
                "The antennas must be a multiple of rows and polarisations. Received: "
                f"{num_ant} antennas, num_rows={num_rows}, polarization={polarization}"
            )
        return array

    @property
    def num_polarizations(self) -> int:
        """Number of polarisations, 1 or 2."""
        return 1 if self.polarization in ("V", "H") else 2

    @property
    def num_ant(self) -> int:
        """Number of antennas, both polarisations counted."""
        return self.num_rows * self.num_cols * self.num_polarizations

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of rows, columns and polarisations: what predictors call `array_shape`."""
        return self.num_rows, self.num_cols, self.num_polarizations

    @property
    def positions(self) -> Array:
        """Places of the elements of one polarisation.

        Returns:
            float64 `[num_rows * num_cols, 3]`, in wavelengths, centred on the origin, in the
            array's own frame (broadside along +x).
        """
        row, col = np.meshgrid(np.arange(self.num_rows), np.arange(self.num_cols), indexing="ij")
        y = (col - (self.num_cols - 1) / 2) * self.horizontal_spacing
        z = ((self.num_rows - 1) / 2 - row) * self.vertical_spacing
        # Sionna numbers elements down the columns first.
        return np.stack([np.zeros(y.size), y.T.ravel(), z.T.ravel()], axis=-1)

    def response(self, theta: Array, phi: Array, orientation: ArrayLike = (0.0, 0.0, 0.0)) -> Array:
        """Phase of a plane wave at every element, relative to the centre of the array.

        `exp(j 2 pi d . k)` with `d` the element's place in wavelengths and `k` the unit vector
        towards (`theta`, `phi`), as in Sionna's synthetic arrays.

        Args:
            theta: Zenith angles in radians, float `[...]`, global frame.
            phi: Azimuth angles in radians, float `[...]`, global frame.
            orientation: Yaw, pitch and roll of the array in radians, as in Sionna.

        Returns:
            complex128 `[..., num_rows * num_cols]`.
        """
        return np.exp(2j * np.pi * self.turns(theta, phi, orientation))

    def turns(self, theta: Array, phi: Array, orientation: ArrayLike = (0.0, 0.0, 0.0)) -> Array:
        """The phases of `response` in turns, float64 `[..., num_rows * num_cols]`."""
        places = self.positions @ rotation_matrix(orientation).T
        return unit_vectors(theta, phi) @ places.T


def unit_vectors(theta: Array, phi: Array) -> Array:
    """Directions of zenith and azimuth angles `[...]` in radians, `[..., 3]`."""
    flat = np.sin(theta)
    return np.stack([flat * np.cos(phi), flat * np.sin(phi), np.cos(theta)], axis=-1)


def rotation_matrix(orientation: ArrayLike) -> Array:
    """Rotation by yaw, pitch and roll (intrinsic z, y, x) in radians, float `[3]`.

    3GPP TR 38.901, equation 7.1-4: float64 `[3, 3]` that maps the array's frame to the global one.
    """
    yaw, pitch, roll = np.asarray(orientation, dtype=np.float64)
    ca, sa, cb, sb, cc, sc = (
        np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    )  # fmt: skip
    return np.array(
        [
            [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
            [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
            [-sb, cb * sc, cb * cc],
        ]
    )
