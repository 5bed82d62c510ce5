"""LWM-Temporal as its description says it, in plain PyTorch: what converted models are held to.

Nothing is shared with the package. Neighbours are listed one by one, attention looks them up, and
the names of the tensors are the published ones. Run as a program, it draws weights and inputs and
writes a checkpoint and what the model makes of the inputs:

    python tests/models/published_reference.py OUT --grid 4 8 8 [--class-token] [--routing] ...

`--fixture FILE` writes the one that is committed: one set of small weights, all variants.
"""

import argparse
import itertools
import math
import pathlib

import numpy as np
import torch

TIME_OFFSETS = (-4, -3, -2, -1, 1, 2, 3)
WINDOW, CORRIDOR, DRIFT = 2, 2, 1


def neighbours(grid):
    """List of the neighbours of every token, own snapshot first."""
    num_snapshots, num_angle, num_delay = grid

    def flat(t, a, d):
        return (t * num_angle + a) * num_delay + d

    table = []
    for t, a, d in itertools.product(*(range(size) for size in grid)):
        own = []
        for i, j in itertools.product(range(-WINDOW, WINDOW + 1), repeat=2):
            # Outside of the grid: left out.
            if 0 <= a + i < num_angle and 0 <= d + j < num_delay:
                own.append(flat(t, a + i, d + j))
        for dt in TIME_OFFSETS:
            if not 0 <= t + dt < num_snapshots:
                continue
            half = min(CORRIDOR, abs(dt) * DRIFT)
            for i, j in itertools.product(range(-half, half + 1), repeat=2):
                # Outside of the grid: clamped to its edge, and counted once.
                row = min(max(a + i, 0), num_angle - 1)
                column = min(max(d + j, 0), num_delay - 1)
                if flat(t + dt, row, column) not in own:
                    own.append(flat(t + dt, row, column))
        table.append(own)
    return table


def rotary(x):
    """Turns interleaved pairs by the flat index: x is [batch, heads, tokens, head_dim]."""
    half = x.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    phase = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * frequency
    cosine, sine = torch.cos(phase).to(x.dtype), torch.sin(phase).to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.empty_like(x)
    turned[..., 0::2] = even * cosine - odd * sine
    turned[..., 1::2] = even * sine + odd * cosine
    return turned


class Attention(torch.nn.Module):
    def __init__(self, width, num_heads, grid, class_token, routing, use_rotary):
        super().__init__()
        self.num_heads, self.use_rotary = num_heads, use_rotary
        self.qkv = torch.nn.Linear(width, 3 * width, bias=False)
        self.proj = torch.nn.Linear(width, width)
        rows = neighbours(grid)
        self.num_tokens = len(rows)
        if class_token:
            rows = [[*row, self.num_tokens] for row in rows]
        self.class_token = class_token
        longest = max(len(row) for row in rows)
        self.mask = torch.tensor([[True] * len(r) + [False] * (longest - len(r)) for r in rows])
        self.table = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
        # The published table is padded to its longest row, which is that of the class token.
        padded = self.num_tokens if class_token else longest
        self.kept = min(32, max(8, math.floor(0.2 * padded))) if routing else None

    def attend(self, query, keys, values, mask):
        """One query per row: [..., head_dim] against [..., neighbours, head_dim]."""
        scores = torch.einsum("...c,...nc->...n", query, keys) * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask, -torch.inf)
        if self.kept is not None and self.kept < scores.shape[-1]:
            best = torch.topk(scores, self.kept, dim=-1)
            scores = torch.full_like(scores, -torch.inf).scatter(-1, best.indices, best.values)
        return torch.einsum("...n,...nc->...c", torch.softmax(scores, dim=-1), values)

    def forward(self, x):
        batch, num_tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, num_tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if self.use_rotary:
            query, key = rotary(query), rotary(key)
        outputs = []
        for begin in range(0, self.num_tokens, 1024):
            rows = slice(begin, begin + 1024)
            table = self.table[rows]
            own = query[:, :, : self.num_tokens][:, :, rows]
            outputs.append(self.attend(own, key[:, :, table], value[:, :, table], self.mask[rows]))
        if self.class_token:
            others = slice(0, self.num_tokens)
            everything = torch.ones(self.num_tokens, dtype=torch.bool)
            outputs.append(
                self.attend(
                    query[:, :, -1:],
                    key[:, :, None, others],
                    value[:, :, None, others],
                    everything,
                )
            )
        output = torch.cat(outputs, dim=2)
        return self.proj(output.transpose(1, 2).reshape(batch, num_tokens, width))


