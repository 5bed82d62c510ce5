"""Trace users that move through a scene and store their propagation paths.

A killed run goes on where it stopped when started again with the same arguments.

Example:
    python experiments/generate_sequences.py --config experiments/configs/data_munich.toml \\
        --out data/munich.h5
"""

import dataclasses
import pathlib

from lwmt_sionna import cli


def main(argv=None):
    parser = cli.build_parser(__doc__)
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file: what to trace"
    )
    parser.add_argument("--out", type=pathlib.Path, help="HDF5 file to write [data/NAME.h5]")
    parser.add_argument(
        "--scene", help="built-in name or scene.xml, in place of the configured one"
    )
    parser.add_argument("--num-sequences", type=int, help="in place of the configured number")
    parser.add_argument("--seed", type=int, help="in place of the configured seed")
    args = parser.parse_args(argv)
    cli.configure_logging(args)

    from lwmt_sionna.rt import GenerationConfig, generate

    overrides = {"scene": args.scene, "num_sequences": args.num_sequences, "seed": args.seed}
    config = dataclasses.replace(
        GenerationConfig.from_toml(args.config),
        **{name: value for name, value in overrides.items() if value is not None},
    )
    out = args.out
    if out is None:
        out = pathlib.Path("data") / f"{args.config.stem.removeprefix('data_')}.h5"
    paths = generate(config, out, progress=not args.quiet)
    counts = paths.metadata
    print(
        f"{out}: {paths.num_sequences} sequences of {paths.num_snapshots} snapshots in "
        f"{paths.scene}, {paths.valid.sum(-1).mean():.1f} paths per snapshot "
        f"(at most {paths.num_paths})\n"
        f"of {counts['num_drawn']} tracks drawn, {counts['num_out_of_coverage']} were out of "
        f"coverage; the channel vanishes in {counts['num_vanishing']} of those kept"
    )


if __name__ == "__main__":
    cli.run(main)
