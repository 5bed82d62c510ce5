"""Studies: resumable, and with the contestants they promise."""

import dataclasses

import pytest

from lwmt_sionna.masking import IMPAIRMENTS, MASKS, Curriculum
from lwmt_sionna.training.pretraining import MaskedTraining
from lwmt_sionna.training.studies import (
    ablations,
    check_horizons,
    equal_time_contestants,
    measure_steps,
    run_tasks,
    thin_out,
)
from tests import mirrors
from tests.training.small import predictor_config, pretrain_config


def test_a_study_goes_on_where_it_stopped(tmp_path):
    ran, written = [], []

    def task(name, fails=False):
        def run(folder):
            ran.append(name)
            if fails:
                raise KeyboardInterrupt
            return [{"name": name, "folder": folder.name}]

        return run

    with pytest.raises(KeyboardInterrupt):
        run_tasks(
            {"a": task("a"), "b": task("b", fails=True)}, tmp_path, lambda p: written.append(len(p))
        )
    points = run_tasks(
        {"a": task("a"), "b": task("b"), "c": task("c")}, tmp_path, lambda p: written.append(len(p))
    )
    assert ran == ["a", "b", "b", "c"]
    assert [p["name"] for p in points] == ["a", "b", "c"]
    assert written == [1, 2, 3, 3]


def test_every_mask_is_left_out_once():
    config = dataclasses.replace(pretrain_config(), curriculum=Curriculum())
    contestants = ablations(config)
    for name in MASKS:
        curriculum = contestants[f"without_{name}"].curriculum
        assert set(curriculum.masks) == set(MASKS) - {name}
        assert set(curriculum.impairments) == set(IMPAIRMENTS)
    assert set(contestants["random_masks"].curriculum.masks) == {"random"}
    assert not contestants["random_masks_clean"].curriculum.impairments
    assert contestants["curriculum"] == config
    for contestant in contestants.values():
        assert dataclasses.replace(contestant, curriculum=config.curriculum) == config


def test_contestants_for_equal_time_differ_in_one_thing_each():
    config = dataclasses.replace(pretrain_config(), curriculum=Curriculum())
    contestants = equal_time_contestants(config)
    assert contestants.pop("curriculum") == config
    masks = contestants.pop("random_masks")
    assert set(masks.curriculum.masks) == {"random"}
    assert dataclasses.replace(masks, curriculum=config.curriculum) == config
    kinds = {c.model.attention for c in contestants.values()}
    assert kinds == {"dense", "random"}
    for contestant in contestants.values():
        assert dataclasses.replace(contestant, model=config.model) == config


@pytest.mark.usefixtures("eagerly")
def test_steps_are_measured_in_turns(monkeypatch):
    """Nobody takes a timed step before all others have taken theirs of the round before."""
    taken = []
    step = MaskedTraining.train_on_batch

    def counted(self, *args, **kwargs):
        taken.append(id(self))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(MaskedTraining, "train_on_batch", counted)
    spent = measure_steps({"a": pretrain_config(), "b": pretrain_config()}, rounds=2)
    assert set(spent) == {"a", "b"} and min(spent.values()) > 0
    assert taken == 3 * taken[:2] and len(set(taken)) == 2


def test_horizons_that_nobody_is_trained_for_are_refused():
    config = predictor_config(["none.h5"])
    check_horizons(config, [1, 2])
    with pytest.raises(ValueError, match=r"horizons=\[1, 3\]"):
        check_horizons(config, [1, 3])


def test_unknown_ingredients_are_refused():
    with pytest.raises(ValueError, match="nonsense"):
        pretrain_config().ablated(only=("nonsense",))
    with pytest.raises(ValueError, match="nonsense"):
        pretrain_config().ablated(without=("nonsense",))


def test_thinned_sets_are_drawn_once(rng):
    sets = {name: mirrors.sequences(rng, num_sequences=9) for name in ("few", "more")}
    first, second = (thin_out(sets, 4, seed=1) for _ in range(2))
    assert first["few"].trajectory_id.tolist() == second["few"].trajectory_id.tolist()
    assert first["few"].num_sequences == 4
    assert thin_out(sets, 20, seed=1)["more"] is sets["more"]
