"""What a user reads who gives a layer what it does not take, and what an empty batch gives."""

import keras
import numpy as np
import pytest

from lwmt_sionna import layers
from lwmt_sionna.ops import Neighborhood

NARROW = Neighborhood(window=1, corridor=1, time_offsets=(-1,))
GRID, LARGE = (2, 3, 4), (3, 16, 16)


def tokens(grid=GRID, batch=2, width=8):
    shape = (batch, int(np.prod(grid)), width)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


LAYERS = {
    "attention": lambda: layers.SparseSpatioTemporalAttention(2, NARROW),
    "routed": lambda: layers.SparseSpatioTemporalAttention(2, NARROW, routing="topk"),
    "block": lambda: layers.EncoderBlock(2, neighborhood=NARROW),
    "factored": layers.FactoredPositionEncoding,
    "learned": lambda: layers.LearnedPositionEncoding(GRID),
}


def message(call):
    with pytest.raises(ValueError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("name", LAYERS)
def test_errors_are_the_one_sentence_that_is_raised(name):
    layer = LAYERS[name]()
    layer(tokens(), grid=GRID)
    model = keras.Sequential([keras.layers.Lambda(lambda x: layer(x, grid=(2, 3, 5)))])
    for call in (lambda: layer(tokens(), grid=(2, 3, 5)), lambda: model(tokens())):
        text = message(call)
        assert "grid" in text and "Received: " in text
        assert "Exception encountered" not in text and "\n" not in text
    text = message(lambda: layer(tokens(), grid=(2, 3)))
    assert text.startswith("`grid` must be three positive integers") and "\n" not in text


def test_errors_of_building_too():
    layer = layers.EncoderBlock(5, neighborhood=NARROW)
    model = keras.Sequential([keras.layers.Lambda(lambda x: layer(x, grid=GRID))])
    for call in (lambda: layer(tokens(), grid=GRID), lambda: model(tokens())):
        text = message(call)
        assert text.endswith("Received: width=8, num_heads=5") and "\n" not in text


@pytest.mark.parametrize("name", LAYERS)
def test_complex_tokens_are_refused(name):
    text = message(lambda: LAYERS[name]()(tokens().astype(np.complex64), grid=GRID))
    assert text.startswith("Expected real tokens [batch, num_tokens, width]. Received: ")
    assert "complex64" in text and "\n" not in text


@pytest.mark.parametrize("name", ["attention", "block"])
def test_masked_tokens_are_refused(name):
    masked = keras.layers.Masking()(tokens())
    text = message(lambda: LAYERS[name]()(masked, grid=GRID))
    assert "takes no Keras mask" in text and "\n" not in text


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("layer", [layers.AngleDelayTransform, layers.InverseAngleDelayTransform])
def test_transforms_name_what_they_take(layer, shape):
    for inputs in (np.ones(shape, np.float32), keras.Input(shape[1:])):
        text = message(lambda inputs=inputs: layer()(inputs))
        assert "complex [..., num_ant, num_subcarriers] or real" in text
        assert "Received: inputs.shape=" in text and "\n" not in text


@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_returns_empty(name):
    layer = LAYERS[name]()
    assert layer(tokens(batch=0), grid=GRID).shape == (0, 24, 8)


@pytest.mark.parametrize("kernel", ["auto", "gather"])
def test_an_empty_batch_returns_empty_from_compiled_kernels(kernel):
    layer = layers.SparseSpatioTemporalAttention(2, NARROW, kernel=kernel)
    assert layer(tokens(LARGE, batch=0), grid=LARGE).shape == (0, 768, 8)


def test_an_empty_batch_of_channels_returns_empty():
    h = np.ones((0, 3, 4, 5, 2), np.float32)
    x = layers.AngleDelayTransform()(h)
    assert x.shape == layers.InverseAngleDelayTransform()(x).shape == h.shape
