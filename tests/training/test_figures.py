"""Figures of trainings are drawn from records."""

import itertools

import pytest

from lwmt_sionna.training import figures as study_plots


def prediction_points():
    cells = itertools.product(("town", "city"), (1, 5), ("event_free", "all"))
    for test_set, horizon, subset in cells:
        place = {"test_set": test_set, "horizon": horizon, "subset": subset}
        yield {**place, "contestant": "hold", "mode": "baseline", "nmse_median_db": 2.0}
        for mode, share, attention, seed in itertools.product(
            ("scratch", "full"), (0.01, 1.0), ("ssta", "dense"), (1, 2)
        ):
            yield {
                **place,
                "contestant": f"{mode}{share}{attention}{seed}",
                "mode": mode,
                "attention": attention,
                "label_share": share,
                "seed": seed,
                "nmse_median_db": -10.0 - share - horizon,
            }


@pytest.mark.parametrize("name", ["plot_label_shares", "plot_attention_comparison"])
def test_curves_are_drawn(tmp_path, name):
    path = tmp_path / "figure.png"
    getattr(study_plots, name)({"points": list(prediction_points())}, path)
    assert path.stat().st_size > 10_000
    with pytest.raises(ValueError, match="no points"):
        getattr(study_plots, name)({"points": []}, path)


def test_masks_are_drawn_even_where_a_contestant_is_unfinished(tmp_path):
    points = [
        {"test_set": s, "contestant": c, "condition": k, "nmse_pooled_db": -3.0}
        for s, c, k in itertools.product("ab", ("curriculum", "random_masks"), ("tail", "tube"))
    ]
    path = tmp_path / "figure.svg"
    study_plots.plot_mask_ablation({"points": points[:-1]}, path)
    assert path.stat().st_size > 5_000
