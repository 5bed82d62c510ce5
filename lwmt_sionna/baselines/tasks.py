"""Answers to tasks without a backbone: thresholds, boosting, beams by angle, neighbours."""

from typing import NamedTuple

import numpy as np

from lwmt_sionna.data import PlanarArray, beam_power, dft_codebook
from lwmt_sionna.typing import Array

__all__ = [
    "SIGHT_FEATURES",
    "Neighbors",
    "Threshold",
    "angle_power",
    "boost_classifier",
    "delay_angle_profile",
    "sight_features",
]

#: What `sight_features` tells of a history, in this order.
SIGHT_FEATURES = (
    "k_factor_db",
    "delay_spread",
    "angle_spread",
    "level_db",
    "peak_share_db",
    "peak_delay",
    "peak_after_first",
    "coherence",
    "num_strong",
)
_TINY = 1e-30
# Bins this far below the strongest are noise, or paths that tell nothing.
_FLOOR_DB = -20.0
_COUNTS = (1, 2, 3, 5, 10, 20)
# Decibels of level that count as much as profiles without anything in common.
_LEVEL_DB = 10.0
# Added to distances of those who do not count; labels that are left out to choose by.
_FAR, _MOST_LEFT_OUT = 1e6, 2000


def sight_features(h: Array) -> Array:
    r"""What engineers would look at to tell whether the base station is in sight.

    The K-factor from the moments of $|h|^2$, rms spreads of delay and angle, the level, how much of
    the power the strongest bin and its neighbours hold, its delay and that after the first bin
    within 20 dB, the coherence of successive snapshots, and the number of such bins.

    Args:
        h: Histories of a linear array, complex `[num_sequences, num_snapshots, num_ant,
            num_subcarriers]`.

    Returns:
        float32 `[num_sequences, len(SIGHT_FEATURES)]`; delays in bins, angles in bins.

    Reference:
        Greenstein, Michelson and Erceg 1999, Moment-method estimation of the Ricean K-factor (IEEE
        Communications Letters 3).
    """
    gain = np.abs(h).astype(np.float64) ** 2
    mean, variance = (f(gain, axis=(1, 2, 3)) for f in (np.mean, np.var))
    steady = np.sqrt(np.maximum(mean**2 - variance, 0.0))
    k_factor = steady / np.maximum(mean - steady, 1e-3 * mean + _TINY)
    power = np.mean(np.abs(np.fft.ifft(np.fft.fft(h, axis=2), axis=3)) ** 2, axis=1)
    strongest = power.max(axis=(1, 2), keepdims=True)
    strong = power > 10 ** (_FLOOR_DB / 10) * strongest
    kept = np.where(strong, power, 0.0)
    delay, angle = kept.sum(axis=1), kept.sum(axis=2)
    around = sum(
        np.roll(power, (row, column), axis=(1, 2)) for row in (-1, 0, 1) for column in (-1, 0, 1)
    )
    peak = power.reshape(len(h), -1).argmax(axis=1)
    share = around.reshape(len(h), -1)[np.arange(len(h)), peak] / (power.sum(axis=(1, 2)) + _TINY)
    peak_delay = peak % h.shape[3]
    first = np.argmax(delay > 0, axis=1)
    successive = np.abs(np.sum(np.conj(h[:, :-1]) * h[:, 1:], axis=(2, 3)))
    norms = np.sqrt(gain.sum(axis=(2, 3)))
    coherence = np.mean(successive / (norms[:, :-1] * norms[:, 1:] + _TINY), axis=1)
    columns = (
        10 * np.log10(k_factor + 1e-3),
        _spread(delay),
        _circular_spread(angle),
        10 * np.log10(mean + _TINY),
        10 * np.log10(share + _TINY),
        peak_delay,
        peak_delay - first,
        coherence,
        strong.sum(axis=(1, 2)),
    )
    return np.stack(columns, axis=1).astype(np.float32)


def _spread(power):
    bins = np.arange(power.shape[1])
    weight = power / (power.sum(axis=1, keepdims=True) + _TINY)
    mean = np.sum(weight * bins, axis=1, keepdims=True)
    return np.sqrt(np.sum(weight * (bins - mean) ** 2, axis=1))


def _circular_spread(power):
    size = power.shape[1]
    turns = np.exp(2j * np.pi * np.arange(size) / size)
    resultant = np.abs(power @ turns) / (power.sum(axis=1) + _TINY)
    # 3GPP TR 38.901, annex A.
    return np.sqrt(-2 * np.log(np.clip(resultant, 1e-12, 1.0))) * size / (2 * np.pi)


class Threshold(NamedTuple):
    """Tells two classes by one number.

    Attributes:
        at: The threshold.
        sign: 1 where larger numbers stand for the class, -1 where smaller ones do.
    """

    at: float
    sign: float

    @classmethod
    def fit(cls, feature: Array, labels: Array) -> "Threshold":
        """The threshold with the fewest errors on labels, midway between two of their numbers.

        Args:
            feature: float `[num_labels]`.
            labels: bool `[num_labels]`.
        """
        values = np.unique(feature)
        cuts = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
        right = np.mean((feature > cuts[:, None]) == labels, axis=1)
        best = [np.argmax(right), np.argmin(right)]
        # Guessed the wrong way round, the fewest right answers are the most.
        sign = 1.0 if right[best[0]] >= 1 - right[best[1]] else -1.0
        return cls(float(cuts[best[0] if sign > 0 else best[1]]), sign)

    def __call__(self, feature: Array) -> Array:
        """Scores `[num_values]`, above 0 for the class."""
        return self.sign * (feature - self.at)


