"""How predictions are judged: figures of merit, controls against leaks, the grid of regimes.

The modules: `metrics` and `leaks` (importable from here), `regimes` (what is evaluated), `grid`
(one cell after the other), `table` and `figures` (from records).
"""

from lwmt_sionna.evaluation.leaks import (
    check_causal,
    check_held_out,
    other_histories,
    shuffled_histories,
)
from lwmt_sionna.evaluation.metrics import (
    evaluate_predictors,
    normalized_error,
    sgcs,
    summarize_errors,
    to_db,
    zero_forcing_rates,
)

__all__ = [
    "check_causal",
    "check_held_out",
    "evaluate_predictors",
    "normalized_error",
    "other_histories",
    "sgcs",
    "shuffled_histories",
    "summarize_errors",
    "to_db",
    "zero_forcing_rates",
]
