"""Channels of any unit, type, grid and number, and presets that were damaged."""

import json
import shutil

import h5py
import keras
import numpy as np
import pytest
from keras import ops

from lwmt_sionna import ChannelPredictor, LWMTBackbone, MaskedChannelModel, Neighborhood
from lwmt_sionna.models import ChannelEncoder, LogNormalizedError, normalized_mean_squared_error
from lwmt_sionna.models.normalization import unit_power
from lwmt_sionna.models.presets import preset_folder

NUM_SNAPSHOTS = 10


def make_backbone(**settings):
    neighborhood = Neighborhood(window=1, corridor=1, time_offsets=(-1, 1))
    options = {
        "width": 8,
        "depth": 1,
        "num_heads": 2,
        "patch": (3, 4),
        "neighborhood": neighborhood,
    }
    return LWMTBackbone(**(options | settings))


def make_predictor(**settings):
    options = {"num_horizons": 2, "context": 3, "experts": ((6, 2),)}
    model = ChannelPredictor(make_backbone(), **(options | settings))
    model.build((None, NUM_SNAPSHOTS, 8, 8, 2))
    model.head.kernel.assign(0.05 * keras.random.normal(model.head.kernel.shape, seed=3))
    return model


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


def waves(rng, batch=4, num_paths=3, size=8):
    """Histories without noise; one more path is born amid each."""
    t, m, k = np.meshgrid(np.arange(NUM_SNAPSHOTS), *2 * [np.arange(size)], indexing="ij")
    h = 0
    for path in range(num_paths + 1):
        shape = (batch, 1, 1, 1)
        turns = 0.2 * rng.uniform(-1, 1, shape) * t + rng.uniform(size=shape) * m
        wave = np.exp(2j * np.pi * (turns + rng.uniform(size=shape) * k))
        h = h + 0.7**path * wave * (t >= 6 * (path == num_paths))
    return h


@pytest.mark.parametrize("num_paths", [0, 4])
def test_clean_histories_in_other_units_have_the_same_future(rng, num_paths):
    """From -120 dB to +600 dB; single precision rounds each of them another way."""
    model = make_predictor(num_paths=num_paths)
    h = waves(rng)
    reference = np.asarray(model(h.astype(np.complex64)))
    for factor in (1e-6, 1e30, 3.0, 2.0**-100):
        found = np.asarray(model((factor * h).astype(np.complex64))).astype(complex) / factor
        error = np.linalg.norm(found - reference) / np.linalg.norm(reference)
        assert error == 0 if factor == 2.0**-100 else error < 3e-3  # -50 dB


