r"""Stacking: how much of each forecast to believe, told by what it would have foreseen.

The last snapshots of a history are held out, every expert forecasts them from those before, and
weights are chosen that would have given the least squared error against what was measured. Noise of
the measurement is independent of all forecasts, so it does not bias the weights; and as they need
not sum to one, what nobody foresees is predicted to be small.
"""

import numpy as np
from keras import ops

from lwmt_sionna.ops.linear_algebra import solve_positive
from lwmt_sionna.ops.patches import patchify, token_grid, unpatchify
from lwmt_sionna.typing import Array, Tensor

__all__ = ["stack_forecasts"]

_TINY = 1e-12
# Bins of angle and delay that share weights: a path leaks over about as many.
_PATCH = (4, 4)
# Weight of the patches beside a patch, along either axis.
_BESIDE = 0.25
# Spread of the logarithm of the horizon over the held-out snapshots that tell its weights.
_SPREAD = 0.7
# Variance of the noise over that of the weights, over the number of values that are compared: of a
# sequence's weights around the prior ones, and of a patch's around these.
_WHOLE, _LOCAL = 0.001, 2.0
# How many times as much as noise alone would win must be won by weights other than the prior ones,
# and by those of a patch over those of its sequence.
_CHANCE, _CHANCE_LOCAL = 2.0, 1.0
# What is left over this many times the noise power is none, and so many times it is how far it is
# taken to lead astray.
_CLEAR, _ASTRAY = 1.2, 2.0
# How many times as much as of the held-out snapshots an expert may say of the future.
_SEEN = 2.0
# Least load over the power of all forecasts together: what rounding leaves of them.
_FAINTEST = 1e-5


