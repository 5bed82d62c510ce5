"""What both ends of the link make of what they know: precoders, interpolation, SINR.

Stateless functions on `[..., num_rows, num_antennas]`; `Downlink` arranges the axes.
"""

import numpy as np
from keras import ops
from sionna.phy.mimo import rzf_precoding_matrix
from sionna.phy.ofdm import BaseChannelInterpolator, PilotPattern
from sionna.phy.utils import inv_cholesky

from lwmt_sionna.link.phy.line import dtypes, einsum, real_dtype
from lwmt_sionna.typing import Tensor


class WienerInterpolator(BaseChannelInterpolator):
    r"""Linear minimum mean-square error interpolation over the slot, in time and frequency at once.

    For a stream with the least-squares estimates $\hat{h}_p$ of its pilots, noise variance
    $\sigma^2$ and mean power $P$, $\hat{h} = R_{hp} (R_{pp} + \sigma^2 / P I)^{-1} \hat{h}_p$. The
    receiver knows of the channel's statistics no more than their extent, as a robust receiver
    does: delays are uniform over a window around zero (the precoder has removed the rest) and
    Doppler shifts over a window around zero. $P$ is measured on the pilots of each stream, so that
    faint interference is shrunk rather than amplified.

    Args:
        pilot_pattern: `sionna.phy.ofdm.PilotPattern` with one transmitter.
        delay_spread: float, width of the window of delays, as a share of the reciprocal of the
            spacing of the simulated subcarriers.
        doppler_spread: float, width of the window of Doppler shifts, as a share of the
            reciprocal of the symbol duration.
        precision: None, "single" or "double", as for every Sionna object.

    Call arguments:
        h_hat: complex `[batch_size, num_rx, num_rx_ant, 1, num_streams, num_pilots]`, least-squares
            estimates in the order of the pattern; zero where a stream's pilot is.
        err_var: float, broadcastable to `h_hat`, their variance.

    Returns:
        The pair of the estimates, complex `[batch_size, num_rx, num_rx_ant, 1, num_streams,
        num_ofdm_symbols, num_subcarriers]`, and their error variance, float, same shape.

    Reference:
        Y. Li, L. J. Cimini, N. R. Sollenberger, "Robust channel estimation for OFDM systems with
        rapid dispersive fading channels", IEEE Trans. Commun., 1998.
    """

    def __init__(
        self,
        pilot_pattern: PilotPattern,
        delay_spread: float,
        doppler_spread: float,
        precision: str | None = None,
    ) -> None:
        super().__init__(precision=precision)
        mask = ops.convert_to_numpy(pilot_pattern.mask)[0].astype(bool)
        active = np.abs(ops.convert_to_numpy(pilot_pattern.pilots)[0]) > 0
        _, num_symbols, num_subcarriers = mask.shape
        time = _uniform_window(num_symbols, doppler_spread)
        frequency = _uniform_window(num_subcarriers, delay_spread)
        values, bases, weights = [], [], []
        for stream_mask, stream_active in zip(mask, active):
            t, f = np.argwhere(stream_mask)[stream_active].T
            # With R_pp = V diag(d) V^H the filter is one diagonal matrix for any noise level.
            d, v = np.linalg.eigh(time[np.ix_(t, t)] * frequency[np.ix_(f, f)])
            # Silent pilots have rows of zeros: no index is needed to skip them.
            basis = np.zeros((len(stream_active), len(d)))
            basis[stream_active] = v
            cross = time[:, None, t] * frequency[None, :, f]
            values.append(np.maximum(d, 0.0))
            bases.append(basis)
            weights.append(cross.reshape(-1, len(d)) @ v)
        self._grid = [num_symbols, num_subcarriers]
        share = active / active.sum(axis=1, keepdims=True)
        real, complex_ = dtypes(self.precision)
        self._share = ops.convert_to_tensor(share, real)
        self._values = ops.convert_to_tensor(np.stack(values), real)
        self._bases = ops.convert_to_tensor(np.stack(bases), complex_)
        self._weights = ops.convert_to_tensor(np.stack(weights), complex_)

    def __call__(self, h_hat: Tensor, err_var: Tensor) -> tuple[Tensor, Tensor]:
        noise = ops.sum(err_var * self._share, axis=-1, keepdims=True)
        power = ops.sum(ops.abs(h_hat) ** 2 * self._share, axis=-1, keepdims=True) - noise
        # A stream that is not heard above the noise has little power, not a negative one.
        power = ops.maximum(power, 1e-2 * noise + 1e-20)
        gain = 1.0 / (self._values + noise / power)
        # s stream, p pilot, q eigenvalue, g element of the grid
        spectrum = einsum("...sp,spq->...sq", h_hat, self._bases)
        filtered = ops.cast(gain, spectrum.dtype) * spectrum
        estimate = einsum("...sq,sgq->...sg", filtered, self._weights)
        explained = einsum("...sq,sgq->...sg", gain, ops.abs(self._weights) ** 2)
        shape = ops.shape(estimate)
        error = ops.broadcast_to(ops.relu(power * (1.0 - explained)), shape)
        shape = (*shape[:-1], *self._grid)
        return ops.reshape(estimate, shape), ops.reshape(error, shape)