@pytest.mark.parametrize("array_shape", [(1, 16, 1), (4, 4, 1), (2, 4, 2)])
def test_histories_without_noise_have_their_future(array_shape):
    """What a user tries first, with every kind of expert: most bins hold nothing, or rounding."""
    model = ChannelPredictor(
        make_backbone(),
        num_horizons=2,
        context=3,
        experts=((6, 2),),
        num_paths=4,
        whole_experts=((10, 4), (8, 2)),
        least_squares=((10, 4),),
        backtest=2,
        array_shape=array_shape,
    )
    t, m, k = np.meshgrid(np.arange(14), np.arange(16), np.arange(24), indexing="ij")

    def wave(*turns):
        return np.exp(2j * np.pi * (turns[0] * t + turns[1] * m - turns[2] * k))

    h = [np.ones(t.shape), wave(0.05, 0.1, 0.07), wave(0.25, 0.25, 0.125), np.zeros(t.shape)]
    h.append(wave(0.05, 0.1, 0.07) + 0.5 * wave(-0.1, 0.1, 0.2))
    h = np.stack(h).astype(np.complex64)
    error = np.asarray(model(h[:, :12])) - h[:, 12:]
    error = np.linalg.norm(error, axis=(2, 3)) / np.maximum(
        np.linalg.norm(h[:, 12:], axis=(2, 3)), 1
    )
    np.testing.assert_array_less(error, 1e-2)  # -40 dB


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_magnitude_has_unit_power(rng, dtype):
    exponents = (-30, -20, 0, 15, 37) if dtype == "float32" else (-300, -37, 0, 37, 300)
    x = rng.standard_normal((5, 2, 3, 4, 2)) * 10.0 ** np.reshape(exponents, (5, 1, 1, 1, 1))
    x = np.concatenate([x, 0 * x[:1]]).astype(dtype)
    unit, scale = (ops.convert_to_numpy(v) for v in unit_power(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(2 * np.mean(unit[:5] ** 2, axis=(1, 2, 3, 4)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(unit * scale, x, rtol=1e-5)
    assert scale[5] == 0 and not unit[5].any()


def test_integers_are_taken_for_what_they_are(predictor, rng):
    h = rng.integers(-2000, 2000, (1, NUM_SNAPSHOTS, 8, 8, 2)).astype(np.int16)
    expected = np.asarray(predictor(h.astype(np.float32)))
    found = np.asarray(predictor(h))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_answered_in_kind(predictor, rng, dtype):
    h = rng.standard_normal((2, NUM_SNAPSHOTS, 8, 8, 2))
    h[1, 4] = h[1, 3]
    half = ops.cast(ops.convert_to_tensor(h), dtype)
    found = predictor(half)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    expected = np.asarray(predictor(ops.cast(half, "float32")))
    error = np.linalg.norm(ops.convert_to_numpy(ops.cast(found, "float32")) - expected)
    assert error < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(NUM_SNAPSHOTS,), (1, NUM_SNAPSHOTS), (2, NUM_SNAPSHOTS - 1)])
def test_losses_of_other_histories_are_refused(predictor, shape):
    h = np.ones((2, NUM_SNAPSHOTS, 8, 8), np.complex64)
    with pytest.raises(ValueError, match=r"`arrived` must be bool \[batch, time\] = \(2, "):
        predictor(h, arrived=np.ones(shape, bool))


def test_what_did_not_arrive_may_be_anything(predictor, rng):
    h = waves(rng, batch=2).astype(np.complex64)
    arrived = np.ones((2, NUM_SNAPSHOTS), bool)
    arrived[1, [3, -1]] = False
    lost = ~arrived[..., None, None]
    expected = predictor(np.where(lost, 0, h), arrived=arrived)
    np.testing.assert_array_equal(predictor(np.where(lost, np.nan, h), arrived=arrived), expected)
    assert np.isfinite(np.asarray(expected)).all()


@pytest.mark.parametrize("num_horizons", [0, 3, 1.5, "2"])
def test_other_horizons_are_refused(predictor, num_horizons):
    with pytest.raises(ValueError, match=f"num_horizons={num_horizons!r}"):
        predictor(np.ones((1, NUM_SNAPSHOTS, 8, 8), np.complex64), num_horizons=num_horizons)


def test_no_links_have_no_future(predictor):
    for shape in ((0, NUM_SNAPSHOTS, 8, 8), (2, 0, 1, 1, 8, NUM_SNAPSHOTS, 8)):
        h = np.zeros(shape, np.complex64)
        assert np.asarray(predictor(h)).shape == predictor.compute_output_shape(shape)
    h = np.zeros((0, NUM_SNAPSHOTS, 8, 8, 2), np.float32)
    assert np.asarray(predictor(h)).shape == (0, 2, 8, 8, 2)
    assert ChannelEncoder(make_backbone(), per="snapshot")(h).shape == (0, NUM_SNAPSHOTS, 8)
    sionna = np.zeros((2, 0, 1, 1, 8, NUM_SNAPSHOTS, 8), np.complex64)
    assert predictor.embed(sionna, per="sequence").shape == (2, 0, 1, 1, 8)
    with pytest.raises(ValueError, match="num_ant=0"):
        predictor(np.zeros((1, NUM_SNAPSHOTS, 0, 8), np.complex64))


@pytest.mark.usefixtures("eagerly")
def test_patches_need_not_tile_the_grid(rng):
    model = make_predictor(local_motion=True)
    h = waves(rng, batch=1, size=7).astype(np.complex64)
    assert np.isfinite(np.asarray(model(h))).all()


def test_plain_calls_are_compiled_calls(predictor, rng):
    """The same numbers, from one program per shape, that follows weights and adapted layers."""
    h = waves(rng).astype(np.complex64)
    stacked = np.stack([h.real, h.imag], axis=-1)
    model = make_predictor()
    found = np.asarray(model(stacked))
    model.run_eagerly = True
    np.testing.assert_allclose(found, model(stacked), atol=1e-5)
    model.run_eagerly = False
    model.head.kernel.assign(0 * model.head.kernel)
    without = np.asarray(model(stacked))
    assert np.abs(without - found).max() > 1e-3
    model.backbone.enable_lora(rank=1)
    np.testing.assert_allclose(model(stacked), without, atol=1e-5)
    assert model.count_params() > predictor.count_params()


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="of PyTorch's compiler")
def test_compiled_by_pytorch(rng, monkeypatch):
    """The same numbers as an eager call, of any batch, with weights and gradients of the moment."""
    import torch

    from lwmt_sionna.ops import compiled

    made = []
    compile_piece = compiled._compile_piece
    monkeypatch.setattr(
        compiled, "_compile_piece", lambda *args: made.append(args) or compile_piece(*args)
    )
    model = make_predictor(num_paths=2, whole_experts=((6, 2),), backtest=2, aligned=True)
    program = torch.compile(model)
    h = (waves(rng) + 0.1 * rng.standard_normal((4, NUM_SNAPSHOTS, 8, 8))).astype(np.complex64)
    h[2, 5] = np.nan
    with torch.no_grad():
        expected = np.asarray(model(h))
        assert not made
        found = np.asarray(program(h))
        pieces = len(made)
        assert pieces > 5
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
        assert np.isnan(found[2]).all() and np.isfinite(found[[0, 1, 3]]).all()
        np.testing.assert_array_equal(program(h[:1]), found[:1])
        model.head.kernel.assign(0 * model.head.kernel)
        np.testing.assert_allclose(program(h[:1]), model(h[:1]), rtol=1e-3, atol=1e-3)
    gradients = []
    for call in (model, program):
        model.zero_grad()
        torch.view_as_real(call(h[:1])).square().sum().backward()
        gradients.append(np.asarray(model.head.kernel.value.grad))
    assert np.abs(gradients[0]).max() > 0
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-2, atol=1e-3)
    assert len(made) == pieces  # none of this was compiled anew


