"""Prony's method per angle-delay bin."""

from typing import Any

import numpy as np

from lwmt_sionna.baselines.base import require
from lwmt_sionna.baselines.bins import (
    BinPredictor,
    chosen_covariance,
    chosen_snapshots,
    clamp_poles,
    normal_equations,
)
from lwmt_sionna.typing import Array

__all__ = ["PronyPredictor", "prony_poles"]

_TINY = 1e-30


class PronyPredictor(BinPredictor):
    """Prony-based angular-delay domain prediction (PAD), regularised by rank.

    Every bin is a sum of a few complex exponentials. A linear prediction of high order, solved in
    the principal subspace of the bin's own windows and those of its neighbours, gives the poles;
    the ones of largest modulus are taken for paths and drawn back to the unit circle; amplitudes
    follow by regularised least squares over the whole history and continue with their poles.

    Args:
        order: Order of the linear prediction.
        rank: Largest number of exponentials per bin.
        tolerance: Eigenvalues below this share of the largest are left out.
        ridge: Regularisation of the amplitudes relative to the number of snapshots.
        pool_weight: Weight of a neighbouring bin along an axis.
        **kwargs: Arguments of `BinPredictor`.

    Reference:
        Yin, Wang, Liu and Debbah 2020, Addressing the curse of mobility in massive MIMO with
        Prony-based angular-delay domain channel predictions (IEEE JSAC 38); Tufts and Kumaresan
        1982, Estimation of frequencies of multiple sinusoids (Proc. IEEE 70), for the rank.
    """

    name = "prony"

    def __init__(
        self,
        order: int = 8,
        rank: int = 3,
        tolerance: float = 1e-3,
        ridge: float = 1e-3,
        pool_weight: float = 0.5,
        denoise_radius: int | None = 3,
        significance: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(denoise_radius=denoise_radius, significance=significance, **kwargs)
        require("rank", rank, 1 <= rank <= order, f"between 1 and order={order}")
        for name, value in (("tolerance", tolerance), ("ridge", ridge)):
            require(name, value, value >= 0, "not negative")
        self.order = int(order)
        self.rank = int(rank)
        self.tolerance = float(tolerance)
        self.ridge = float(ridge)
        self.pool_weight = float(pool_weight)

    def extrapolate(self, x: Array, noise: Array, chosen: Array, num_horizons: int) -> Array:
        num_snapshots = x.shape[1]
        covariance = chosen_covariance(x, chosen, self.order + 1, self.pool_weight)
        poles, is_path = prony_poles(covariance, self.rank, self.tolerance)
        samples = chosen_snapshots(x, chosen)
        # Time counts from the first snapshot: powers of poles within the circle stay bounded.
        instants = np.arange(num_snapshots)
        basis = poles[:, None, :] ** instants[None, :, None] * is_path[:, None, :]
        gram = np.einsum("nti,ntj->nij", basis.conj(), basis)
        load = self.ridge * num_snapshots + ~is_path
        gram = gram + load[:, :, None] * np.eye(self.rank)
        amplitudes = np.linalg.solve(
            gram, np.einsum("nti,nt->ni", basis.conj(), samples)[..., None]
        )
        ahead = np.arange(num_snapshots, num_snapshots + num_horizons)
        future = poles[:, None, :] ** ahead[None, :, None] * is_path[:, None, :]
        return np.einsum("nhi,ni->nh", future, amplitudes[..., 0])


def prony_poles(covariance: Array, rank: int, tolerance: float = 0.0) -> tuple[Array, Array]:
    """Poles of the exponentials in windows of snapshots.

    Args:
        covariance: complex `[n, order + 1, order + 1]`, see `lag_covariance`.
        rank: Number of poles, at most the order.
        tolerance: Eigenvalues below this share of the largest are left out.

    Returns:
        Tuple of the poles, complex `[n, rank]`, of modulus 1 at most, the largest first; and
        which of them count, bool `[n, rank]`.
    """
    normal, target = normal_equations(covariance)
    values, vectors = np.linalg.eigh(normal)
    values, vectors = values[:, ::-1][:, :rank], vectors[:, :, ::-1][:, :, :rank]
    kept = values > np.maximum(tolerance * values[:, :1], _TINY)
    inverse = np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)
    projected = np.einsum("nij,ni->nj", vectors.conj(), target) * inverse
    coefficients = np.einsum("nij,nj->ni", vectors, projected)
    poles = clamp_poles(coefficients, 1.0)[1]
    sorted_by_modulus = np.argsort(-np.abs(poles), axis=1)
    poles = np.take_along_axis(poles, sorted_by_modulus, axis=1)[:, :rank]
    is_path = np.arange(rank)[None] < kept.sum(axis=1)[:, None]
    return np.where(is_path, poles, 1.0), is_path
