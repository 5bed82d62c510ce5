"""The loop: what a kill, a damaged file, a NaN, a callback and the moving average do."""

import dataclasses
import functools

import keras
import numpy as np
import pytest

from lwmt_sionna.data import ClusterConfig, draw_clusters, write_paths
from lwmt_sionna.runs.store import Store
from lwmt_sionna.training import (
    Checkpoints,
    Loop,
    NotFiniteError,
    OptimizationConfig,
    Task,
    averaged_weights,
    build_optimizer,
    input_files,
    train,
)
from lwmt_sionna.training.loop import OutputAsLoss
from tests import kills
from tests.training.small import predictor_config, pretrain_config


class Line(keras.Model):
    """Squared error of one weight on targets; as small as a model can be."""

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(shape=(1, 2), initializer="ones", name="weight")
        self.built = True

    def call(self, x):
        return keras.ops.mean(keras.ops.square(self.weight * x["x"] - x["y"]), axis=-1)


class Lesson:
    """Trains a `Line` on a list of targets."""

    def __init__(self, folder, batches, validate=None, **settings):
        options = {"warmup_share": 0.0, "checkpoint_every": 5, "log_every": 1}
        options |= {"learning_rate": 0.1, "decay_vectors": False}
        self.config = OptimizationConfig(steps=len(batches), batch_size=2, **(options | settings))
        self.model = Line()
        self.optimizer = build_optimizer(self.config, self.model.trainable_variables, len(batches))
        self.model.compile(optimizer=self.optimizer, loss=OutputAsLoss(), jit_compile=False)
        self.store = Store(folder)

        def draw(step):
            x = {"x": np.ones((2, 2), np.float32), "y": np.full((2, 2), batches[step], "f4")}
            return "line", x, np.zeros(2, np.float32)

        check = None if validate is None else lambda: validate(value(self.model))
        self.task = Task(
            self.model, {"line": self.model}, self.optimizer, draw, len(batches), 5, check
        )

    def train(self, *callbacks):
        checkpoints = Checkpoints(self.store)
        state = checkpoints.restore(len(self.model.variables))
        return Loop(self.task, self.config, checkpoints).run(state, callbacks, verbose=0)


def value(model):
    return keras.ops.convert_to_numpy(model.weight)


def weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.variables]


def losses(trained):
    return [row["loss"] for row in trained.outcome["history"]]


def newest(folder):
    """The file of the newest checkpoint."""
    return max((folder / "pieces").glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)


