"""Errors of layers, as short as they are raised."""

import functools
from typing import Any

from lwmt_sionna.ops.complex import is_complex
from lwmt_sionna.typing import Tensor

__all__ = ["PlainErrors", "check_tokens"]


class PlainErrors:
    """First base of layers and models whose errors reach the user as they are raised.

    Keras puts a dozen lines around an error that leaves the `call` of a layer or of one around it,
    unless the error says that this has been done.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("build", "call", "compute_mask", "compute_output_spec"):
            if name in vars(cls):
                setattr(cls, name, _plain(vars(cls)[name]))


def _plain(method):
    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        try:
            return method(*args, **kwargs)
        except ValueError as error:
            error._keras_call_info_injected = True
            raise

    return wrapper


def check_tokens(tokens: Tensor) -> None:
    """Refuses what is not real `[batch, num_tokens, width]`.

    Raises:
        ValueError: If it is anything else.
    """
    if len(tokens.shape) != 3 or is_complex(tokens):
        raise ValueError(
            "Expected real tokens [batch, num_tokens, width]. Received: "
            f"inputs.shape={tuple(tokens.shape)}, inputs.dtype={tokens.dtype}"
        )
