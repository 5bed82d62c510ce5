"""Intervals over clusters, paired differences, and the verdicts that follow from them.

Values that share a drop or a trajectory are not independent: what is resampled, with replacement,
are clusters as a whole. Two ways of doing the same are compared on the same clusters: what makes a
cluster hard for both cancels in the difference, and few claims survive intervals that are taken
apart.
"""

import functools
from typing import Literal, TypeAlias

import numpy as np

from lwmt_sionna.evaluation.metrics import FLOOR, to_db
from lwmt_sionna.typing import ArrayLike

Statistic: TypeAlias = Literal["mean", "median", "pooled_db"]
#: What a comparison can end in.
VERDICTS = ("better", "worse", "no detectable difference")
_NUM_RESAMPLES, _LEVEL = 2000, 0.95


def cluster_bootstrap(errors: ArrayLike, blocks: ArrayLike) -> tuple[float, float]:
    """95 % interval `(low, high)` of an error rate whose blocks come in drops.

    Blocks of one drop share a channel, so drops are what is resampled. Where every drop failed or
    none did, resampling sees no spread; the bound is then that of a binomial over drops (with `n`
    drops and no error: `1 - 0.05^(1/n)`), which is cautious.

    Args:
        errors: int `[num_drops]`, block errors of every drop.
        blocks: int `[num_drops]`, blocks of every drop.

    Raises:
        ValueError: If a drop has no block.
    """
    errors = np.asarray(errors, np.float64).ravel()
    blocks = np.asarray(blocks, np.float64).ravel()
    if errors.shape != blocks.shape or errors.size == 0 or np.any(blocks <= 0):
        raise ValueError(
            "Every drop needs an error count and a positive block count. Received shapes: "
            f"errors={errors.shape}, blocks={blocks.shape}"
        )
    rule = 1 - (1 - _LEVEL) ** (1 / errors.size)
    if not errors.any():
        return 0.0, rule
    if np.array_equal(errors, blocks):
        return 1 - rule, 1.0
    weights = _resamples(errors.size)
    return _quantiles((weights @ errors) / (weights @ blocks))


def cluster_mean(values: ArrayLike, clusters: ArrayLike | None = None) -> tuple[float, float]:
    """95 % interval `(low, high)` of a mean of at least one value.

    Args:
        values: float `[num_values]`.
        clusters: See `paired_difference`.
    """
    values, index = _clustered(values, clusters)
    return _quantiles(_mean(values, index, _resamples(index.max() + 1)))


def paired_difference(
    values: ArrayLike,
    reference: ArrayLike,
    clusters: ArrayLike | None = None,
    statistic: Statistic = "mean",
) -> tuple[float, float, float]:
    r"""How much a figure differs from that of a reference on the same clusters.

    Both figures are taken of the same resampled clusters; the interval is that of quantiles of
    their difference, stretched about the difference found by $\sqrt{n / (n - 1)} \; t_{n-1} / z$.
    Quantiles alone are too narrow where the `n` clusters are few: by a fifth with ten of them.

    Args:
        values: float `[num_values]`; with `"pooled_db"` `[num_values, 2]`, errors and powers.
        reference: float, shape of `values`, of what it is compared with, value by value.
        clusters: `[num_values]`, labels of the values that belong together (drops, sequences of a
            trajectory); each is a cluster of its own if `None`.
        statistic: Figure that is compared: `"mean"`, `"median"` (of errors in decibels the
            difference of their medians), or `"pooled_db"`, the sum of errors over the sum of powers
            in decibels.

    Returns:
        The triple `(difference, low, high)` of floats, the ends those of the 95 % interval,
        positive where `values` are larger. Of one cluster nothing is known: the interval is
        infinite.

    Raises:
        ValueError: If the two differ in shape, a value is not finite, or a setting is none.

    Example:

    >>> difference, low, high = paired_difference(own_goodput, other_goodput)
    >>> verdict(low, high)
    'better'

    Reference:
        T. C. Hesterberg, "What Teachers Should Know About the Bootstrap", The American
        Statistician 69(4), 2015, section 5.3.
    """
    if statistic not in _STATISTICS:
        raise ValueError(
            f"statistic must be one of {', '.join(_STATISTICS)}. Received: statistic={statistic!r}"
        )
    values, index = _clustered(values, clusters, pairs=statistic == "pooled_db")
    reference, _ = _clustered(reference, clusters, pairs=statistic == "pooled_db")
    if values.shape != reference.shape:
        raise ValueError(
            "Differences are taken value by value: expected equal shapes. Received: "
            f"values.shape={values.shape}, reference.shape={reference.shape}"
        )
    num_clusters = index.max() + 1
    figure = _STATISTICS[statistic]

    def differences(weights):
        return figure(values, index, weights) - figure(reference, index, weights)

    difference = float(differences(np.ones((1, num_clusters)))[0])
    if num_clusters == 1:
        return difference, -np.inf, np.inf
    ends = _quantiles(differences(_resamples(num_clusters)))
    low, high = (difference + _stretch(num_clusters) * (end - difference) for end in ends)
    return difference, low, high


