"""Rematerialisation of the blocks in one loop, and energy routing of the backbone."""

import keras
import numpy as np
import pytest
from keras import ops

from lwmt_sionna.models import LWMTBackbone, MaskedChannelModel
from lwmt_sionna.ops import EnergyRouting, Neighborhood


def randomize(model, seed):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(0.3 * rng.standard_normal(weight.shape) + (len(weight.shape) == 1))


def compiled_gradients(model, x):
    """Gradients of a function of the output with respect to the weights."""
    if keras.backend.backend() == "jax":
        import jax

        def loss(weights):
            outputs, _ = model.stateless_call(weights, [], x, training=True)
            return ops.sum(ops.sin(outputs))

        return jax.jit(jax.grad(loss))([weight.value for weight in model.trainable_variables])
    tf = pytest.importorskip("tensorflow")

    @tf.function(jit_compile=True)
    def run(x):
        with tf.GradientTape() as tape:
            loss = ops.sum(ops.sin(model(x, training=True)))
        return tape.gradient(loss, model.trainable_variables)

    return run(x)


def backbone(**options):
    model = LWMTBackbone(width=8, depth=3, num_heads=2, mlp_ratio=2, **options)
    model.build((None, None, None, None, 2))
    randomize(model, seed=3)
    return model


def channel(grid=(3, 6, 5), batch=2, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, *grid, 2)).astype("float32")


@pytest.mark.parametrize("position", ["factored", "rotary_grid"])
def test_loops_give_the_outputs_and_gradients_of_unrolled_blocks(position):
    plain = backbone(position=position)
    looped = backbone(position=position, block_loop="rematerialize")
    x = channel()
    np.testing.assert_allclose(looped(x), plain(x), rtol=1e-5, atol=1e-5)
    expected, found = compiled_gradients(plain, x), compiled_gradients(looped, x)
    assert len(expected) == len(plain.trainable_variables)
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is None:  # no token is hidden
            assert ours is None
        else:
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


def test_loops_use_the_weights_of_every_block():
    model = backbone(block_loop="rematerialize")
    x = channel()
    before = ops.convert_to_numpy(model(x))
    for block in model.blocks:
        kernel = block.expand.kernel
        kernel.assign(kernel + 0.1)
        after = ops.convert_to_numpy(model(x))
        assert np.abs(after - before).max() > 1e-4
        before = after


def test_loops_refuse_dropout():
    with pytest.raises(ValueError, match="block_loop='unroll'"):
        LWMTBackbone(dropout=0.1, block_loop="rematerialize")
    with pytest.raises(ValueError, match="block_loop"):
        LWMTBackbone(block_loop="magic")


def test_presets_that_name_the_loop_scan_still_load():
    assert LWMTBackbone(block_loop="scan").block_loop == "unroll"


@pytest.mark.parametrize("position", ["factored", "rotary", "rotary_grid"])
@pytest.mark.parametrize("class_token", [False, True])
def test_energy_routing_that_keeps_all_changes_nothing(position, class_token):
    neighborhood = Neighborhood(class_token=class_token)
    options = {"position": position, "neighborhood": neighborhood}
    plain, routed = backbone(**options), backbone(**options, routing=EnergyRouting(6, 5))
    x = channel()
    np.testing.assert_allclose(routed(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", ["factored", "rotary_grid"])
def test_energy_routing_works_on_the_strong_bins_alone(position):
    x = 1e-3 * channel()
    rng = np.random.default_rng(1)
    strong = rng.standard_normal((2, 3, 2, 2, 2)).astype("float32")
    angles, delays = [1, 4], [0, 3]
    x[:, :, np.ix_(angles, delays)[0], np.ix_(angles, delays)[1]] = strong
    found = ops.convert_to_numpy(backbone(position=position, routing=EnergyRouting(2, 2))(x))
    found = found.reshape(2, 3, 6, 5, 8)
    kept = np.zeros((6, 5), dtype=bool)
    kept[np.ix_(angles, delays)] = True
    assert (found[:, :, ~kept] == 0).all()
    assert (np.abs(found[:, :, kept]).max(axis=-1) > 0).all()
    # What the weak bins hold moves nothing.
    x[:, :, ~kept] *= -1
    again = backbone(position=position, routing=EnergyRouting(2, 2))(x)
    np.testing.assert_array_equal(ops.convert_to_numpy(again).reshape(found.shape), found)


def test_energy_routing_ignores_hidden_tokens():
    x = channel()
    mask = np.zeros((2, 90), dtype=bool)
    mask[:, 30:] = True
    model = backbone(routing=EnergyRouting(2, 2))
    louder = x.copy()
    louder[:, 1:] *= np.random.default_rng(5).uniform(1, 9, louder[:, 1:].shape)
    np.testing.assert_array_equal(model(x, mask=mask) == 0, model(louder, mask=mask) == 0)


def test_configuration_round_trip():
    model = backbone(routing="energy", block_loop="rematerialize")
    copy = LWMTBackbone.from_config(model.get_config())
    assert copy.routing == EnergyRouting() and copy.block_loop == "rematerialize"
    assert keras.saving.serialize_keras_object(copy)["class_name"] == "LWMTBackbone"


@pytest.mark.slow
@pytest.mark.parametrize("block_loop", ["unroll", "rematerialize"])
def test_mixed_precision_trains_compiled_like_float32(block_loop):
    x = channel((3, 16, 12))  # enough tokens for the shift kernel, few offsets to compile
    mask = np.random.default_rng(2).random((2, 576)) < 0.5
    narrow = Neighborhood(window=1, corridor=0, time_offsets=(-1,))
    losses = {}
    for dtype in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(1)
        core = LWMTBackbone(
            width=8, depth=2, num_heads=2, neighborhood=narrow, block_loop=block_loop, dtype=dtype
        )
        model = MaskedChannelModel(core, dtype=dtype)
        jit_compile = keras.backend.backend() != "torch"
        model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=jit_compile)
        inputs = {"channel": x, "mask": mask}
        losses[dtype] = [float(model.train_on_batch(inputs, x)) for _ in range(6)]
    assert losses["mixed_bfloat16"][-1] < losses["mixed_bfloat16"][0]
    np.testing.assert_allclose(losses["mixed_bfloat16"], losses["float32"], rtol=0.03)