KINDS = ("training", "pretraining", "fine-tuning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "few.h5"
    rng = np.random.default_rng(3)
    write_paths(file, draw_clusters(16, 10, 2.5e-3, rng, ClusterConfig()))
    return file


@pytest.fixture(scope="module")
def whole(data):
    """From a kind to its configuration, and what it leaves when nothing stops it."""

    @functools.cache
    def run(kind):
        if kind == "pretraining":
            config = pretrain_config(16)
        elif kind == "training":
            config = predictor_config([data])
        else:
            preset = data.parent / "preset"
            run("training")[1].model.save_to_preset(preset)
            config = predictor_config([data], init=str(preset), mode="lora")
        return config, train(config, data.parent / kind, verbose=0)

    return run


def check_resumed(folder, config, expected):
    """What is left of a killed training ends as one that was not: bit for bit."""
    resumed = train(config, folder, verbose=0)
    assert losses(resumed) == losses(expected)
    for name in ("best_step", "validation_loss_db", "validation_loss_last_db"):
        assert resumed.outcome.get(name) == expected.outcome.get(name)
    for got, want in zip(weights(resumed.model), weights(expected.model), strict=True):
        np.testing.assert_array_equal(got, want)
    assert not list(folder.rglob(".tmp-*"))


def kill(config, folder, step, call):
    settings = type(config).__name__, config.to_dict(), str(folder)
    assert kills.killed_run(step, call, kills.train_model, *settings), (step, call)


def test_a_killed_training_ends_as_one_that_was_not(tmp_path, data, whole):
    """Killed in the middle of a pass, in a folder where another training failed early."""
    config, expected = whole("training")
    folder = tmp_path / "killed"
    with pytest.raises(ValueError, match="too short"):
        train(predictor_config([data], num_history=40), folder, verbose=0)
    kill(config, folder, "keras:Model.train_on_batch", 8)
    check_resumed(folder, config, expected)


class Stop(Exception):
    """The end of a training in this process, where a kill costs a process."""


def test_a_stopped_pretraining_survives_a_damaged_checkpoint(tmp_path, whole, monkeypatch):
    config, expected = whole("pretraining")
    folder = tmp_path / "stopped"
    step, calls = keras.Model.train_on_batch, []

    def stop(*args, **options):
        calls.append(step)
        if len(calls) == 13:
            raise Stop
        return step(*args, **options)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(keras.Model, "train_on_batch", stop)
        train(config, folder, verbose=0)
    path = newest(folder)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    check_resumed(folder, config, expected)


# Steps taken, batches counted, pieces kept, and files that get their names.
STEPS = {
    "keras:Model.train_on_batch": 12,
    "lwmt_sionna.training.loop:Checkpoints.save": 2,
    "lwmt_sionna.runs.store:Store.put_file": 2,
    "lwmt_sionna.runs.store:Store.put": 2,
    "lwmt_sionna.runs.records:os.replace": 5,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_four_killed_trainings_end_as_one_that_was_not(tmp_path, whole, kind):
    """Killed at random steps."""
    config, expected = whole(kind)
    for number, (step, call) in enumerate(kills.draw_steps(STEPS, 4, seed=len(kind))):
        folder = tmp_path / f"killed_{number}"
        kill(config, folder, step, call)
        check_resumed(folder, config, expected)


def test_a_finished_training_stays_finished(data, whole, caplog):
    config, first = whole("training")
    folder = data.parent / "training"
    log = (folder / "history.csv").read_text()
    assert len(log.splitlines()) == 5
    caplog.set_level("INFO", "lwmt_sionna")
    again = train(config, folder, verbose=0)
    assert "finished already" in caplog.text
    assert again.outcome == first.outcome
    assert (folder / "history.csv").read_text() == log
    for got, want in zip(weights(again.model), weights(first.model), strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="another configuration"):
        train(dataclasses.replace(config, seed=9), folder, verbose=0)
    content = data.read_bytes()
    write_paths(data, draw_clusters(16, 10, 2.5e-3, np.random.default_rng(5), ClusterConfig()))
    with pytest.raises(ValueError, match="inputs"):
        train(config, folder, verbose=0)
    data.write_bytes(content)


def test_a_training_may_end_at_its_last_checkpoint(tmp_path, monkeypatch):
    config = pretrain_config(16)
    with pytest.raises(ValueError, match="no checkpoint to stop at"):
        train(config, tmp_path / "none", stop=True, verbose=0)
    saved = []

    def stopped(self, state, save=Checkpoints.save):
        save(self, state)
        saved.append(state)
        raise Stop

    monkeypatch.setattr(Checkpoints, "save", stopped)
    with pytest.raises(Stop):
        train(config, tmp_path / "begun", verbose=0)
    monkeypatch.undo()
    for _ in range(2):
        ended = train(config, tmp_path / "begun", stop=True, verbose=0)
        for weight, kept in zip(weights(ended.model), saved[0].kept, strict=True):
            np.testing.assert_array_equal(weight, kept)
    assert len(saved) == 1


def test_inputs_are_files_and_folders_of_presets(data):
    config = dataclasses.replace(predictor_config([data]), init="small", mode="full")
    files = input_files(config)
    assert files[data.stem] == data
    assert (files["small"] / "model.weights.h5").is_file()


def test_stops_are_exact_bit_for_bit(tmp_path):
    """Moments, averages, the best weights and the schedule come back: two halves are one whole."""

    def at(step):
        def stop(epoch, logs):
            if 5 * (epoch + 1) == step:
                raise Stop

        return keras.callbacks.LambdaCallback(on_epoch_end=stop)

    batches = [3.0] * 10 + [-4.0] * 10

    def error(weight):
        return float(np.abs(weight - 1.7).mean())

    whole = Lesson(tmp_path / "whole", batches, error, ema_momentum=0.5)
    expected = whole.train()
    for step in (5, 15):
        with pytest.raises(Stop):
            Lesson(tmp_path / "half", batches, error, ema_momentum=0.5).train(at(step))
    half = Lesson(tmp_path / "half", batches, error, ema_momentum=0.5)
    state = half.train()
    np.testing.assert_array_equal(value(half.model), value(whole.model))
    np.testing.assert_array_equal(state.kept[0], expected.kept[0])
    assert state.notes["outcome"]["best_step"] == 10
    rows = [row["step"] for row in state.notes["outcome"]["history"]]
    assert rows == list(range(1, 21))


def test_a_training_that_makes_it_worse_keeps_the_start_and_says_so(tmp_path, caplog):
    line = Lesson(tmp_path, [5.0] * 10, lambda weight: float(weight.max()), ema_momentum=0.0)
    state = line.train()
    np.testing.assert_array_equal(state.kept[0], np.ones((1, 2)))
    assert state.notes["outcome"]["best_step"] == 0
    assert state.notes["outcome"]["validation_loss_db"] == 1.0
    assert "nothing better" in caplog.text


def test_callbacks_see_epochs_and_may_end_the_training(tmp_path):
    seen = []

    class Early(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, sorted(logs)))
            self.model.stop_training = epoch == 1

    line = Lesson(tmp_path, [1.5] * 20, lambda weight: float(weight.max()))
    state = line.train(Early())
    steps = [0, 1, 2, 3, 4]
    names = ["loss", "val_loss"]
    assert seen == [*steps, (0, names), *steps, (1, names)]
    assert state.notes["step"] == 10 and state.notes["finished"]


def test_a_step_without_a_finite_gradient_changes_little_and_is_counted(tmp_path, caplog):
    batches = [1.5, 1.5, np.nan, 1.5, np.inf, 1.5]
    line = Lesson(tmp_path, batches, checkpoint_every=1)
    history = line.train().notes["outcome"]["history"]
    assert np.isfinite(value(line.model)).all()
    assert [np.isfinite(row["loss"]) for row in history] == [True, True, False, True, False, True]
    assert "step 3" in caplog.text and "step 5" in caplog.text
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_loss_that_stays_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    line = Lesson(tmp_path, [1.5] * 12 + [np.nan] * 20)
    with pytest.raises(NotFiniteError, match=r"10 steps in a row.*step 22.*of step 10 "):
        line.train()
    assert Checkpoints(line.store).restore(1).notes["step"] == 10


def test_averaged_weights_are_the_average_and_go_back(tmp_path):
    batches = list(np.linspace(2, 3, 12))
    seen = []
    line = Lesson(tmp_path, batches, ema_momentum=0.8, weight_decay=0.0)
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(value(line.model))
    )
    state = line.train(look)
    average = seen[0]
    for weight in seen[1:]:
        average = 0.8 * average + 0.2 * weight
    with averaged_weights(line.optimizer):
        np.testing.assert_allclose(value(line.model), average, rtol=1e-5)
    np.testing.assert_array_equal(value(line.model), seen[-1])
    np.testing.assert_allclose(state.kept[0], average, rtol=1e-5)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "note", "no note"])
