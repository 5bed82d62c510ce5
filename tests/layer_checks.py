"""One harness for the contract of every layer and model."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops, tree

__all__ = ["check_layer"]


def check_layer(
    cls,
    arguments,
    inputs,
    output_shape,
    tmp_path,
    *,
    call_arguments=None,
    mixed_output="bfloat16",
    float32_parts=(),
    idle_weights=(),
    tolerance=1e-5,
    wrong_inputs=True,
):
    """Checks all that a Keras layer or model promises.

    - Its configuration is JSON, mirrors the constructor, and builds the same layer again.
    - It runs eagerly and symbolically, with an unknown batch size, to the shapes it foretells.
    - A model with it survives a `.keras` file, without custom objects.
    - One compiled training step changes every trainable weight and leaves nothing infinite.
    - An empty batch gives an empty output, and inputs without a batch axis are refused in the one
      sentence that was raised.
    - In mixed precision, variables are float32, sublayers have the policy, and the output has the
      compute type.

    Args:
        cls: Class of the layer.
        arguments: Dictionary of constructor arguments; those that are functions are called with the
            name of the dtype policy.
        inputs: First argument of the call, an array or a dictionary of arrays, batch first.
        output_shape: Shape that the output must have.
        tmp_path: Folder for files.
        call_arguments: Dictionary of further arguments of the call, Python values.
        mixed_output: Type of the output in mixed precision; None if the layer keeps its own type
            whatever the policy is.
        float32_parts: Names of the sublayers that stay in float32 on purpose.
        idle_weights: Names of the weights that this call does not use.
        tolerance: Largest difference after saving and loading.
        wrong_inputs: Whether inputs without a batch axis are an error.
    """
    call = {} if call_arguments is None else call_arguments
    layer = _build(cls, arguments, "float32")
    _check_config(cls, layer)

    eager = layer(_tensors(inputs), **call)
    assert tuple(eager.shape) == tuple(output_shape)
    assert np.isfinite(ops.convert_to_numpy(eager)).all()
    foretold = layer.compute_output_spec(tree.map_structure(_spec, inputs), **call)
    assert tuple(foretold.shape) == tuple(output_shape)

    keras.utils.set_random_seed(7)
    for weight in layer.trainable_weights:  # a zero would block the gradient of what is before it
        weight.assign(weight + 0.1 * keras.random.normal(weight.shape))
    expected = ops.convert_to_numpy(layer(_tensors(inputs), **call))
    model = _model(layer, inputs, call)
    assert model.output_shape == (None, *output_shape[1:])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for candidate in (model, again):
        found = ops.convert_to_numpy(candidate(_tensors(inputs)))
        np.testing.assert_allclose(found, expected, atol=tolerance)

    empty = layer(_tensors(tree.map_structure(lambda array: array[:0], inputs)), **call)
    assert tuple(empty.shape) == (0, *output_shape[1:])
    if wrong_inputs:
        _check_refusal(layer, tree.map_structure(lambda array: array[0], inputs), call)
    _check_training(layer, model, inputs, expected, idle_weights)
    _check_mixed_precision(cls, arguments, inputs, call, mixed_output, float32_parts)


def _build(cls, arguments, policy):
    made = {name: a(policy) if inspect.isfunction(a) else a for name, a in arguments.items()}
    return cls(**made, dtype=policy)


def _check_config(cls, layer):
    config = layer.get_config()
    json.dumps(config)
    parameters = inspect.signature(cls.__init__).parameters.values()
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
    missing = sorted(set(named) - set(config))
    assert not missing, f"get_config lacks {missing}"
    copy = cls.from_config(json.loads(json.dumps(config)))
    assert json.dumps(copy.get_config(), sort_keys=True) == json.dumps(config, sort_keys=True)


def _check_refusal(layer, inputs, call):
    with pytest.raises(ValueError) as caught:
        layer(_tensors(inputs), **call)
    message = str(caught.value)
    assert "Received: " in message and "\n" not in message, message


def _check_training(layer, model, inputs, expected, idle_weights):
    if not layer.trainable_weights:
        return
    model.compile(
        optimizer=keras.optimizers.SGD(0.01),
        loss="mse",
        jit_compile=keras.backend.backend() != "torch",
    )
    target = expected + np.random.default_rng(1).standard_normal(expected.shape)
    before = [ops.convert_to_numpy(weight) for weight in layer.trainable_weights]
    loss = model.train_on_batch(inputs, target.astype(expected.dtype))
    assert np.isfinite(loss)
    for old, weight in zip(before, layer.trainable_weights, strict=True):
        new = ops.convert_to_numpy(weight)
        assert np.isfinite(new).all(), f"{weight.path} is not finite"
        idle = weight.name in idle_weights
        assert idle != np.any(new != old), f"{weight.path} moves: {idle}"


def _check_mixed_precision(cls, arguments, inputs, call, mixed_output, float32_parts):
    layer = _build(cls, arguments, "mixed_bfloat16")
    output = layer(_tensors(inputs), **call)
    kind = keras.backend.standardize_dtype(output.dtype)
    assert kind == ("float32" if mixed_output is None else mixed_output)
    assert np.isfinite(ops.convert_to_numpy(ops.cast(output, "float32"))).all()
    for weight in layer.weights:
        assert keras.backend.standardize_dtype(weight.dtype) in ("float32", "uint32"), weight.path
    parts = layer._flatten_layers(include_self=False)
    other = {part.name for part in parts if part.dtype_policy.name != "mixed_bfloat16"}
    assert other == set(float32_parts), f"sublayers with another policy: {other}"


def _model(layer, inputs, call):
    if isinstance(inputs, dict):
        symbols = {
            name: keras.Input(array.shape[1:], dtype=str(array.dtype), name=name)
            for name, array in inputs.items()
        }
    else:
        symbols = keras.Input(inputs.shape[1:], dtype=str(inputs.dtype))
    return keras.Model(symbols, layer(symbols, **call))


def _spec(array):
    return keras.KerasTensor(array.shape, dtype=str(array.dtype))


def _tensors(inputs):
    return tree.map_structure(ops.convert_to_tensor, inputs)
