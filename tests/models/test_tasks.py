"""Tasks over a backbone: what heads get, what has no effect, what is trained and what is kept."""

import keras
import numpy as np
import pytest

from lwmt_sionna.data import (
    ClusterConfig,
    PlanarArray,
    beam_power,
    dft_codebook,
    draw_clusters,
    subcarrier_frequencies,
    synthesize,
)
from lwmt_sionna.layers import AngleReadout, Readout
from lwmt_sionna.models import (
    BeamPredictor,
    ChannelEstimator,
    LineOfSightClassifier,
    Localizer,
    LWMTBackbone,
    MaskedChannelModel,
    TaskModel,
    presets,
)
from lwmt_sionna.ops import EnergyRouting, Neighborhood

TIME, ANT, BAND = 3, 8, 4
UNITS = (1e-3, 0.25, 1e-7)


def make_backbone(class_token=False, **settings):
    neighborhood = Neighborhood(window=1, corridor=1, class_token=class_token)
    settings = {"patch": (2, 2), "neighborhood": neighborhood, **settings}
    return LWMTBackbone(width=8, depth=1, num_heads=2, mlp_ratio=2, **settings)


def make_masked(**settings):
    return MaskedChannelModel(make_backbone(**settings), local_scale=True, local_motion=True)


def eager(model, moved=0.0):
    """Built, operation by operation: compiling costs more than these tests."""
    model.run_eagerly = True
    model.build()
    return move(model, moved)


def move(model, by):
    """Changes the weights at random: zeros hide what is before them."""
    for weight in model.trainable_weights if by else ():
        weight.assign(weight + by * keras.random.normal(weight.shape))
    return model


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def channels(rng, *shape):
    parts = rng.standard_normal((*shape, 2)).astype(np.float32)
    return parts.view(np.complex64)[..., 0]


TASKS = {
    "sight": lambda core: LineOfSightClassifier(core),
    "beams": lambda core: BeamPredictor(core, num_beams=5, num_horizons=2),
    "angles": lambda core: BeamPredictor(core, num_beams=8, num_horizons=1, num_angles=4),
    "channel": lambda core: ChannelEstimator(core),
    "own": lambda core: TaskModel(core, Readout(2), loss="mse", metrics=["mae"]),
}
LABELS = {
    "sight": np.ones((2, 1)),
    "beams": np.array([[0, 1, 4], [2, 2, 3]]),
    "angles": np.array([[0, 7], [3, 3]]),
}


@pytest.mark.parametrize("name", TASKS)
def test_preset_round_trip(name, rng, tmp_path):
    core = make_masked() if name in ("sight", "channel") else make_backbone(class_token=True)
    task = eager(TASKS[name](core), moved=0.3)
    h = channels(rng, 2, TIME, ANT, BAND)
    x = {"h": h, "mask": h.real > 0.5} if name == "channel" else h
    expected = numpy(task(x))
    task.save_to_preset(tmp_path / "preset")
    again = type(task).from_preset(tmp_path / "preset")
    again.run_eagerly = True
    np.testing.assert_allclose(numpy(again(x)), expected, atol=1e-4)
    found = LWMTBackbone.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(numpy(found.embed.kernel), numpy(task.backbone.embed.kernel))
    # Loss and metrics come with the task.
    again.compile(run_eagerly=True)
    assert np.isfinite(again.test_on_batch(x, LABELS.get(name, expected))).all()


def test_untrained_tasks_know_directions_alone(rng):
    h = channels(rng, 2, TIME, ANT, BAND)
    found = {n: numpy(eager(TASKS[n](make_backbone()))(h)) for n in TASKS if n != "channel"}
    np.testing.assert_array_equal(found["sight"], np.zeros((2, 1)))
    np.testing.assert_array_equal(found["beams"], np.zeros((2, 3, 5)))
    assert found["angles"].shape == (2, 2, 8) and np.all(found["angles"].max(axis=-1) < 1e-2)
    np.testing.assert_array_equal(found["own"], np.zeros((2, 2)))


