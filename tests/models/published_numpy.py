"""LWM-Temporal as its description says it, in plain NumPy and float64.

A second implementation, slow and literal: neighbours are listed one by one, routing keeps exactly k
scores. Nothing is shared with the package; tensors have the published names.
"""

import dataclasses
import itertools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Settings:
    """What tensors do not tell."""

    grid: tuple
    num_heads: int
    routing: bool = True
    rotary: bool = False
    window: int = 2
    corridor: int = 2
    drift: float = 1
    offsets: tuple = (-4, -3, -2, -1, 1, 2, 3)
    dilation: tuple = (1, 1)
    other_dilation: tuple = (1, 1)
    rope_base: float = 10_000.0


def neighbours(settings):
    """List of the neighbours of every token, own snapshot first."""
    num_snapshots, num_angle, num_delay = settings.grid
    table = []
    for t, a, d in itertools.product(*(range(size) for size in settings.grid)):
        own = {}
        reach, (step_a, step_d) = settings.window, settings.dilation
        for i, j in itertools.product(range(-reach, reach + 1), repeat=2):
            inside = 0 <= a + i < num_angle and 0 <= d + j < num_delay
            if i % step_a == 0 and j % step_d == 0 and inside:
                own[(t * num_angle + a + i) * num_delay + d + j] = True
        step_a, step_d = settings.other_dilation
        for dt in settings.offsets:
            if not 0 <= t + dt < num_snapshots:
                continue
            half = min(settings.corridor, math.floor(abs(dt) * settings.drift + 0.5))
            for i, j in itertools.product(range(-half, half + 1), repeat=2):
                if i % step_a == 0 and j % step_d == 0:
                    # Outside of the grid: clamped to its edge, and counted once.
                    row = min(max(a + i, 0), num_angle - 1)
                    column = min(max(d + j, 0), num_delay - 1)
                    own[((t + dt) * num_angle + row) * num_delay + column] = True
        table.append(list(own))
    return table


def forward(state, patches, settings, mask=None):
    """Reconstructed patches, `[batch, tokens, 2 * bins]`.

    Args:
        state: Tensors by name.
        patches: `[batch, tokens, 2 * bins]`.
        settings: `Settings`.
        mask: Hidden tokens, bool `[batch, tokens]`.
    """
    state = {name: np.asarray(tensor, np.float64) for name, tensor in state.items()}
    x = linear(state, "patch_embed", np.asarray(patches, np.float64))
    num_tokens, class_token = x.shape[1], "cls_token" in state
    if class_token:
        x = np.concatenate([x, np.repeat(state["cls_token"], len(x), axis=0)], axis=1)
    if not settings.rotary:
        x = x + state["pos_embed"]
    if mask is not None:
        # After the position code: hidden tokens enter without a position.
        x[:, :num_tokens][mask] = 0.0
    rows = [row + [num_tokens] * class_token for row in neighbours(settings)]
    longest = max(map(len, rows))
    table = np.array([row + [0] * (longest - len(row)) for row in rows])
    real = np.array([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
    # The published table is padded to its longest row, which is that of the class token.
    padded = num_tokens if class_token else longest
    kept = min(32, max(8, math.floor(0.2 * padded))) if settings.routing else padded
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layers"))
    for index in range(depth):
        name = f"encoder.layers.{index}"
        x = x + attention(state, name, norm(state, f"{name}.norm1", x), settings, table, real, kept)
        hidden = linear(state, f"{name}.mlp.0", norm(state, f"{name}.norm2", x))
        hidden = 0.5 * hidden * (1.0 + np.vectorize(math.erf)(hidden / math.sqrt(2.0)))
        x = x + linear(state, f"{name}.mlp.2", hidden)
    return linear(state, "head", norm(state, "encoder.norm", x)[:, :num_tokens])


def attention(state, name, x, settings, table, real, kept):
    batch, total, width = x.shape
    qkv = x @ state[f"{name}.attn.qkv.weight"].T
    qkv = qkv.reshape(batch, total, 3, settings.num_heads, -1).transpose(2, 0, 3, 1, 4)
    query, key, value = qkv
    if settings.rotary:
        query, key = rotate(query, settings.rope_base), rotate(key, settings.rope_base)
    outputs = []
    for begin in range(0, len(table), 2048):
        rows = slice(begin, min(begin + 2048, len(table)))
        near = table[rows]
        outputs.append(
            attend(query[:, :, rows], key[:, :, near], value[:, :, near], real[rows], kept)
        )
    if total > len(table):  # the class token attends to all others
        others = np.arange(len(table))[None]
        everything = np.ones(others.shape, bool)
        last = query[:, :, -1:]
        outputs.append(attend(last, key[:, :, others], value[:, :, others], everything, kept))
    output = np.concatenate(outputs, axis=2).transpose(0, 2, 1, 3).reshape(batch, total, width)
    return linear(state, f"{name}.attn.proj", output)


def attend(query, keys, values, real, kept):
    """`[..., tokens, head_dim]` against `[..., tokens, neighbours, head_dim]`."""
    scores = np.einsum("bhnc,bhnmc->bhnm", query, keys) * query.shape[-1] ** -0.5
    scores = np.where(real, scores, -np.inf)
    if kept < scores.shape[-1]:
        best = np.argsort(-scores, axis=-1, kind="stable")[..., :kept]
        chosen = np.full_like(scores, -np.inf)
        np.put_along_axis(chosen, best, np.take_along_axis(scores, best, axis=-1), axis=-1)
        scores = chosen
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhnm,bhnmc->bhnc", weights, values)


def rotate(x, base):
    """Turns interleaved pairs by the flat index: x is [batch, heads, tokens, head_dim]."""
    half = x.shape[-1] // 2
    phase = np.arange(x.shape[2])[:, None] * base ** (-np.arange(half) / half)
    turned = np.empty_like(x)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned[..., 0::2] = even * np.cos(phase) - odd * np.sin(phase)
    turned[..., 1::2] = even * np.sin(phase) + odd * np.cos(phase)
    return turned


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state, name, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
    return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]


def draw_state(rng, settings, *, class_token, bins=1, width=8, depth=2):
    """Float32 weights that make scores, routing and perceptrons matter."""
    num_tokens = math.prod(settings.grid) + class_token
    shapes = {"patch_embed.weight": (width, 2 * bins), "patch_embed.bias": (width,)}
    if not settings.rotary:
        shapes["pos_embed"] = (1, num_tokens, width)
    if class_token:
        shapes["cls_token"] = (1, 1, width)
    block = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.0.weight": (4 * width, width),
        "mlp.0.bias": (4 * width,),
        "mlp.2.weight": (width, 4 * width),
        "mlp.2.bias": (width,),
    }
    for index in range(depth):
        shapes |= {f"encoder.layers.{index}.{name}": shape for name, shape in block.items()}
    shapes |= {"encoder.norm.weight": (width,), "encoder.norm.bias": (width,)}
    shapes |= {"head.weight": (2 * bins, width), "head.bias": (2 * bins,)}
    state = {}
    for name, shape in shapes.items():
        noise = rng.standard_normal(shape)
        if "norm" in name:
            tensor = 0.2 * noise + float(name.endswith("weight"))
        elif len(shape) == 2:
            tensor = 1.2 * noise / math.sqrt(shape[1])
        else:
            tensor = 0.5 * noise
        state[name] = tensor.astype(np.float32)
    return state