def _uniform_window(size, width):
    """Correlation of `size` samples whose spectrum is uniform over `width` cycles per sample."""
    return np.sinc(width * np.subtract.outer(np.arange(size), np.arange(size)))


def post_equalization_sinr(
    h_eff: Tensor,
    no: Tensor,
    streams_per_user: int,
    h_eff_hat: Tensor | None = None,
    error_variance: Tensor = 0.0,
) -> Tensor:
    r"""SINR behind an LMMSE receiver that may know its effective channel imperfectly.

    From its estimate $\hat{H}$ a user builds the filter of Sionna's equaliser,
    $W = D \hat{H}_d^H (\hat{H} \hat{H}^H + (\sigma^2 + \sigma_e^2) I)^{-1}$ with $D$ such that
    $W \hat{H}_d$ has ones on its diagonal. With the true $h$, what it hears of stream $s$ is off by
    $|w_s h_s - 1|^2 + \sum_{j \neq s} |w_s h_j|^2 + \sigma^2 |w_s|^2$; its SINR is $|w_s h_s|^2$
    over that. With perfect knowledge this is signal over interference plus noise.

    Sionna's `LMMSEPostEqualizationSINR` with its default `interference_whitening=True` counts the
    interference twice (version 1.2.2): as noise that it has whitened and once more as interference.

    Args:
        h_eff: complex `[batch_size, num_users, num_user_antennas, num_ofdm_symbols,
            num_subcarriers, num_streams]`, true effective channel, power included.
        no: float, broadcastable to `[batch_size]`, noise power.
        streams_per_user: int, streams of a user; stream `s` belongs to user
            `s // streams_per_user`.
        h_eff_hat: complex, shape of `h_eff`, what the users believe; the truth when None.
        error_variance: float, broadcastable to `h_eff`, error that the users expect in it.

    Returns:
        Float `[batch_size, num_users, streams_per_user, num_ofdm_symbols, num_subcarriers]`.
    """
    h_eff = ops.convert_to_tensor(h_eff)
    num_users, num_user_antennas, num_streams = (h_eff.shape[axis] for axis in (1, 2, 5))
    # [b batch, u user, t OFDM symbol, f subcarrier, r receive antenna, k stream of anybody]
    order = [0, 1, 3, 4, 2, 5]
    h = ops.transpose(h_eff, order)
    h_hat = h if h_eff_hat is None else ops.transpose(h_eff_hat, order)
    real = real_dtype(h)
    csi_error = ops.broadcast_to(ops.cast(error_variance, real), ops.shape(h_eff))
    csi_error = ops.sum(ops.transpose(csi_error, order), axis=-1)
    no = ops.reshape(ops.cast(no, real), [-1, 1, 1, 1, 1])

    # s stream of the user's own
    own = np.eye(num_streams).reshape(num_users, streams_per_user, num_streams)
    desired = einsum("butfrk,usk->butfrs", h_hat, ops.convert_to_tensor(own, h.dtype))
    covariance = h_hat @ adjoint(h_hat)
    identity = ops.eye(num_user_antennas, dtype=h.dtype)
    covariance = covariance + ops.cast(no + csi_error, h.dtype)[..., None] * identity
    if num_user_antennas == 1:
        w = adjoint(desired / covariance)
    else:
        # XLA solves no complex systems on a CPU, but factors them.
        factor = inv_cholesky(covariance)
        w = adjoint(factor @ desired) @ factor
    scale = ops.diagonal(w @ desired, axis1=-2, axis2=-1)
    # Where nothing is desired the filter is zero, and stays so.
    w = w / (scale[..., None] + 1e-30)

    heard = w @ h
    own = ops.convert_to_tensor(own[:, None, None], h.dtype)
    signal = ops.sum(ops.abs(heard * own) ** 2, axis=-1)
    error = ops.sum(ops.abs(heard - own) ** 2, axis=-1)
    error = error + no * ops.sum(ops.abs(w) ** 2, axis=-1)
    return ops.transpose(signal / error, [0, 1, 4, 2, 3])


