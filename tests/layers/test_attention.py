import keras
import numpy as np
import pytest
from keras import ops

from lwmt_sionna.layers import SparseSpatioTemporalAttention
from lwmt_sionna.ops import EnergyRouting, Neighborhood, TopKRouting

GRID = (4, 6, 5)
NUM_TOKENS = 120
WIDTH = 12
# What XLA compiles in seconds takes PyTorch's compiler minutes.
IS_XLA = keras.backend.backend() != "torch"


def tokens(batch=2, num_tokens=NUM_TOKENS, width=WIDTH, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, num_tokens, width)).astype("float32")


def model_of(layer, num_tokens=NUM_TOKENS):
    inputs = keras.Input((num_tokens, WIDTH))
    return keras.Model(inputs, layer(inputs))


def test_is_multi_head_attention_where_every_token_sees_every_token():
    """A window over everything turns the layer into Keras's own attention without its biases."""
    layer = SparseSpatioTemporalAttention(3, Neighborhood(window=-1), grid=(1, 6, 5))
    reference = keras.layers.MultiHeadAttention(3, 4)
    inputs = tokens(num_tokens=30)
    layer(inputs), reference(inputs, inputs)
    qkv = ops.convert_to_numpy(layer.qkv.kernel).reshape(WIDTH, 3, 3, 4)
    proj = ops.convert_to_numpy(layer.proj.kernel).reshape(3, 4, WIDTH)
    zero = np.zeros((3, 4))
    reference.set_weights(
        [w for part in range(3) for w in (qkv[:, part], zero)] + [proj, np.zeros(WIDTH)]
    )
    np.testing.assert_allclose(layer(inputs), reference(inputs, inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {
            "neighborhood": Neighborhood(causal=True, window=1, class_token=False),
            "head_dim": 7,
            "routing": TopKRouting(0.5, 2, 20),
            "kernel": "gather",
            "dropout": 0.1,
        },
    ],
)
def test_saves_and_loads(tmp_path, arguments):
    layer = SparseSpatioTemporalAttention(3, grid=GRID, **arguments)
    model = model_of(layer)
    assert model.output_shape == (None, NUM_TOKENS, WIDTH)
    copy = SparseSpatioTemporalAttention.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        model.predict(tokens(), verbose=0), loaded.predict(tokens(), verbose=0)
    )


def test_one_set_of_weights_serves_any_grid():
    layer = SparseSpatioTemporalAttention(3)
    for grid in [(1, 3, 2), GRID, (2, 16, 17)]:
        inputs = tokens(num_tokens=int(np.prod(grid)))
        assert layer(inputs, grid=grid).shape == inputs.shape
    assert layer.count_params() == WIDTH * 3 * WIDTH + WIDTH * WIDTH + WIDTH
    symbolic = keras.Input((NUM_TOKENS, WIDTH))
    assert keras.Model(symbolic, layer(symbolic, grid=GRID)).output_shape[1:] == (NUM_TOKENS, WIDTH)


@pytest.mark.parametrize(
    ("kernel", "class_token"),
    [("auto", False), ("dense", True), ("gather", True), ("shift", True)]
    + [pytest.param(name, False, marks=pytest.mark.slow) for name in ("gather", "shift")],
)
def test_trains_compiled(kernel, class_token):
    num_tokens = NUM_TOKENS + int(class_token)
    layer = SparseSpatioTemporalAttention(
        3,
        Neighborhood(window=1, corridor=1, class_token=class_token),
        grid=GRID,
        kernel=kernel,
        routing=None if kernel == "shift" else "topk",
    )
    model = model_of(layer, num_tokens)
    model.compile("adam", "mse", jit_compile=IS_XLA)
    inputs = tokens(batch=4, num_tokens=num_tokens)
    before = [ops.convert_to_numpy(w) for w in layer.trainable_weights]
    history = model.fit(inputs, inputs, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for old, new in zip(before, layer.trainable_weights, strict=True):
        assert np.any(old != ops.convert_to_numpy(new)), f"no gradient reached {new.path}"


def test_mixed_precision():
    layer = SparseSpatioTemporalAttention(3, grid=GRID, dtype="mixed_bfloat16")
    outputs = layer(tokens())
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert {keras.backend.standardize_dtype(w.dtype) for w in layer.weights} == {"float32"}
    exact = SparseSpatioTemporalAttention(3, grid=GRID)
    exact(tokens())
    exact.set_weights(layer.get_weights())
    np.testing.assert_allclose(ops.cast(outputs, "float32"), exact(tokens()), atol=0.05)


def test_energy_routing_in_a_model(tmp_path):
    layer = SparseSpatioTemporalAttention(3, grid=GRID, routing=EnergyRouting(4, 3))
    inputs, energy = keras.Input((NUM_TOKENS, WIDTH)), keras.Input((NUM_TOKENS,))
    model = keras.Model([inputs, energy], layer(inputs, energy=energy))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    arguments = [tokens(), np.abs(tokens()[..., 0])]
    np.testing.assert_allclose(
        model.predict(arguments, verbose=0), loaded.predict(arguments, verbose=0)
    )
    assert loaded.layers[-1].routing == EnergyRouting(4, 3)


def test_dropout_acts_in_training_only():
    layer = SparseSpatioTemporalAttention(3, grid=GRID, dropout=0.5)
    inputs = tokens()
    assert np.mean(ops.convert_to_numpy(layer(inputs, training=True)) == 0) > 0.4
    assert np.mean(ops.convert_to_numpy(layer(inputs)) == 0) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 0}, "num_heads"),
        ({"num_heads": 5, "grid": GRID}, "width=12, num_heads=5"),
        ({"num_heads": 3}, "grid"),
        ({"num_heads": 3, "grid": (1, 2)}, "grid"),
        ({"num_heads": 3, "kernel": "fast"}, "kernel"),
        ({"num_heads": 3, "routing": "some"}, "routing"),
        ({"num_heads": 3, "head_dim": 0}, "head_dim"),
        ({"num_heads": 3, "grid": (4, 6, 6)}, "tokens for grid"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparseSpatioTemporalAttention(**arguments)(tokens())
