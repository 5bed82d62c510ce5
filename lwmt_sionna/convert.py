"""Convert published LWM-Temporal weights to a preset of this package.

CHECKPOINT is a PyTorch file (`.pth`, `pytorch_model.bin`): a state dict, or a training checkpoint
that has one under `model_state_dict`; or an `.npz` file of the same tensors. The `config.json` that
`save_pretrained` writes beside it tells what tensors do not; options stand above it. OUT is the
folder of the preset, which must not exist. PyTorch files are read without executing anything.

Example:
    lwmt convert pytorch_model.bin presets/lwm_temporal
"""

import pathlib
from collections.abc import Sequence

from lwmt_sionna.models.published import PublishedOptions, convert
from lwmt_sionna.ops import Neighborhood
from lwmt_sionna.runs import command_line
from lwmt_sionna.runs.configuration import read_toml


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.build_parser(__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=pathlib.Path)
    parser.add_argument("out", metavar="OUT", type=pathlib.Path)
    parser.add_argument("--num-heads", type=int, help="heads per block")
    parser.add_argument(
        "--grid", nargs=3, type=int, metavar=("T", "A", "D"),
        help="snapshots, angle and delay patches of the learned positions [20 32 32]",
    )  # fmt: skip
    parser.add_argument("--patch", nargs=2, type=int, metavar=("A", "D"), help="bins per patch")
    parser.add_argument(
        "--position", choices=("learned", "rotary"),
        help="[learned if the checkpoint has pos_embed, else rotary]",
    )  # fmt: skip
    parser.add_argument("--rope-base", type=float, help="base of rotary positions [10000]")
    parser.add_argument("--routing", choices=("topk", "none"), help="[topk]")
    parser.add_argument(
        "--neighborhood", type=pathlib.Path, help="TOML file of a Neighborhood [the published one]"
    )
    parser.add_argument(
        "--config", type=pathlib.Path, help="published settings [config.json beside CHECKPOINT]"
    )
    parser.add_argument(
        "--ignore", nargs="+", default=(), metavar="NAME", help="tensors that are not wanted"
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    neighborhood = None
    if args.neighborhood is not None:
        try:
            neighborhood = Neighborhood(**read_toml(args.neighborhood))
        except TypeError as error:
            raise command_line.UsageError(f"{args.neighborhood}: {error}") from error
    options = PublishedOptions(
        num_heads=args.num_heads,
        grid=None if args.grid is None else tuple(args.grid),
        patch=None if args.patch is None else tuple(args.patch),
        position=args.position,
        rope_base=args.rope_base,
        routing=args.routing,
        neighborhood=neighborhood,
        ignore=tuple(args.ignore),
    )
    model = convert(args.checkpoint, args.out, options, args.config)
    backbone = model.backbone
    command_line.say(
        f"{args.out}: {model.count_params()} parameters, width {backbone.width}, depth "
        f"{backbone.depth}, {backbone.num_heads} heads, {backbone.position_kind} positions, "
        f"class token: {'yes' if backbone.neighborhood.class_token else 'no'}"
    )


if __name__ == "__main__":
    command_line.run(main)
