"""What masks hide, filled in without a network: interpolation, and the paths behind the channel.

Views are those of `lwmt_sionna.masking.Curriculum.view`, as arrays. Both return the whole channel
in the angle-delay domain at the view's scale, float32 `[batch, num_snapshots, num_angle, num_delay,
2]`.
"""

from collections.abc import Callable, Mapping

import numpy as np
from keras import ops

from lwmt_sionna.baselines.base import as_complex, as_pairs
from lwmt_sionna.baselines.parametric import PathPredictor
from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.compiled import compile_function
from lwmt_sionna.ops.patches import local_motion, token_grid
from lwmt_sionna.ops.path_fit import PathFit
from lwmt_sionna.typing import Array

__all__ = ["PathFilling", "interpolate_view"]

# Fits of the paths, each to what the one before put in place of the hidden.
_NUM_ROUNDS = 3


def interpolate_view(view: Mapping[str, Array], patch: tuple[int, int]) -> Array:
    """Interpolates linearly between what is seen, and holds it beyond.

    Hidden tokens are told from the same token at other times, turned back by its own Doppler shift
    (`lwmt_sionna.ops.patches.local_motion`): without, what turns by half a cycle between snapshots
    is told wrong by more than all it holds. One that is never seen is zero. Missing measurements
    are told from the other antennas or subcarriers of their snapshot.

    Args:
        view: `observed`, `hidden` and `missing`.
        patch: Bins per token in angle and delay.
    """
    observed = np.asarray(view["observed"], np.float32)
    missing = np.asarray(view["missing"])
    combed = missing.any(axis=(1, 2, 3))
    if combed.any():
        h = as_complex(inverse_angle_delay_transform(observed[combed])).copy()
        seen = ~missing[combed]
        # A comb over antennas leaves whole rows out, one over subcarriers whole columns.
        over_antennas = (~seen.any(axis=3)).any(axis=(1, 2))
        for chosen, axis in ((over_antennas, 2), (~over_antennas, 3)):
            if chosen.any():
                h[chosen] = _between(h[chosen], seen[chosen], axis)
        observed = observed.copy()
        observed[combed] = np.asarray(angle_delay_transform(as_pairs(h)))
    motion = local_motion(observed, patch, ~np.asarray(view["hidden"])).stacked()
    motion = as_complex(motion)
    seen = ~hidden_bins(view["hidden"], observed.shape[1:4], patch)
    return as_pairs(motion * _between(as_complex(observed) * motion.conj(), seen, 1))


def hidden_bins(hidden: Array, shape: tuple[int, int, int], patch: tuple[int, int]) -> Array:
    """Hidden tokens, bool `[batch, num_tokens]`, as bins, bool `[batch, *shape]`."""
    grid = token_grid(shape, patch)
    bins = np.asarray(hidden).reshape(-1, *grid)
    bins = bins.repeat(patch[0], axis=2).repeat(patch[1], axis=3)
    return bins[:, :, : shape[1], : shape[2]]


def _between(x, seen, axis):
    """What is not seen, by linear interpolation along an axis; 0 where nothing is."""
    x, seen = np.moveaxis(np.where(seen, x, 0), axis, -1), np.moveaxis(seen, axis, -1)
    size = x.shape[-1]
    place = np.broadcast_to(np.arange(size), seen.shape)
    before = np.maximum.accumulate(np.where(seen, place, -1), axis=-1)
    after = np.where(seen, place, size)[..., ::-1]
    after = np.minimum.accumulate(after, axis=-1)[..., ::-1]
    first, last = np.where(before < 0, after, before), np.where(after == size, before, after)
    nothing = first == size
    first, last = np.where(nothing, 0, first), np.where(nothing, 0, last)
    weight = (place - first) / np.maximum(last - first, 1)
    low, high = (np.take_along_axis(x, index, axis=-1) for index in (first, last))
    filled = np.where(first == last, low, (1 - weight) * low + weight * high)
    return np.moveaxis(filled, -1, axis).astype(np.complex64)


class PathFilling:
    """Resolves what is seen into moving paths, and sums them up where something is hidden.

    The fit takes whole histories: hidden ends are what the paths of the snapshots before go on to;
    anything else is interpolated first, and then replaced by what the paths say, again and again,
    which is expectation maximisation on the hidden samples. See `lwmt_sionna.ops.path_fit`.

    Call arguments:
        view: See `interpolate_view`.
        patch: See `interpolate_view`.

    Reference:
        Dempster, Laird and Rubin 1977, Maximum likelihood from incomplete data via the EM algorithm
        (JRSS B 39).
    """

    def __init__(self) -> None:
        # Sequence by sequence: one program for each number of known snapshots.
        self._continue = PathPredictor(batch_size=1)
        self._programs: dict[tuple[int, ...], Callable[[Array], Array]] = {}

    def __call__(self, view: Mapping[str, Array], patch: tuple[int, int]) -> Array:
        observed = np.asarray(view["observed"], np.float32)
        hidden = hidden_bins(view["hidden"], observed.shape[1:4], patch)
        whole = hidden.all(axis=(2, 3))
        # Snapshots before the end that is hidden, where nothing else is.
        known = np.where((whole == hidden.any(axis=(2, 3))).all(axis=1), (~whole).sum(axis=1), 0)
        ends = np.arange(whole.shape[1]) >= known[:, None]
        known[(whole != ends).any(axis=1) | (known == whole.shape[1]) | (known < 2)] = 0
        guess = np.empty_like(observed)
        for count in np.unique(known):
            rows = known == count
            part = {
                name: np.asarray(view[name])[rows] for name in ("observed", "hidden", "missing")
            }
            make = self._continued if count else self._filled
            guess[rows] = make(part, count or patch)
        return guess

    def _continued(self, view, known):
        observed = view["observed"]
        h = as_complex(inverse_angle_delay_transform(observed[:, :known]))
        future = self._continue(h, observed.shape[1] - known)
        future = np.asarray(angle_delay_transform(as_pairs(future)))
        return np.concatenate([observed[:, :known], future], axis=1)

    def _filled(self, view, patch):
        observed, missing = view["observed"], view["missing"][..., None]
        hidden = hidden_bins(view["hidden"], observed.shape[1:4], patch)[..., None]
        bins = interpolate_view(view, patch)
        told = np.asarray(inverse_angle_delay_transform(bins))
        for _ in range(_NUM_ROUNDS):
            seen = np.asarray(inverse_angle_delay_transform(np.where(hidden, bins, observed)))
            told = self._fit(np.where(missing, told, seen))
            bins = np.asarray(angle_delay_transform(told))
        return bins

    def _fit(self, h):
        """What the paths of whole histories sum up to."""
        shape = h.shape[1:4]
        if shape not in self._programs:
            fit = PathFit(*shape)
            self._programs[shape] = compile_function(lambda x: x - fit.continued(x, 1)[1])
        return np.asarray(self._programs[shape](ops.convert_to_tensor(np.ascontiguousarray(h))))
