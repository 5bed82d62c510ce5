"""What a backbone is made of, for every contestant of an experiment."""

import dataclasses

from lwmt_sionna.models import LWMTBackbone
from lwmt_sionna.ops import EnergyRouting, Neighborhood, RandomNeighborhood

__all__ = ["ATTENTIONS", "ModelConfig"]

ATTENTIONS = ("ssta", "dense", "random")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of an `LWMTBackbone`.

    Attributes:
        width: Width of the tokens.
        depth: Number of encoder blocks.
        num_heads: Heads per block.
        mlp_ratio: Hidden units of the perceptrons over the width.
        patch: Bins per patch in angle and delay.
        attention: `"ssta"`, the neighbourhood that follows; `"dense"`, all tokens; or `"random"`,
            as many tokens as the neighbourhood has, drawn at random. Weights have the same shapes.
        window: Half-widths of the neighbourhood in the own snapshot, in patches.
        corridor: Half-widths in other snapshots, in patches.
        time_offsets: Offsets of the other snapshots.
        drift: Patches per snapshot by which the corridor widens.
        leakage: Patches of the corridor that do not depend on the time distance.
        kept_patches: Angle and delay patches with most energy that the network works on; all of
            them if left out.
        position: See `LWMTBackbone`: `"rotary_grid"` or `"factored"`. The former sees differences
            of places alone, so that weights serve sequences cut elsewhere.
        local_scale: See `MaskedChannelModel`.
        local_motion: See `MaskedChannelModel` and `ChannelPredictor`.
        kernel: Kernel of the attention; decides time and memory only.
        block_loop: See `LWMTBackbone`.
    """

    width: int = 32
    depth: int = 3
    num_heads: int = 4
    mlp_ratio: float = 2
    patch: tuple = (2, 2)
    attention: str = "ssta"
    window: tuple = (1, 1)
    corridor: tuple = (1, 1)
    time_offsets: tuple = (-4, -3, -2, -1, 1, 2, 3, 4)
    drift: tuple = (0.0, 0.0)
    leakage: tuple = (1, 1)
    kept_patches: tuple = ()
    position: str = "rotary_grid"
    local_scale: bool = True
    local_motion: bool = True
    kernel: str = "auto"
    block_loop: str = "unroll"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if self.attention not in ATTENTIONS:
            raise ValueError(
                f"attention must be one of {ATTENTIONS}. Received: attention={self.attention}"
            )
        if len(self.kept_patches) not in (0, 2):
            raise ValueError(
                "kept_patches must be two numbers (angle, delay) or empty. Received: "
                f"kept_patches={self.kept_patches}"
            )

    def neighborhood(self, max_snapshots, seed=0):
        """The neighbourhood of the attention.

        Args:
            max_snapshots: Longest sequence, which dense attention has to span.
            seed: Seed of the random neighbourhood.

        Returns:
            `Neighborhood`.
        """
        if self.attention == "dense":
            far = tuple(o for o in range(1 - max_snapshots, max_snapshots) if o != 0)
            # Half-widths beyond any grid: corridors are cut at its edge.
            wide = (_BEYOND, _BEYOND)
            return Neighborhood(
                window=(-1, -1),
                time_offsets=far,
                corridor=wide,
                leakage=wide,
                drift=(0, 0),
                edge="drop",
            )
        settings = {
            "window": self.window,
            "time_offsets": self.time_offsets,
            "corridor": self.corridor,
            "drift": self.drift,
            "leakage": self.leakage,
        }
        if self.attention == "random":
            return RandomNeighborhood(seed=seed, **settings)
        return Neighborhood(**settings)

    def build_backbone(self, max_snapshots, seed=0, precision="float32"):
        """Builds a backbone with random weights, from the global seed of Keras.

        Args:
            max_snapshots: See `neighborhood`.
            seed: See `neighborhood`.
            precision: Dtype policy.

        Returns:
            `LWMTBackbone`, built.
        """
        backbone = LWMTBackbone(
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            patch=self.patch,
            neighborhood=self.neighborhood(max_snapshots, seed),
            routing=EnergyRouting(*self.kept_patches) if self.kept_patches else None,
            position=self.position,
            kernel=self.kernel,
            block_loop=self.block_loop,
            dtype=precision,
            name="backbone",
        )
        backbone.build((None, None, None, None, 2))
        return backbone


_BEYOND = 1 << 10