def verdict(low: float, high: float, *, lower_is_better: bool = False) -> str:
    """What an interval of a difference allows to say.

    One of `VERDICTS`: better or worse where zero lies outside. `lower_is_better` where what was
    compared is an error.

    Raises:
        ValueError: If the ends are no interval.
    """
    if not low <= high:
        raise ValueError(f"low must not exceed high. Received: low={low}, high={high}")
    larger, smaller, unknown = VERDICTS
    if lower_is_better:
        larger, smaller = smaller, larger
    return larger if low > 0 else smaller if high < 0 else unknown


def _clustered(values, clusters, pairs=False):
    """The values, and the number of each one's cluster."""
    values = np.asarray(values, np.float64)
    values = values if pairs else values.ravel()
    if values.ndim != 1 + pairs or not len(values) or (pairs and values.shape[1] != 2):
        expected = "[num_values, 2]" if pairs else "[num_values]"
        raise ValueError(
            f"Expected at least one value, {expected}. Received: values.shape={values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("Values hold NaN or infinity; expected finite values")
    if clusters is None:
        return values, np.arange(len(values))
    clusters = np.asarray(clusters).ravel()
    if len(clusters) != len(values):
        raise ValueError(
            "Every value needs a cluster. Received: "
            f"values.shape={values.shape}, clusters.shape={clusters.shape}"
        )
    return values, np.unique(clusters, return_inverse=True)[1]


@functools.lru_cache(maxsize=4)
def _resamples(num_clusters):
    """How often each cluster is drawn in each resample, `[num_resamples, num_clusters]`."""
    rng = np.random.default_rng(0)
    even = np.full(num_clusters, 1 / num_clusters)
    weights = rng.multinomial(num_clusters, even, _NUM_RESAMPLES).astype(np.float64)
    weights.flags.writeable = False
    return weights


def _quantiles(figures):
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return float(low), float(high)


def _stretch(num_clusters):
    """How much too narrow the quantiles of resampled means of so many clusters are."""
    from scipy.special import ndtri, stdtrit

    freedom, tail = num_clusters - 1, (1 + _LEVEL) / 2
    return float(stdtrit(freedom, tail) / ndtri(tail) * np.sqrt(num_clusters / freedom))


def _mean(values, index, weights):
    return (weights @ np.bincount(index, values)) / (weights @ np.bincount(index))


def _median(values, index, weights):
    order = np.argsort(values)
    passed = np.cumsum(weights[:, index[order]], axis=1)
    half = passed[:, -1:] / 2
    # Two values stand in the middle of an even number.
    lower, upper = np.argmax(passed >= half, axis=1), np.argmax(passed > half, axis=1)
    return (values[order][lower] + values[order][upper]) / 2


def _pooled_db(values, index, weights):
    error, power = (weights @ np.bincount(index, column) for column in values.T)
    return to_db(np.maximum(error, FLOOR * power) / power)


_STATISTICS = {"mean": _mean, "median": _median, "pooled_db": _pooled_db}