class Block(torch.nn.Module):
    def __init__(self, width, mlp_ratio, *attention):
        super().__init__()
        self.norm1 = torch.nn.LayerNorm(width, eps=1e-5)
        self.attn = Attention(width, *attention)
        self.norm2 = torch.nn.LayerNorm(width, eps=1e-5)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(width, mlp_ratio * width),
            torch.nn.GELU(approximate="none"),
            torch.nn.Linear(mlp_ratio * width, width),
        )

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Encoder(torch.nn.Module):
    def __init__(self, depth, width, *block):
        super().__init__()
        self.layers = torch.nn.ModuleList([Block(width, *block) for _ in range(depth)])
        self.norm = torch.nn.LayerNorm(width, eps=1e-5)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class PublishedModel(torch.nn.Module):
    """Patches in, patches out: `[batch, tokens, 2 * bins]`; mask `[batch, tokens]` or None."""

    def __init__(self, grid, bins, width, depth, num_heads, mlp_ratio, class_token, routing, rope):
        super().__init__()
        num_tokens = math.prod(grid) + int(class_token)
        self.patch_embed = torch.nn.Linear(2 * bins, width)
        self.pos_embed = None if rope else torch.nn.Parameter(torch.zeros(1, num_tokens, width))
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.encoder = Encoder(depth, width, mlp_ratio, num_heads, grid, class_token, routing, rope)
        self.head = torch.nn.Linear(width, 2 * bins)

    def forward(self, patches, mask=None):
        x = self.patch_embed(patches)
        if self.cls_token is not None:
            x = torch.cat([x, self.cls_token.expand(len(x), -1, -1)], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        if mask is not None:
            # After the position code: hidden tokens enter without a position.
            x[:, : mask.shape[1]] = x[:, : mask.shape[1]].masked_fill(mask[..., None], 0.0)
        x = self.encoder(x)
        return self.head(x[:, : patches.shape[1]])


def patches_of(channel, patch):
    """[batch, time, angle, delay, 2] to tokens: angle-row, delay-column, (re, im) last."""
    batch, num_snapshots, num_angle, num_delay, _ = channel.shape
    tokens = []
    for t in range(num_snapshots):
        for a in range(0, num_angle, patch[0]):
            for d in range(0, num_delay, patch[1]):
                part = channel[:, t, a : a + patch[0], d : d + patch[1]]
                tokens.append(part.reshape(batch, -1))
    return torch.stack(tokens, dim=1)


def draw_weights(model, generator):
    """Weights that make scores, routing and perceptrons matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if "norm" in name:
                parameter.copy_(0.2 * noise + float(name.endswith("weight")))
            elif parameter.ndim == 2:
                parameter.copy_(1.2 * noise / math.sqrt(parameter.shape[1]))
            else:
                parameter.copy_(0.5 * noise)


def build(args, class_token, routing, rope):
    model = PublishedModel(
        tuple(args.grid), math.prod(args.patch), args.width, args.depth, args.heads, 4,
        class_token, routing, rope,
    )  # fmt: skip
    return model.to(torch.float64)


def old_names(state):
    prefixes = {"patch_embed.": "embed.", "encoder.layers.": "blocks.", "encoder.norm.": "norm."}
    renamed = {}
    for name, tensor in state.items():
        for new, old in prefixes.items():
            if name.startswith(new):
                name = old + name.removeprefix(new)
        renamed[name] = tensor
    return renamed


def inputs_of(args, generator):
    """Channels of two sequences, and a mask; in the precision that checkpoints have."""
    bins = [size * step for size, step in zip(args.grid[1:], args.patch, strict=True)]
    shape = (args.batch, args.grid[0], *bins, 2)
    channel = torch.randn(shape, generator=generator, dtype=torch.float64).float().double()
    mask = torch.rand((args.batch, math.prod(args.grid)), generator=generator) < 0.4
    return channel, mask


def write_case(args):
    generator = torch.Generator().manual_seed(args.seed)
    channel, mask = inputs_of(args, generator)
    model = build(args, args.class_token, args.routing, args.rotary)
    draw_weights(model, generator)
    model.float()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if args.old_names:
        state = old_names(state)
    args.out.mkdir(parents=True, exist_ok=True)
    nested = {"epoch": 3, "model_state_dict": state, "best_loss": 0.5}
    torch.save(nested if args.nested else state, args.out / "checkpoint.pth")
    model.double()
    with torch.no_grad():
        patches = patches_of(channel, args.patch)
        np.savez(
            args.out / "case.npz",
            channel=channel.numpy(),
            mask=mask.numpy(),
            unmasked=model(patches).numpy(),
            masked=model(patches, mask).numpy(),
        )


def write_fixture(args):
    """All variants of one small model, which share their weights."""
    generator = torch.Generator().manual_seed(args.seed)
    channel, mask = inputs_of(args, generator)
    whole = build(args, True, True, False)
    draw_weights(whole, generator)
    whole.float()
    state = whole.state_dict()
    arrays = {f"state/{name}": tensor.numpy() for name, tensor in state.items()}
    arrays |= {"channel": channel.float().numpy(), "mask": mask.numpy()}
    for class_token, routing, rope in itertools.product((False, True), repeat=3):
        model = build(args, class_token, routing, rope)
        part = {name: state[name] for name in model.state_dict()}
        if not rope and not class_token:
            part["pos_embed"] = part["pos_embed"][:, :-1]
        model.load_state_dict(part)
        name = f"{'class' if class_token else 'plain'}/{'topk' if routing else 'all'}/"
        name += "rotary" if rope else "learned"
        with torch.no_grad():
            patches = patches_of(channel, args.patch)
            arrays[f"{name}/unmasked"] = model(patches).float().numpy()
            arrays[f"{name}/masked"] = model(patches, mask).float().numpy()
    np.savez_compressed(args.fixture, **arrays)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    parser.add_argument("--fixture", type=pathlib.Path)
    parser.add_argument("--grid", nargs=3, type=int, default=[4, 8, 8])
    parser.add_argument("--patch", nargs=2, type=int, default=[1, 1])
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    for flag in ("class-token", "routing", "rotary", "old-names", "nested"):
        parser.add_argument(f"--{flag}", action="store_true")
    args = parser.parse_args()
    if args.fixture is not None:
        write_fixture(args)
    else:
        write_case(args)


if __name__ == "__main__":
    main()