def stack_forecasts(
    tested: Tensor,
    measured: Tensor,
    forecasts: Tensor,
    prior: Array,
    arrived: Tensor,
    left: Tensor | None = None,
    noise: Tensor | None = None,
    num_models: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Mixes forecasts by how well their like have forecast snapshots that are known.

    With forecasts $f_e$ of held-out snapshots and these as measured, $y$, the weights of a patch
    of bins and a horizon are those of a ridge regression around the weights $w$ of the whole
    sequence,

    $$w_p = (A_p + \lambda_p I)^{-1} (r_p + \lambda_p w), \quad
    A_p = \sum \mathrm{Re}\, \bar f_e f_{e'}, \quad r_p = \sum \mathrm{Re}\, \bar f_e y,$$

    which come from the same equation over all patches, around `prior`. Sums go over the patch, in
    part those beside it, and the held-out snapshots, those about as far ahead most. $\lambda$ is
    proportional to the squared error of the weights in the centre: the variance of this
    regression's noise over that of its weights. What leaving the centre wins is compared with what
    it would win by noise alone, and the step shortened accordingly (James and Stein): where one
    expert leaves nothing but noise, it is believed.

    Experts that stand on one model of the whole history, such as resolved paths, have seen in part
    what is held out. They are charged, in $A$, with an error in common: twice the power of what the
    model leaves of these snapshots beyond noise.

    What is born in the held-out snapshots could not be foreseen there, but will be in the future:
    no weight that these snapshots suggest holds for it. Where an expert says much more of the
    future than it has said of them, its weight stays in the centre as if that power had told so.
    How much of the future that leaves is the evidence.

    What was filled in for a lost report is a forecast itself and judges none, unless all of the
    held-out snapshots were.

    Args:
        tested: Forecasts of the held-out snapshots, real `[batch, expert, held, angle, delay, 2]`.
        measured: These snapshots, real `[batch, held, angle, delay, 2]`.
        forecasts: Real `[batch, expert, horizon, angle, delay, 2]`.
        prior: Weights without a history, float `[horizon, expert]`.
        arrived: Which held-out snapshots were measured, bool `[batch, held]`.
        left: What the model leaves of the held-out snapshots, shape as `measured`, if there is one.
        noise: Noise power per bin, real `[batch]`; with `left`.
        num_models: Number of experts that stand on the model, which come first.

    Returns:
        Tuple of the mix, real `[batch, horizon, angle, delay, 2]`; the mean power of each expert's
        errors over the held-out snapshots, `[batch, angle, delay, expert]`; and the evidence, the
        share of what the experts say of the future that these snapshots tell something about, in
        [0, 1], `[batch, horizon, angle, delay, 1]`.

    Reference:
        Wolpert 1992, Stacked generalization (Neural Networks 5); Breiman 1996, Stacked regressions
        (Machine Learning 24); James and Stein 1961, Estimation with quadratic loss.
    """
    num_held = tested.shape[2]
    num_horizons = forecasts.shape[2]
    prior = ops.convert_to_tensor(prior, dtype="float32")
    # [batch, held]
    judges = ops.cast(arrived, "float32")
    none = ops.logical_not(ops.any(judges > 0, axis=1, keepdims=True))
    judges = ops.where(none, ops.ones_like(judges), judges)
    # [batch, held, patch, expert and what was measured, bins]
    known = _in_patches(ops.concatenate([tested, measured[:, None]], axis=1))
    products = ops.matmul(known, ops.swapaxes(known, -1, -2)) * judges[..., None, None, None]
    # [batch, horizon, patch, expert + 1, expert + 1]
    near = _nearness(num_horizons, num_held)
    # As many snapshots tell as much as these of different weights, [batch, horizon].
    weight, square = (ops.matmul(judges, ops.convert_to_tensor(x.T)) for x in (near, near**2))
    held = weight**2 / square
    near = ops.convert_to_tensor(near)
    products = ops.einsum("hk,bkpef->bhpef", near, products)
    seen = products[..., :-1, :-1]
    grid = token_grid(tuple(measured.shape[1:4]), _PATCH)[1:]
    if left is not None:
        common = np.arange(products.shape[-1]) < num_models
        common = ops.convert_to_tensor(np.outer(common, common).astype("float32"))
        left = left * judges[..., None, None, None]
        excess = _unexplained(left, noise, near, weight, grid)
        products = products + excess[..., None, None] * common
    ahead = _in_patches(forecasts)
    power = ops.sum(ops.square(ahead), axis=-1) * weight[..., None, None]
    known = ops.sum(seen * _identity(seen.shape[-1]), axis=-1)
    weights = prior[:, None]
    for over, strength, chance, patches in (
        (lambda x: ops.sum(x, axis=2, keepdims=True), _WHOLE, _CHANCE, grid[0] * grid[1]),
        (lambda x: _with_neighbours(x, grid), _LOCAL, _CHANCE_LOCAL, (1 + 2 * _BESIDE) ** 2),
    ):
        told = over(known)
        unseen = ops.maximum(over(power) - _SEEN * told, 0.0)
        # Weights per value that tells them, in both parts of every bin.
        chance = chance * prior.shape[-1] / (2 * _PATCH[0] * _PATCH[1] * patches * held)
        weights = _regress(over(products), weights, strength, unseen, chance[..., None])
    told = ops.sum(told, axis=-1, keepdims=True)
    evidence = told / (told + ops.sum(unseen, axis=-1, keepdims=True) + _TINY)
    evidence = ops.repeat(evidence, _PATCH[0] * _PATCH[1], axis=-1)
    mix = ops.matmul(weights[..., None, :], ahead)
    error = ops.sum(ops.square(tested - measured[:, None]), axis=-1)
    share = judges / ops.sum(judges, axis=1, keepdims=True)
    error = ops.sum(error * share[:, None, :, None, None], axis=2)
    shape = (num_horizons, *measured.shape[2:4])
    mix, evidence = (
        unpatchify(
            ops.reshape(x, (-1, num_horizons * grid[0] * grid[1], x.shape[-1])), shape, _PATCH
        )
        for x in (mix, evidence)
    )
    return mix, ops.transpose(error, (0, 2, 3, 1)), evidence


def _regress(products, centre, strength, unseen, chance):
    """Weights `[..., expert]` around those in the centre, from products with the target last.

    `unseen` is the power of every expert for which the centre stands, `chance` the share of the
    error that must be won to leave it.
    """
    matrix, right = products[..., :-1, :-1], products[..., :-1, -1]
    centre = centre + ops.zeros_like(right)
    fit = ops.sum(centre * (ops.matmul(matrix, centre[..., None])[..., 0] - 2.0 * right), axis=-1)
    error = ops.maximum(products[..., -1, -1] + fit, 0.0)
    eye = _identity(matrix.shape[-1])
    # Experts that say the same must not make it singular.
    level = ops.sum(matrix * eye, axis=(-1, -2))
    load = (ops.maximum(strength * error, _FAINTEST * level) + _TINY)[..., None] + unseen
    # Around the centre, where what is solved for is small.
    right = right - ops.matmul(matrix, centre[..., None])[..., 0]
    step = solve_positive(matrix + load[..., None] * eye, right)
    won = ops.sum(step * (2.0 * right - ops.matmul(matrix, step[..., None])[..., 0]), axis=-1)
    kept = ops.maximum(1.0 - chance * error / (won + _TINY), 0.0)
    return centre + kept[..., None] * step


def _unexplained(left, noise, near, weight, grid):
    """Power beyond noise of what a model leaves of every patch, `[batch, horizon, patch]`.

    `weight` is that of all snapshots together, `[batch, horizon]`.
    """
    power = patchify(ops.sum(ops.square(left), axis=-1, keepdims=True), _PATCH)
    power = ops.reshape(ops.sum(power, axis=-1), (-1, left.shape[1], grid[0] * grid[1]))
    power = ops.einsum("hk,bkp->bhp", near, power)
    clear = _CLEAR * _PATCH[0] * _PATCH[1] * weight * noise[:, None]
    excess = _with_neighbours(power, grid) / (1 + 2 * _BESIDE) ** 2 - clear[..., None]
    return _ASTRAY * ops.maximum(excess, 0.0)


def _identity(size):
    return ops.convert_to_tensor(np.eye(size, dtype="float32"))


def _in_patches(x):
    """`[batch, expert, time, angle, delay, 2]` as `[batch, time, patch, expert, bins * 2]`."""
    num_experts, num_snapshots = x.shape[1:3]
    tokens = patchify(ops.reshape(x, (-1, num_experts * num_snapshots, *x.shape[3:])), _PATCH)
    size = tokens.shape[1] // (num_experts * num_snapshots)
    tokens = ops.reshape(tokens, (-1, num_experts, num_snapshots, size, tokens.shape[2]))
    return ops.transpose(tokens, (0, 2, 3, 1, 4))


def _nearness(num_horizons, num_held):
    """Weights of the held-out snapshots for every horizon, float32 `[horizon, held]`."""
    held = np.log(np.arange(1, num_held + 1))
    horizons = np.log(np.minimum(np.arange(1, num_horizons + 1), num_held))
    distance = (held - horizons[:, None]) / _SPREAD
    return np.exp(-0.5 * distance**2).astype("float32")


def _with_neighbours(x, grid):
    """Adds to `[batch, horizon, patch, ...]` some of what the patches beside have, cyclic."""
    shape = x.shape
    x = ops.reshape(x, (-1, shape[1], *grid, *shape[3:]))
    for axis in (2, 3):
        x = x + _BESIDE * (ops.roll(x, 1, axis=axis) + ops.roll(x, -1, axis=axis))
    return ops.reshape(x, (-1, *shape[1:]))