def adjoint(matrix: Tensor) -> Tensor:
    """Conjugate transpose over the last two axes."""
    return ops.conj(ops.swapaxes(matrix, -1, -2))


def dominant_rows(h: Tensor, num_rows: int) -> Tensor:
    r"""Channels behind the strongest eigenmodes of a user's antennas.

    $U_S^H H$ with the $S$ dominant left singular vectors of $H$: what multi-antenna users hear once
    they combine their antennas, as in multiuser eigenmode transmission. Rows are orthogonal, so
    zero-forcing for one user alone gives its right singular vectors. Each singular vector carries
    the phase that turns it least from one subcarrier to the next; without that, the effective
    channel would jump between subcarriers and no receiver could interpolate it.

    Args:
        h: complex `[..., num_subcarriers, num_user_antennas, num_antennas]`.
        num_rows: int, modes $S$ to keep, at most `num_user_antennas`.

    Returns:
        Complex `[..., num_subcarriers, num_rows, num_antennas]`, the strongest first.

    Reference:
        F. Boccardi, H. Huang, "A near-optimum technique using linear precoding for the MIMO
        broadcast channel", Proc. IEEE ICASSP, 2007.
    """
    # Only the vectors are used: XLA's complex eigenvalues are NaN on a CPU (TensorFlow 2.21).
    h = ops.convert_to_tensor(h)
    _, vectors = ops.eigh(h @ adjoint(h))
    vectors = ops.flip(vectors, axis=-1)[..., :num_rows]
    turn = ops.sum(ops.conj(vectors[..., :-1, :, :]) * vectors[..., 1:, :, :], axis=-2)
    phase = ops.cumsum(ops.angle(turn), axis=-2)
    phase = ops.concatenate([ops.zeros_like(phase[..., :1, :]), phase], axis=-2)
    vectors = vectors * ops.exp(-1j * ops.cast(phase, vectors.dtype))[..., None, :]
    return adjoint(vectors) @ h


def rzf_precoder(rows: Tensor, alpha: Tensor) -> Tensor:
    r"""Regularised zero-forcing with equal power per stream and unit power in all.

    $G = H^H (H H^H + \alpha I)^{-1} D$, where $D$ gives each of the $K$ columns the power $1 / K$.
    `rows` are complex `[..., num_streams, num_antennas]`, one channel per stream, `alpha` is float,
    broadcastable to `[...]`, and the result complex `[..., num_antennas, num_streams]`. Streams
    whose row is zero radiate nothing.
    """
    rows = ops.convert_to_tensor(rows)
    # Of full rank: Sionna's precoding blocks broadcast lower ranks in different directions.
    alpha = ops.broadcast_to(alpha, ops.shape(rows)[:-2])
    precision = "double" if real_dtype(rows) == "float64" else "single"
    g = rzf_precoding_matrix(rows, alpha, precision=precision)
    return g / float(np.sqrt(rows.shape[-2]))


def effective_channel(h: Tensor, g: Tensor) -> Tensor:
    """True channel times precoder.

    Args:
        h: complex `[batch_size, num_rx, num_ofdm_symbols, num_antennas, num_subcarriers]`, with one
            entry of `num_rx` per receive antenna.
        g: complex `[batch_size, num_subcarriers, num_antennas, num_streams]`.

    Returns:
        Complex `[batch_size, num_rx, num_ofdm_symbols, num_subcarriers, num_streams]`.
    """
    # b batch, r receive antenna, t OFDM symbol, m transmit antenna, f subcarrier, s stream
    h = ops.transpose(h, [0, 4, 1, 2, 3])
    shape = ops.shape(h)
    flat = ops.reshape(h, [shape[0], shape[1], -1, shape[4]])
    h_eff = ops.reshape(flat @ g, [*shape[:4], g.shape[-1]])
    return ops.transpose(h_eff, [0, 2, 3, 1, 4])