def boost_classifier(features: Array, labels: Array, asked: Array, seed: int = 0) -> Array:
    """Gradient boosting by scikit-learn.

    Args:
        features: float `[num_labels, num_features]`.
        labels: bool `[num_labels]`.
        asked: float `[num_asked, num_features]`.
        seed: Seed of the draws.

    Returns:
        float `[num_asked]`: logits of the class; of labels of one class alone, one to that class.

    Raises:
        ModuleNotFoundError: Without scikit-learn, which the extra `tasks` brings.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    if labels.all() or not labels.any():
        return np.full(len(asked), 1.0 if labels.all() else -1.0)
    # Shallow trees on half of the labels each: few labels are not learned by heart.
    model = GradientBoostingClassifier(
        n_estimators=200, max_depth=2, learning_rate=0.05, subsample=0.5, random_state=seed
    )
    return model.fit(features, labels).decision_function(asked)


def angle_power(h: Array, num_beams: int) -> Array:
    """Power of channels in the directions of a codebook of a line with as many elements as beams.

    The carrier of the channels may be another one than that of the beams: directions are what both
    have in common. The strongest direction, `argmax` over the beams, is the classical answer.

    Args:
        h: complex `[num_sequences, num_snapshots, num_ant, num_subcarriers]`, of a linear array.
        num_beams: Beams of the codebook.

    Returns:
        float32 `[num_sequences, num_snapshots, num_beams]`.
    """
    return beam_power(h, dft_codebook(PlanarArray(num_cols=h.shape[2]), num_beams))


def delay_angle_profile(h: Array) -> Array:
    """Amplitudes over angle and delay, mean over the history, of norm one: a fingerprint.

    Args:
        h: complex `[num_sequences, num_snapshots, num_ant, num_subcarriers]`.

    Returns:
        float32 `[num_sequences, num_ant * num_subcarriers]`.
    """
    profile = np.abs(np.fft.ifft(np.fft.fft(h, axis=2), axis=3)).mean(axis=1)
    profile = profile.reshape(len(h), -1)
    return (profile / (np.linalg.norm(profile, axis=1, keepdims=True) + _TINY)).astype(np.float32)


class Neighbors:
    """K nearest neighbours by fingerprint and level, their number chosen on the labels alone.

    The squared distance is that of the profiles plus that of the levels in tens of decibels;
    neighbours count by its inverse. Their number is the one with the least error on labels left
    out, together with all others of their trajectory.

    Args:
        profiles: See `delay_angle_profile`, `[num_labels, size]`.
        level_db: float `[num_labels]`, or None where the level tells nothing.
        labels: What is asked for: positions, float `[num_labels, num_dims]`, or classes, int
            `[num_labels, num_answers]`.
        groups: What must not help each other when the number is chosen, int `[num_labels]`.
        stations: Who serves, int `[num_labels]`; only neighbours of the same base station count
            then, where there are any and labels left out say so.
    """

    def __init__(
        self,
        profiles: Array,
        level_db: Array | None,
        labels: Array,
        groups: Array,
        stations: Array | None = None,
    ) -> None:
        self._known = (profiles, level_db, stations)
        self._labels = labels
        self._is_class = np.issubdtype(labels.dtype, np.integer)
        self._num_classes = int(labels.max()) + 1 if self._is_class else 0
        few = slice(0, _MOST_LEFT_OUT)
        level, station = (None if x is None else x[few] for x in (level_db, stations))
        own = groups[few, None] == groups
        alone = [False] if stations is None else [False, True]
        cases = [(k, s) for s in alone for k in _COUNTS if k <= max(1, len(labels) - 1)]
        errors = []
        for same_station in alone:
            distance = self._distances(profiles[few], level, station, same_station)
            distance[own] = np.inf
            for count in dict.fromkeys(k for k, _ in cases):
                errors.append(self._error(self._answers(distance, count), labels[few]))
        self.num_neighbors, self.same_station = cases[int(np.argmin(errors))]

    def __call__(
        self, profiles: Array, level_db: Array | None = None, stations: Array | None = None
    ) -> Array:
        """Answers of the kind of the labels, `[num_asked, ...]`."""
        distance = self._distances(profiles, level_db, stations, self.same_station)
        return self._answers(distance, self.num_neighbors)

    def _distances(self, profiles, level_db, stations, same_station):
        known, known_db, known_stations = self._known
        likeness = profiles.astype(np.float32) @ known.astype(np.float32).T
        distance = 2.0 - 2.0 * np.minimum(likeness, 1.0)
        if known_db is not None:
            distance += ((level_db[:, None] - known_db) / _LEVEL_DB) ** 2
        if same_station:
            # Behind all others: they count where there is nobody else.
            distance[stations[:, None] != known_stations] += _FAR
        return distance

    def _answers(self, distance, count):
        count = min(count, distance.shape[1])
        nearest = np.argpartition(distance, count - 1, axis=1)[:, :count]
        far = np.take_along_axis(distance, nearest, axis=1)
        # With nobody left, all are as good.
        weight = 1.0 / (np.minimum(far, 1e12) + 1e-6)
        weight = weight / weight.sum(axis=1, keepdims=True)
        labels = self._labels[nearest]
        if not self._is_class:
            return np.sum(weight[..., None] * labels, axis=1)
        # n asked, k neighbour, q answer, c class
        votes = np.einsum("nk,nkqc->nqc", weight, np.eye(self._num_classes)[labels])
        return votes.argmax(axis=-1)

    def _error(self, answers, labels):
        if self._is_class:
            return np.mean(answers != labels)
        return np.median(np.linalg.norm(answers - labels, axis=-1))
