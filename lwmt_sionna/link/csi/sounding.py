"""How the base station comes to know the channel: sounding pilots through the uplink."""

import dataclasses
from typing import Literal

import numpy as np

from lwmt_sionna.data.synthesis import complex_normal
from lwmt_sionna.runs.configuration import Config, Positive
from lwmt_sionna.typing import Array, Random


@dataclasses.dataclass(frozen=True)
class SoundingConfig(Config):
    """How histories are measured.

    Attributes:
        mode: "noise", "pilots" or "sparse". "noise" adds white noise to the true channel of every
            antenna and subcarrier of the CSI grid; "pilots" sends sounding pilots through the
            uplink and estimates the channel from what arrives; "sparse" is "noise" on a comb of the
            CSI grid alone, and leaves estimating to the policies: see
            `lwmt_sionna.data.sparse_mask`.
        comb: int, a user sounds on every `comb`-th subcarrier, of the carrier (2, 4 or 8), or of
            the CSI grid where sounding is sparse (1 to 16).
        interpolation: "wiener" or "linear", from the comb to the CSI grid.
        delay_window: float, width of the window of delays around the user's mean delay that the
            Wiener filter expects [s]. Narrow windows suppress noise, wide ones keep late paths.
    """

    mode: Literal["noise", "pilots", "sparse"] = "noise"
    comb: Literal[1, 2, 4, 8, 16] = 4
    interpolation: Literal["wiener", "linear"] = "wiener"
    delay_window: Positive = 1.5e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "pilots" and self.comb not in _NR_COMBS:
            raise ValueError(
                f"comb: pilots lie on every 2nd, 4th or 8th subcarrier of the carrier. Received: "
                f"comb={self.comb}"
            )


# Combs of NR's sounding reference signals (3GPP TS 38.211, 6.4.1.4).
_NR_COMBS = (2, 4, 8)


def pilot_frequencies(
    frequencies: Array, subcarrier_spacing: float, comb: int, offset: int = 0
) -> Array:
    """Baseband frequencies of a user's sounding pilots.

    Pilots cover the band of the CSI grid, half a spacing beyond its outer points included.

    Args:
        frequencies: float `[num_subcarriers]`, CSI grid, equally spaced [Hz].
        subcarrier_spacing: float, of the carrier [Hz].
        comb: int, carriers from one pilot to the next.
        offset: int, the user's place in the comb.

    Returns:
        float64 `[num_pilots]` [Hz].

    Raises:
        ValueError: the band is narrower than two pilots.
    """
    grid = frequencies[1] - frequencies[0] if len(frequencies) > 1 else 0.0
    num_pilots = int(len(frequencies) * grid / (comb * subcarrier_spacing) + 1e-6)
    if num_pilots < 2:
        raise ValueError(
            "The band of the CSI grid must hold two pilots at least. Received: "
            f"{len(frequencies)} subcarriers {grid:g} Hz apart, comb={comb}, "
            f"subcarrier_spacing={subcarrier_spacing:g}"
        )
    places = offset % comb + comb * np.arange(num_pilots)
    return frequencies[0] - grid / 2 + subcarrier_spacing * (places + 0.5)


def sound(
    h: Array,
    pilots: Array,
    frequencies: Array,
    history_snr_db: float,
    config: SoundingConfig,
    rng: Random,
) -> Array:
    """Channels as the base station estimates them from sounding pilots of one comb offset.

    Users send pilots in one OFDM symbol per snapshot; those of other offsets do not disturb them.
    The base station divides by the pilots, shifts the user's mean delay to zero (told from the
    whole history, as timing is tracked), interpolates to the CSI grid and shifts back.

    Args:
        h: complex64 `[num_users, num_snapshots, num_antennas, num_pilots]`, channels at the
            pilots, the hardware's impairments included.
        pilots: float `[num_pilots]`, their frequencies [Hz].
        frequencies: float `[num_subcarriers]`, CSI grid [Hz].
        history_snr_db: float, what the energy of one sounding would give each subcarrier of the CSI
            grid if it were spread over them alone [dB]: with `num_pilots` pilots, a pilot has
            `num_subcarriers / num_pilots` times that SNR. Relative to the mean power of the user's
            history.
        config: `SoundingConfig`; `mode` and `comb` are not looked at.

    Returns:
        complex64 `[num_users, num_snapshots, num_antennas, num_subcarriers]`.
    """
    num_pilots = h.shape[-1]
    x = np.exp(0.5j * np.pi * (rng.integers(4, size=num_pilots) + 0.5)).astype(np.complex64)
    noise = 10 ** (-history_snr_db / 10) * num_pilots / len(frequencies)
    power = np.mean(np.abs(h) ** 2, axis=(1, 2, 3), keepdims=True)

    y = h * x
    y += np.sqrt(noise * power / 2).astype(np.float32) * complex_normal(rng, y.shape)

    h_ls = y / x
    lag = np.sum(h_ls[..., :-1].conj() * h_ls[..., 1:], axis=(1, 2, 3), dtype=np.complex128)
    # Pilots tell delays up to a multiple of the reciprocal of their spacing; none is negative.
    cycles = np.mod(-np.angle(lag) / (2 * np.pi) + 0.1, 1.0) - 0.1
    delay = cycles / (pilots[1] - pilots[0])
    matrix = interpolation_matrix(
        pilots, frequencies, config.interpolation, config.delay_window, noise
    )
    h_hat = (h_ls * _ramp(-delay, pilots)) @ matrix.T.astype(np.complex64)
    return h_hat * _ramp(delay, frequencies)


def interpolation_matrix(
    pilots: Array,
    frequencies: Array,
    interpolation: Literal["wiener", "linear"],
    delay_window: float,
    noise: float,
) -> Array:
    """Matrix that takes estimates at the pilots to other frequencies.

    Args:
        pilots: float `[num_pilots]` [Hz], ascending.
        frequencies: float `[num_subcarriers]` [Hz].
        interpolation: "wiener": linear minimum mean-square error for delays that are uniform over a
            window around zero. "linear": straight lines between the pilots, and beyond the outer
            ones; what Sionna's `LinearInterpolator` does.
        delay_window: float, width of the window [s].
        noise: float, noise of an estimate over the power of the channel.

    Returns:
        float `[num_subcarriers, num_pilots]`.
    """
    if interpolation == "wiener":
        own = np.sinc(delay_window * np.subtract.outer(pilots, pilots))
        cross = np.sinc(delay_window * np.subtract.outer(frequencies, pilots))
        # A narrow window has fewer degrees of freedom than pilots: a load keeps the inverse.
        return np.linalg.solve(own + max(noise, 1e-6) * np.eye(len(pilots)), cross.T).T
    left = np.clip(np.searchsorted(pilots, frequencies, side="right") - 1, 0, len(pilots) - 2)
    share = (frequencies - pilots[left]) / (pilots[left + 1] - pilots[left])
    matrix = np.zeros((len(frequencies), len(pilots)))
    rows = np.arange(len(frequencies))
    matrix[rows, left] = 1 - share
    matrix[rows, left + 1] += share
    return matrix


def _ramp(delay, frequencies):
    """Phases of a delay, complex64 `[num_users, 1, 1, num_frequencies]`."""
    turn = np.exp(-2j * np.pi * np.multiply.outer(delay, frequencies))
    return turn[:, None, None].astype(np.complex64)
