"""Figures of merit of predicted channels."""

from typing import Any

import numpy as np

from lwmt_sionna.typing import Array, ArrayLike

# Exact predictions have no decibels, and records no infinities: of ratios of powers.
FLOOR = 1e-20


def to_db(ratio: ArrayLike) -> Array:
    """Decibels of a power ratio; minus infinity for zero."""
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(ratio)


def normalized_error(h_hat: Array, h: Array, scale: ArrayLike | None = None) -> tuple[Array, Array]:
    """Squared errors and powers per sequence.

    Args:
        h_hat: Predicted channels, complex `[batch, ...]`.
        h: True channels, same shape.
        scale: Root mean square of each sequence's true history, float `[batch]`, by which both are
            divided; one if `None`.

    Returns:
        Tuple of the squared errors and the powers, float64 `[batch]` each.
    """
    if h_hat.shape != h.shape:
        raise ValueError(
            "Predicted and true channels differ in shape. Received: "
            f"h_hat.shape={h_hat.shape}, h.shape={h.shape}"
        )
    axes = tuple(range(1, h.ndim))
    error = np.sum(np.abs(h_hat - h) ** 2, axis=axes, dtype=np.float64)
    power = np.sum(np.abs(h) ** 2, axis=axes, dtype=np.float64)
    if scale is not None:
        square = np.asarray(scale, dtype=np.float64).reshape(-1) ** 2
        error, power = error / square, power / square
    return error, power


def aligned_error(h_hat: ArrayLike, h: ArrayLike) -> Array:
    r"""Squared errors that are left after the best common phase and delay of every snapshot.

    The phase of a user's oscillator and the start of its frame are common to all antennas and
    change nothing for a precoder: $\min_{\phi, \tau} \sum_{m,k} |e^{j(\phi + 2 \pi k \tau)}
    \hat h_{mk} - h_{mk}|^2$, which is the sum of both powers less twice the largest modulus of
    $\sum_k r_k e^{j 2 \pi k \tau}$ with $r_k = \sum_m h_{mk}^* \hat h_{mk}$.

    Args:
        h_hat: Predicted channels, complex `[batch, num_ant, num_subcarriers]`.
        h: True channels, same shape; subcarriers equally spaced.

    Returns:
        float64 `[batch]`.
    """
    h_hat, h = np.asarray(h_hat, np.complex128), np.asarray(h, np.complex128)
    correlation = np.sum(np.conj(h) * h_hat, axis=1)
    size = 8 * correlation.shape[1]
    index = np.arange(correlation.shape[1]) - correlation.shape[1] // 2
    tau = np.argmax(np.abs(np.fft.ifft(correlation, size, axis=1)), axis=1) / size
    # Newton's steps from the nearest point of the grid to the peak of the squared modulus.
    for _ in range(4):
        turned = correlation * np.exp(2j * np.pi * index * tau[:, None])
        slope = 2j * np.pi * index
        value, first, second = (np.sum(turned * slope**n, axis=1) for n in range(3))
        rise = np.real(np.conj(value) * first)
        bend = np.abs(first) ** 2 + np.real(np.conj(value) * second)
        step = np.where(bend < 0, -rise / np.where(bend < 0, bend, 1.0), 0.0)
        tau = tau + np.clip(step, -0.5 / size, 0.5 / size)
    turned = correlation * np.exp(2j * np.pi * index * tau[:, None])
    power = np.sum(np.abs(h) ** 2, axis=(1, 2)) + np.sum(np.abs(h_hat) ** 2, axis=(1, 2))
    return np.maximum(power - 2 * np.abs(turned.sum(axis=1)), 0.0)


def summarize_errors(error: Array, power: Array) -> dict[str, Any]:
    """Normalised mean squared error in its four forms, which differ by 5 dB and more.

    Args:
        error: Squared errors per sequence, float `[batch]`, of sequences scaled alike.
        power: Powers per sequence, float `[batch]`.

    Returns:
        Dictionary in decibels: `nmse_pooled_db` (sum of errors over sum of powers),
        `nmse_mean_db` (mean of the ratios), `nmse_median_db`, `nmse_q90_db` (90 % quantile), and
        the number of sequences `num_sequences`. Sequences without power are left out of the
        ratios. What is exact has -200 dB.
    """
    seen = power > 0
    ratio = np.maximum(error[seen] / power[seen], FLOOR)
    if not ratio.size:
        raise ValueError("No sequence has power; expected at least one")
    return {
        "nmse_pooled_db": float(to_db(max(error.sum() / power.sum(), FLOOR))),
        "nmse_mean_db": float(to_db(ratio.mean())),
        "nmse_median_db": float(to_db(np.median(ratio))),
        "nmse_q90_db": float(to_db(np.quantile(ratio, 0.9))),
        "num_sequences": int(error.size),
    }


def sgcs(h_hat: ArrayLike, h: ArrayLike) -> Array:
    """Squared generalised cosine similarity over the antennas, mean over subcarriers.

    Args:
        h_hat: Predicted channels, complex `[batch, num_ant, num_subcarriers]`.
        h: True channels, same shape.

    Returns:
        float64 `[batch]`, between 0 and 1.
    """
    h_hat, h = np.asarray(h_hat, np.complex128), np.asarray(h, np.complex128)
    inner = np.abs(np.sum(np.conj(h_hat) * h, axis=1)) ** 2
    norms = np.sum(np.abs(h_hat) ** 2, axis=1) * np.sum(np.abs(h) ** 2, axis=1)
    return np.mean(inner / np.where(norms > 0, norms, 1.0), axis=-1)


def zero_forcing_rates(
    h_hat: Array,
    h: Array,
    link_snr_db: float,
    num_users: int = 4,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Array:
    """Sum rates of users that a base station precodes to together, from what it believes.

    Regularised zero-forcing on every subcarrier, equal power per user and unit power in all,
    loading the number of users over the SNR; other users' signals are noise. Channels are taken as
    scaled: give every user unit mean power of its history for a link SNR that is the mean SNR per
    antenna.

    Args:
        h_hat: Predicted channels, complex `[batch, num_ant, num_subcarriers]`.
        h: True channels, same shape.
        link_snr_db: Link SNR in decibels.
        num_users: Users per group.
        groups: Labels of the users that may share a group (their base stations), `[batch]`; all
            may if `None`.
        seed: Seed of the draw of groups.

    Returns:
        float64 `[num_groups]`: sum over users of `log2(1 + SINR)`, mean over subcarriers, in
        bit/s/Hz.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(len(h), int) if groups is None else np.asarray(groups)
    teams = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        members = members[: len(members) // num_users * num_users]
        teams.append(members.reshape(-1, num_users))
    teams = np.concatenate(teams) if teams else np.empty((0, num_users), int)
    snr = 10.0 ** (link_snr_db / 10.0)
    # g group, k subcarrier, u user, a antenna
    believed, true = (np.moveaxis(x[teams], -1, 1).astype(np.complex128) for x in (h_hat, h))
    gram = believed @ believed.conj().swapaxes(-1, -2)
    load = num_users / snr * np.eye(num_users)
    precoder = believed.conj().swapaxes(-1, -2) @ np.linalg.inv(gram + load)
    power = np.sum(np.abs(precoder) ** 2, axis=-2, keepdims=True)
    precoder = precoder / np.sqrt(num_users * np.maximum(power, 1e-30))
    received = np.abs(true @ precoder) ** 2
    signal = np.diagonal(received, axis1=-2, axis2=-1)
    interference = received.sum(axis=-1) - signal
    rate = np.log2(1 + snr * signal / (1 + snr * interference))
    return rate.sum(axis=-1).mean(axis=-1)