@pytest.mark.parametrize("core", [make_backbone, make_masked])
def test_a_factor_has_no_effect_and_forms_agree(core, rng):
    task = eager(BeamPredictor(core(), 5, 1), moved=0.3)
    h = channels(rng, 2, TIME, ANT, BAND)
    expected = numpy(task(h))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(numpy(task(1e-6j * h)), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(numpy(task(np.stack([h.real, h.imag], -1))), expected, atol=1e-4)
    sionna = np.swapaxes(h, 1, 2).reshape(1, 2, 1, 1, ANT, TIME, BAND)
    np.testing.assert_allclose(numpy(task(sionna))[0, :, 0, 0], expected, atol=1e-4)


def test_the_level_is_what_the_head_knows_of_path_loss(rng):
    h = 1e-5 * channels(rng, 3, TIME, ANT, BAND)  # 100 dB of path loss
    h[2] = 0.0
    relative, absolute = (
        eager(TaskModel(make_backbone(), Readout(1), "mse", reference_db=reference))
        for reference in (None, -100.0)
    )
    absolute.set_weights(relative.get_weights())
    one, two, weaker = relative.embed(h), absolute.embed(h), absolute.embed(0.1j * h)
    assert one.shape == (3, ANT // 2, BAND // 2, 2 * 8 + 1) and np.isfinite(weaker).all()
    # Embeddings are as they were: powers alone have another reference, here that of the mean.
    np.testing.assert_allclose(two[..., :-1], one[..., :-1], atol=1e-3)
    power = np.mean(2 ** two[:2, ..., -1], axis=(1, 2))
    gain = 1e10 * np.mean(np.abs(h[:2]) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(power, gain, rtol=1e-3)
    # 20 dB are two powers of ten; levels count those of two.
    lower = two[:2, ..., -1] - 2.0 * np.log2(10)
    np.testing.assert_allclose(weaker[:2, ..., -1], lower, atol=1e-3)


def test_features_computed_once_are_those_of_the_call(rng):
    task = eager(TASKS["beams"](make_masked()), moved=0.3)
    h = channels(rng, 5, TIME, ANT, BAND)
    features = task.embed(h, batch_size=2)
    np.testing.assert_allclose(numpy(task.head(features)), numpy(task(h)), atol=1e-4)


def test_heads_learn_what_angles_tell(rng):
    beams = np.arange(16) % 4
    phase = np.pi * np.multiply.outer(beams / 2 - 0.75, np.arange(ANT))[:, None, :, None]
    turn = rng.uniform(-np.pi, np.pi, (16, 1, 1, 1))
    h = np.exp(1j * (phase + turn) + np.zeros((TIME, 1, BAND))).astype(np.complex64)
    task = eager(BeamPredictor(make_masked(), 4, 1))
    labels = beams[:, None].repeat(2, axis=1)
    before = {w.path: numpy(w) for w in task.backbone.weights}
    optimizer = keras.optimizers.Adam(0.01)
    task.fit_head(task.embed(h), labels, optimizer=optimizer, epochs=60, verbose=0)
    np.testing.assert_array_equal(numpy(task(h)).argmax(axis=-1), labels)
    assert all(np.array_equal(numpy(w), before[w.path]) for w in task.backbone.weights)


# The embedding of hidden tokens has no part in a task.
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize("mode", ["frozen", "lora", "full"])
def test_what_is_trained_and_what_stays(mode, rng):
    task = eager(LineOfSightClassifier(make_backbone()), moved=0.1)
    if mode == "frozen":
        task.backbone.trainable = False
    elif mode == "lora":
        task.backbone.enable_lora(rank=1)
    task.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    before = {w.path: numpy(w) for w in task.weights}
    for _ in range(2):  # the first step of low-rank corrections moves one of their factors alone
        task.train_on_batch(channels(rng, 4, TIME, ANT, BAND), np.array([[0], [1], [1], [0]]))
    moved = {w.path for w in task.weights if np.any(numpy(w) != before[w.path])}
    ours = {w.path for w in task.masked.weights}
    assert moved - ours == {w.path for w in task.head.weights}
    assert bool(moved & ours) == (mode != "frozen")
    assert all("lora" in path for path in moved & ours) == (mode != "full")
    # The head of masked modelling has no part in the task.
    assert not moved & {w.path for w in task.masked.head.weights}


@pytest.mark.parametrize("core", [make_backbone, make_masked])
def test_an_untrained_estimator_is_its_start(core, rng):
    routing = EnergyRouting(2, 2) if core is make_backbone else None
    estimator = eager(ChannelEstimator(core(routing=routing)))
    h = channels(rng, 2, TIME, ANT, BAND)
    mask = rng.uniform(size=h.shape) < 0.6
    x = {"h": np.where(mask, np.nan, 1e-5 * h).astype(np.complex64), "mask": mask}
    expected = numpy(estimator.start(x))
    assert expected.dtype == np.complex64
    np.testing.assert_array_equal(numpy(estimator(x)), expected)
    sionna = np.swapaxes(x["h"], 1, 2).reshape(2, 1, 1, 1, ANT, TIME, BAND)
    found = numpy(estimator({"h": sionna, "mask": mask}))
    np.testing.assert_allclose(
        np.swapaxes(found.reshape(2, ANT, TIME, BAND), 1, 2), expected, atol=1e-9
    )
    # Once trained it is another one, of the same form; its start may be computed before.
    trained = numpy(move(estimator, 0.1)(x))
    assert trained.shape == h.shape and np.abs(trained - expected).max() > 1e-8
    given = numpy(estimator({**x, "start": expected}))
    np.testing.assert_allclose(given, trained, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_an_estimator_learns_what_its_start_misses(rng):
    """That pilots are half as strong as channels."""
    h = np.ascontiguousarray(np.broadcast_to(channels(rng, 8, 1, 1, 1), (8, TIME, ANT, BAND)))
    mask = np.broadcast_to(np.arange(ANT) % 2 == 1, h.shape[:3])[..., None]
    estimator = eager(ChannelEstimator(make_backbone()))
    x = {"h": 0.5 * h, "mask": mask}
    x["start"] = numpy(estimator.start(x))
    estimator.compile(keras.optimizers.Adam(0.03), run_eagerly=True)
    before = estimator.test_on_batch(x, h, return_dict=True)["loss"]
    for _ in range(12):
        estimator.train_on_batch(x, h)
    assert estimator.test_on_batch(x, h, return_dict=True)["loss"] < before - 3.0  # decibels


def test_a_head_of_ones_own(rng, tmp_path):
    """Layers of Keras for images, with a loss object."""
    layers = keras.layers
    head = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(2)])
    task = eager(TaskModel(make_backbone(), head, loss=keras.losses.Huber(), metrics=["mae"]))
    h = channels(rng, 2, TIME, ANT, BAND)
    task.save_to_preset(tmp_path)
    again = eager(TaskModel.from_preset(tmp_path))
    np.testing.assert_allclose(numpy(again(h)), numpy(task(h)), atol=1e-5)
    again.compile()
    assert isinstance(again.loss, keras.losses.Huber)


def test_physical_positions_come_with_the_channels(rng):
    backbone = make_backbone(position="rotary_grid", position_units=UNITS)
    task = eager(LineOfSightClassifier(backbone), moved=0.3)
    h = channels(rng, 2, TIME, ANT, BAND)
    period, spacing = np.float32([1e-3, 4e-3]), np.float32([1e6, 1e6])
    x = {"h": h, "sampling_period": period, "subcarrier_spacing": spacing}
    found = numpy(task(x))
    slow = numpy(task({**x, "sampling_period": 0 * period + 1e-3}))
    assert np.abs(slow - found)[1] > 1e-5 > np.abs(slow - found)[0]
    features = task.embed(x, batch_size=1)
    np.testing.assert_allclose(numpy(task.head(features)), found, atol=1e-5)
    task.compile(run_eagerly=True)
    assert np.isfinite(task.test_on_batch(x, np.ones((2, 1)))[0])
    with pytest.raises(ValueError, match=r"Physical positions need.*`subcarrier_spacing`"):
        task(h)


def test_wrong_arguments_are_named(rng):
    backbone = make_backbone()
    h = channels(rng, 2, TIME, ANT, BAND)
    sight, estimator = (eager(c(backbone)) for c in (LineOfSightClassifier, ChannelEstimator))
    for call, message in (
        (lambda: TaskModel(backbone, "dense", "mse"), "head='dense'"),
        (lambda: ChannelEstimator("base"), "must be an LWMTBackbone. Received: backbone=base"),
        (lambda: BeamPredictor(backbone, num_beams=1), "num_beams=1"),
        (lambda: Localizer(backbone), "must be a LineOfSightClassifier. Received: sight=<LWMT"),
        (lambda: Localizer(sight, array_shape=(2, 4, 1)), r"array_shape=\(2, 4, 1\)"),
        (
            lambda: Localizer(LineOfSightClassifier(backbone, array_shape=(1, 4, 2))),
            r"array_shape=\(1, 4, 2\)",
        ),
        (lambda: Localizer(sight)(h), "needs `subcarrier_spacing`"),
        (lambda: Localizer(sight)({"h": h, "subcarrier_spacing": np.ones(2)}), "No place is known"),
        (lambda: Localizer(sight).fit_head(h, h, epochs=3), "epochs"),
        (lambda: Readout(0), "units=0"),
        (lambda: sight(h[0]), r"h.shape=\(3, 8, 4\)"),
        (lambda: sight({"h": h, "mask": h.real > 0}), "keys=.*'mask'"),
        (lambda: sight({"channel": h}), "keys=.*'channel'"),
        (lambda: sight.embed({"channel": h}), "keys=.*'channel'"),
        (lambda: estimator(h), r"mask.shape=\(\)"),
        (lambda: estimator({"h": h, "mask": h.real[..., :3] > 0}), r"mask.shape=\(2, 3, 8, 3\)"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_head_of_other_features_reads_them_alone(rng):
    task = LineOfSightClassifier(make_masked())
    features = np.tile(rng.standard_normal((12, 1, 1, 3)).astype(np.float32), (1, 2, 2, 1))
    labels = features[:, 0, 0, :1] > 0
    task.fit_head(features, labels, keras.optimizers.Adam(0.05), epochs=40, verbose=0)
    answers = numpy(task.head(features))
    assert ((answers > 0) == labels).mean() > 0.8


def test_the_head_of_an_estimator_is_found_at_once(rng):
    """Its sums tell the errors of the model with the head that they give."""
    estimator = eager(ChannelEstimator(make_masked()))
    truth = 1e-3 * channels(rng, 6, TIME, ANT, BAND)
    mask = rng.random((6, TIME, ANT, BAND)) < 0.5
    inputs = {"h": truth + 1e-4 * channels(rng, *truth.shape), "mask": mask}

    def errors(h):
        square = np.sum(np.abs(numpy(h) - truth) ** 2, axis=(1, 2, 3))
        return square / np.sum(np.abs(truth) ** 2, axis=(1, 2, 3))

    sums = estimator.embed(inputs, truth)
    np.testing.assert_allclose(sums.error, errors(estimator.start(inputs)), rtol=1e-3)
    estimator.fit_head(sums, ridge=1e-6)
    found = errors(estimator(inputs))
    np.testing.assert_allclose(sums.errors(sums.solve(1e-6)), found, rtol=1e-2)
    assert np.log(found).mean() < np.log(sums.error).mean() - 0.05
    # The same on patches: what the backbone would see.
    patches = estimator.embed(inputs | {"start": estimator.start(inputs)}, truth, embeddings=False)
    assert patches.gram.shape == (6, 9, 9)
    np.testing.assert_allclose(patches.error, sums.error, rtol=1e-4)


def test_beams_learned_on_one_side_are_known_on_the_other():
    """Paths at the angles of some patches teach the beams of all of them."""
    paths = draw_clusters(
        200, 1, 5e-3, np.random.default_rng(1), ClusterConfig(num_clusters=(1, 1), num_rays=(1, 1))
    )
    array = PlanarArray(num_cols=16)
    h = synthesize(paths, array, subcarrier_frequencies(4, 540e3))
    beams = beam_power(h, dft_codebook(array, 32)).argmax(axis=-1)
    bins = np.abs(np.fft.fft(h[:, 0, :, 0], axis=1) / np.abs(h[:, 0, :1, 0])) ** 2 / 16
    features = np.log10(1e-2 + bins).reshape(-1, 4, 1, 4).astype(np.float32)
    seen = beams[:, 0] < 16
    head, loss = AngleReadout(4, 32), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    task = TaskModel(make_masked(), head, loss)
    task.fit_head(
        features[seen],
        beams[seen],
        keras.optimizers.Adam(0.02),
        epochs=25,
        batch_size=16,
        verbose=0,
    )
    found = numpy(task.head(features[~seen]))[:, 0].argmax(axis=-1)
    away = np.abs(found - beams[~seen, 0])
    assert np.mean(np.minimum(away, 32 - away) <= 1) > 0.9
    # Untrained, the strongest direction is the answer, for all snapshots.
    task = eager(BeamPredictor(make_masked(), num_beams=32, num_horizons=1, num_angles=8))
    answers = numpy(task(h[:8])).argmax(axis=-1)
    np.testing.assert_array_equal(answers, np.repeat(beams[:8], 2, axis=1))
    # With what is predicted it is the strongest direction there, ahead.
    answers = numpy(task({"h": h[:8], "predicted": h[8:16]})).argmax(axis=-1)
    np.testing.assert_array_equal(answers, np.stack([beams[:8, 0], beams[8:16, 0]], axis=1))
    features = task.embed({"h": h[:8], "predicted": h[8:16]}, batch_size=3)
    np.testing.assert_array_equal(numpy(task.head(features)).argmax(axis=-1), answers)
    with pytest.raises(ValueError, match=r"shape \(8, 1, 16, 4, 2\).*shape=\(8, 2, 16, 4, 2\)"):
        task({"h": h[:8], "predicted": h[:8].repeat(2, axis=1)})
    with pytest.raises(ValueError, match="num_angles=None"):
        eager(BeamPredictor(make_masked(), 32, 1))({"h": h[:8], "predicted": h[:8]})
    with pytest.raises(ValueError, match="num_angles=4, units=30"):
        AngleReadout(4, 30)
    with pytest.raises(ValueError, match=r"\[batch, 4, delay, width\]"):
        head(features[:, :2])


def walkers(rng, count, bandwidth=BAND * 2e6):
    """Users in sight around a base station, on one side of it: places and what it sees of them."""
    places = np.stack([rng.uniform(10, 60, count), rng.uniform(-60, 60, count)], axis=1)
    distance = np.linalg.norm(places, axis=1)
    turns = np.multiply.outer(places[:, 1] / distance, np.arange(ANT) / 2)
    delays = np.multiply.outer(distance / 299_792_458.0, np.arange(BAND) / BAND * bandwidth)
    h = np.exp(2j * np.pi * (turns[:, None, :, None] - delays[:, None, None]))
    h = np.repeat(h, TIME, axis=1) / distance[:, None, None, None]
    spacing = np.full(count, bandwidth / BAND, np.float32)
    return places, {"h": h.astype(np.complex64), "subcarrier_spacing": spacing}


def test_a_localizer_places_users_by_others_and_keeps_them(rng, tmp_path):
    sight = eager(LineOfSightClassifier(make_masked()))
    sight.head.answers.bias.assign([9.0])  # all are in sight
    localizer = eager(Localizer(sight))
    places, x = walkers(rng, 24)
    known = {name: value[:12] for name, value in x.items()}
    asked = {name: value[12:] for name, value in x.items()}
    features = localizer.embed(known)
    assert features.shape == (12, 3) and (features[:, 2] > 0.99).all()
    # An eighth of a bin is five metres.
    np.testing.assert_allclose(features[:, 0], np.linalg.norm(places[:12], axis=1), atol=3.0)
    localizer.fit_head(features, places[:12])
    found = numpy(localizer(asked))
    assert np.median(np.linalg.norm(found - places[12:], axis=1)) < 8.0
    localizer.compile(run_eagerly=True)
    np.testing.assert_allclose(localizer.predict(asked, verbose=0), found, atol=1e-3)
    localizer.save_to_preset(tmp_path)
    again = eager(Localizer.from_preset(tmp_path))
    np.testing.assert_allclose(numpy(again(asked)), found, atol=1e-3)
    # Sionna's form has the links in front.
    sionna = np.swapaxes(asked["h"], 1, 2).reshape(12, 1, 1, 1, ANT, TIME, BAND)
    places = numpy(again({**asked, "h": sionna}))
    np.testing.assert_allclose(places[:, 0, 0, 0], found, atol=1e-3)
    again.fit_head(features[:1], np.float32([[-5.0, 0.0]]))
    assert (numpy(again(asked))[:, 0] < 0).all() and (
        again.predict(asked, verbose=0)[:, 0] < 0
    ).all()


def test_a_task_may_have_its_backbone_from_a_shipped_preset(rng, tmp_path, monkeypatch):
    task = eager(LineOfSightClassifier(MaskedChannelModel.from_preset("tiny")), moved=0.0)
    move(task.head, 0.3)
    x = {
        "h": channels(rng, 2, TIME, ANT, ANT),
        "sampling_period": np.full(2, 5e-3, np.float32),
        "subcarrier_spacing": np.full(2, 540e3, np.float32),
    }
    expected = numpy(task(x))
    task.save_to_preset(tmp_path / "whole")
    task.save_to_preset(tmp_path / "head", backbone="tiny")
    sizes = [(tmp_path / n / "model.weights.h5").stat().st_size for n in ("head", "whole")]
    assert sizes[0] < sizes[1] / 3
    again = eager(LineOfSightClassifier.from_preset(tmp_path / "head"))
    np.testing.assert_allclose(numpy(again(x)), expected, atol=1e-5)
    move(task.masked, 0.1)
    with pytest.raises(ValueError, match=r"backbone is another one\. Received: backbone=tiny"):
        task.save_to_preset(tmp_path / "other", backbone="tiny")
    assert not (tmp_path / "other").exists()
    digest = presets.preset_digest
    monkeypatch.setattr(presets, "preset_digest", lambda name: digest(name)[::-1])
    with pytest.raises(ValueError, match="made for another `tiny` than is shipped"):
        LineOfSightClassifier.from_preset(tmp_path / "head")
