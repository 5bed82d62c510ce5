"""What the base station radiates, given what it believes about the channel.

Stateless functions on `[..., num_rows, num_antennas]`; `Downlink` arranges the axes.
"""

import numpy as np
import tensorflow as tf
from sionna.phy.mimo import rzf_precoding_matrix

from lwmt_sionna.typing import Tensor

__all__ = ["dominant_rows", "effective_channel", "rzf_precoder"]


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
    _, vectors = tf.linalg.eigh(tf.matmul(h, h, adjoint_b=True))
    vectors = tf.reverse(vectors, axis=[-1])[..., :num_rows]
    turn = tf.reduce_sum(tf.math.conj(vectors[..., :-1, :, :]) * vectors[..., 1:, :, :], axis=-2)
    phase = tf.cumsum(tf.math.angle(turn), axis=-2)
    phase = tf.concat([tf.zeros_like(phase[..., :1, :]), phase], axis=-2)
    vectors *= tf.exp(tf.complex(tf.zeros_like(phase), -phase))[..., None, :]
    return tf.matmul(vectors, h, adjoint_a=True)


def rzf_precoder(rows: Tensor, alpha: Tensor) -> Tensor:
    r"""Regularised zero-forcing with equal power per stream and unit power in all.

    $G = H^H (H H^H + \alpha I)^{-1} D$, where $D$ gives each of the $K$ columns the power $1 / K$.
    `rows` are complex `[..., num_streams, num_antennas]`, one channel per stream, `alpha` is float,
    broadcastable to `[...]`, and the result complex `[..., num_antennas, num_streams]`. Streams
    whose row is zero radiate nothing.
    """
    # Of full rank: Sionna's precoding blocks broadcast lower ranks in different directions.
    alpha = tf.broadcast_to(alpha, tf.shape(rows)[:-2])
    precision = "double" if rows.dtype == tf.complex128 else "single"
    g = rzf_precoding_matrix(rows, alpha, precision=precision)
    return g / tf.cast(np.sqrt(rows.shape[-2]), g.dtype)


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
    h = tf.transpose(h, [0, 4, 1, 2, 3])
    shape = tf.shape(h)
    flat = tf.reshape(h, [shape[0], shape[1], shape[2] * shape[3], shape[4]])
    h_eff = tf.reshape(tf.matmul(flat, g), [*tf.unstack(shape)[:4], g.shape[-1]])
    return tf.transpose(h_eff, [0, 2, 3, 1, 4])
