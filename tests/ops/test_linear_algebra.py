import keras
import numpy as np

from lwmt_sionna.ops.complex import ComplexPair
from lwmt_sionna.ops.linear_algebra import (
    conjugate_gradients,
    invert_positive,
    solve_hermitian,
    solve_positive,
    solve_squared,
)


def positive(rng, *shape):
    root = rng.standard_normal(shape).astype("float32")
    return root @ np.swapaxes(root, -1, -2) + 0.1 * np.eye(shape[-1], dtype="float32")


def test_solutions_solve(rng):
    matrix = positive(rng, 3, 7, 5, 5)
    right = rng.standard_normal((3, 7, 5)).astype("float32")
    found = keras.ops.convert_to_numpy(solve_positive(matrix, right))
    np.testing.assert_allclose(
        np.einsum("abij,abj->abi", matrix, found), right, rtol=1e-3, atol=1e-3
    )


def test_inverses_invert(rng):
    matrix = positive(rng, 7, 5, 5)
    found = keras.ops.convert_to_numpy(invert_positive(keras.ops.convert_to_tensor(matrix)))
    np.testing.assert_allclose(matrix @ found, np.tile(np.eye(5), (7, 1, 1)), atol=2e-3)


def test_squared_systems_equal_numpy(rng):
    """Of covariances with an imaginary load, and right sides that broadcast over systems."""
    size, systems = 5, 7
    a = rng.standard_normal((systems, size, 9)) + 1j * rng.standard_normal((systems, size, 9))
    matrix = a @ a.conj().swapaxes(1, 2) - 2j * np.eye(size)
    for count in (1, systems):
        right = rng.standard_normal((count, size)) + 1j * rng.standard_normal((count, size))
        found = solve_squared(paired(np.moveaxis(matrix, 0, -1)), paired(right.T))
        found = [keras.ops.convert_to_numpy(part).T for part in found]
        expected = np.linalg.solve(matrix @ matrix.conj().swapaxes(1, 2), right[..., None])[..., 0]
        error = np.linalg.norm(found[0] + 1j * found[1] - expected)
        assert error < 1e-4 * np.linalg.norm(expected)


def test_hermitian_systems_equal_numpy(rng):
    size, systems = 5, 7
    a = rng.standard_normal((systems, size, 9)) + 1j * rng.standard_normal((systems, size, 9))
    matrix = a @ a.conj().swapaxes(1, 2)
    right = rng.standard_normal((systems, size)) + 1j * rng.standard_normal((systems, size))
    found = solve_hermitian(paired(np.moveaxis(matrix, 0, -1)), paired(right.T))
    found = [keras.ops.convert_to_numpy(part).T for part in found]
    expected = np.linalg.solve(matrix, right[..., None])[..., 0]
    np.testing.assert_allclose(found[0] + 1j * found[1], expected, atol=1e-3)


def paired(z):
    return ComplexPair(
        *(keras.ops.convert_to_tensor(part.astype("float32")) for part in (z.real, z.imag))
    )


def test_as_many_gradients_as_unknowns_solve(rng):
    matrix = positive(rng, 3, 6, 6) + np.eye(6, dtype="float32")
    right = rng.standard_normal((3, 6)).astype("float32")
    tensors = (keras.ops.convert_to_tensor(each) for each in (matrix, right))
    found = keras.ops.convert_to_numpy(conjugate_gradients(*tensors, 12))
    np.testing.assert_allclose(np.einsum("bij,bj->bi", matrix, found), right, atol=1e-3)