def test_gradients_pass_through_plain_calls(predictor, rng):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("of TensorFlow's tape")
    import tensorflow as tf

    h = waves(rng, batch=4)
    x = tf.constant(np.stack([h.real, h.imag], axis=-1), tf.float32)
    weights = predictor.trainable_variables
    found = []
    for options in ({}, {"training": True}):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(predictor(x, **options)))
        found.append(tape.gradient(loss, [w.value for w in weights]))
    assert sum(gradient is not None for gradient in found[0]) > 10
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def complex_targets(rng):
    y = rng.standard_normal((6, 2, 4, 4)) + 1j * rng.standard_normal((6, 2, 4, 4))
    return y.astype(np.complex64)


def test_complex_targets_count_whole(rng):
    y, guess = complex_targets(rng), complex_targets(rng)
    stacked = [np.stack([v.real, v.imag], axis=-1) for v in (y, guess)]
    loss = LogNormalizedError()
    np.testing.assert_allclose(loss(y, guess), loss(*stacked), rtol=1e-6)
    np.testing.assert_allclose(loss(y, stacked[1]), loss(*stacked), rtol=1e-6)
    np.testing.assert_allclose(
        normalized_mean_squared_error(y, guess), normalized_mean_squared_error(*stacked), rtol=1e-6
    )


@pytest.mark.usefixtures("eagerly")
def test_complex_targets_count_whole_in_evaluate_and_fit(rng):
    h, future = waves(rng, batch=4), waves(rng, batch=4)[:, :2]
    pairs = [v.astype(np.complex64) for v in (h, future)]
    stacked = [np.stack([v.real, v.imag], axis=-1) for v in pairs]
    model = make_predictor()
    model.compile("sgd", loss="mse", metrics=["mae"], jit_compile=False)
    found = [
        model.evaluate(x, y, batch_size=4, verbose=0)
        for x, y in (pairs, stacked, (stacked[0], pairs[1]), (pairs[0], stacked[1]))
    ]
    np.testing.assert_allclose(found, [found[1]] * 4, rtol=1e-5)
    losses = model.fit(*pairs, batch_size=4, verbose=0).history["loss"]
    assert losses[0] == pytest.approx(found[1][0], rel=1e-4)


def test_the_shape_of_an_array_is_used_or_refused(rng):
    """Weights serve any array, and paths are resolved by it."""
    planar = ChannelPredictor.from_preset("small", array_shape=(2, 4, 2))
    assert planar.transform.array_shape == (2, 4, 2)
    line = ChannelPredictor.from_preset("small")
    h = (rng.standard_normal((1, 16, 16, 4)) + 1j).astype(np.complex64)
    x = np.stack([h.real, h.imag], axis=-1)
    assert np.abs(planar.transform(x) - line.transform(x)).max() > 0.1
    with pytest.raises(ValueError, match="16 antennas"):
        planar(h[:, :, :8])
    assert ChannelPredictor.from_preset("paths", array_shape=(2, 4, 2)).physics.array_shape == (
        2,
        4,
        2,
    )
    with pytest.raises(ValueError, match="array_shape"):
        MaskedChannelModel.from_preset("paper", load_weights=False, array_shape=(2, 4, 2))


@pytest.fixture
def damaged(tmp_path):
    """A copy of the preset that is shipped."""
    shutil.copytree(preset_folder("small"), tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_damaged_presets_are_refused_by_name(damaged, name, rng):
    whole = (damaged / name).read_bytes()
    for _ in range(25):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (damaged / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"damaged.*{name}") as told:
            ChannelPredictor.from_preset(damaged)
        assert "\n" not in str(told.value)
    (damaged / name).write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"damaged.*{name}"):
        ChannelPredictor.from_preset(damaged)


def test_damaged_metadata_is_refused_by_name(damaged):
    text = (damaged / "metadata.json").read_text()
    for wrong in ("{", "[]", "\x00", '{"sha256": 1}'):
        (damaged / "metadata.json").write_text(wrong)
        with pytest.raises(ValueError, match="damaged"):
            ChannelPredictor.from_preset(damaged)
    # Presets of older versions have no checksums.
    metadata = json.loads(text)
    del metadata["sha256"]
    (damaged / "metadata.json").write_text(json.dumps(metadata))
    assert ChannelPredictor.from_preset(damaged).built


def test_weights_that_are_not_finite_are_refused(damaged):
    with h5py.File(damaged / "model.weights.h5", "r+") as file:
        file["head/vars/0"][3, 2] = np.nan
    (damaged / "metadata.json").unlink()
    with pytest.raises(ValueError, match=r"NaN.*head/kernel.*model\.weights\.h5"):
        ChannelPredictor.from_preset(damaged)
