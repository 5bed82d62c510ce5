"""How predictions are judged: figures of merit, controls against leaks, one `evaluate`.

The modules: `metrics`, `intervals`, `leaks` and `evaluator` (importable from here), `grid` (regimes
and noise, one cell after the other), `table` and `figures` (from records).
"""

from lwmt_sionna.evaluation.evaluator import (
    CEILINGS,
    Trial,
    causal_channel,
    causal_forecast,
    draw_trial,
    evaluate,
    evaluate_paths,
    event_subsets,
)
from lwmt_sionna.evaluation.intervals import (
    cluster_bootstrap,
    cluster_mean,
    paired_difference,
    verdict,
)
from lwmt_sionna.evaluation.leaks import (
    check_causal,
    check_held_out,
    other_histories,
    shuffled_histories,
)
from lwmt_sionna.evaluation.metrics import (
    aligned_error,
    normalized_error,
    sgcs,
    summarize_errors,
    to_db,
    zero_forcing_rates,
)

__all__ = [
    "CEILINGS",
    "Trial",
    "aligned_error",
    "causal_channel",
    "causal_forecast",
    "check_causal",
    "check_held_out",
    "cluster_bootstrap",
    "cluster_mean",
    "draw_trial",
    "evaluate",
    "evaluate_paths",
    "event_subsets",
    "normalized_error",
    "other_histories",
    "paired_difference",
    "sgcs",
    "shuffled_histories",
    "summarize_errors",
    "to_db",
    "verdict",
    "zero_forcing_rates",
]