def test_of_two_checkpoints_the_newest_whole_one_counts(tmp_path, damage, caplog):
    line = Lesson(tmp_path, [1.5] * 10)
    line.train()
    path = max(tmp_path.glob("*.npz"), key=lambda p: p.stat().st_mtime_ns)
    content = bytearray(path.read_bytes())
    note = path.with_suffix(".json")
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-40])
    elif damage == "missing":
        path.unlink()
    elif damage == "note":
        note.write_text(note.read_text()[:-20])
    else:
        note.unlink()
    state = Checkpoints(line.store).restore(1)
    assert state.notes["step"] == 5
    assert damage == "no note" or path.stem in caplog.text
    # Where both are damaged, everything is computed again.
    for other in tmp_path.glob("*.npz"):
        other.write_bytes(b"nothing")
    assert Checkpoints(line.store).restore(1) is None
    assert Lesson(tmp_path, [1.5] * 10).train().notes["step"] == 10


def test_another_model_does_not_take_the_checkpoint(tmp_path):
    Lesson(tmp_path, [1.0] * 5).train()
    with pytest.raises(ValueError, match="another model"):
        Lesson(tmp_path, [1.0] * 10, ema_momentum=0.9).train()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"weight_decay": "0.01"}, "weight_decay='0.01'"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"ema_momentum": 1.0}, "ema_momentum=1.0"),
        ({"precision": "float8"}, "precision='float8'"),
    ],
)
def test_wrong_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        OptimizationConfig(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_follows_full_precision(tmp_path, precision):
    """Weights stay in float32, and losses in step with those of full precision."""
    expected = train(pretrain_config(8), tmp_path / "full", verbose=0)
    trained = train(pretrain_config(8, precision=precision), tmp_path / "mixed", verbose=0)
    assert trained.model.backbone.compute_dtype == precision.removeprefix("mixed_")
    assert {v.dtype for v in trained.model.trainable_variables} == {"float32"}
    np.testing.assert_allclose(losses(trained), losses(expected), rtol=0.05, atol=0.2)


@pytest.mark.slow
def test_grids_of_several_shapes_share_one_training(tmp_path):
    """One program each, one set of weights and moments: both learn, and a stop is exact."""
    config = pretrain_config(12)
    source = dataclasses.replace(config.source, grids=((6, 4, 4), (4, 2, 8)))
    config = dataclasses.replace(config, source=source)
    whole = train(config, tmp_path / "run", verbose=0)
    assert np.mean(losses(whole)[-4:]) < np.mean(losses(whole)[:4])
    newest(tmp_path / "run").unlink()
    same = train(config, tmp_path / "run", verbose=0)
    np.testing.assert_allclose(losses(same), losses(whole), rtol=1e-6)
