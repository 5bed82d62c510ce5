"""Routing: which of its neighbours a token spends its attention on."""

import dataclasses
from typing import Any

from keras import ops

__all__ = ["TopKRouting", "get_routing", "keep_top_k"]


@dataclasses.dataclass(frozen=True)
class TopKRouting:
    """Each token and head keeps its highest scores and drops the others before the softmax.

    Of `num_candidates` neighbours, `min(max_keys, max(min_keys, floor(fraction * num_candidates)))`
    are kept, as in the published LWM-Temporal.

    Args:
        fraction: Kept fraction of the candidates.
        min_keys: Fewest kept keys.
        max_keys: Most kept keys.
    """

    fraction: float = 0.2
    min_keys: int = 8
    max_keys: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"`fraction` must lie in (0, 1]. Received: fraction={self.fraction}")
        if not 1 <= self.min_keys <= self.max_keys:
            raise ValueError(
                "`min_keys` must be at least 1 and at most `max_keys`. "
                f"Received: min_keys={self.min_keys}, max_keys={self.max_keys}"
            )

    def num_keys(self, num_candidates: int) -> int:
        """Number of keys kept of a neighbour table of width `num_candidates`."""
        wanted = max(self.min_keys, int(self.fraction * num_candidates))
        return min(self.max_keys, wanted, num_candidates)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as JSON-serialisable values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TopKRouting":
        """Routing from the output of `get_config`."""
        return cls(**config)


def get_routing(routing: "TopKRouting | str | dict | None") -> TopKRouting | None:
    """Routing from an object, its name (`"topk"`), its configuration or None."""
    if routing is None or isinstance(routing, TopKRouting):
        return routing
    if routing == "topk":
        return TopKRouting()
    if isinstance(routing, dict):
        return TopKRouting.from_config(routing)
    raise ValueError(
        f"`routing` must be None, 'topk', a `TopKRouting` or its config. Received: {routing!r}"
    )


def keep_top_k(scores, num_keys: int, lowest: float):
    """Replaces all but the `num_keys` highest scores of the last axis by `lowest`.

    The choice carries no gradient; equal scores at the threshold are all kept.
    """
    if num_keys >= scores.shape[-1]:
        return scores
    kept = ops.top_k(ops.stop_gradient(scores), num_keys, sorted=True)[0]
    return ops.where(scores >= kept[..., -1:], scores, lowest)
