"""Trace users that move through a scene and store their propagation paths.

With diffuse scattering (a table `diffuse`), whose paths are thousands, channels are stored. Tables
`variants.NAME` make a file of each, `CONFIG_NAME.h5`, in the folder `--out`.

Shards are traced in local processes, or by the workers of a Dask cluster. A killed run goes on
where it stopped when started again with the same arguments.

Example:
    lwmt trace --config data_munich --out data/munich.h5
    lwmt trace --config worlds/data_old_town --out runs/worlds
    dask scheduler & dask worker tcp://127.0.0.1:8786 --nworkers 4 --nthreads 1 &
    lwmt trace --config data_munich --dask tcp://127.0.0.1:8786
"""

import os
import pathlib
from collections.abc import Sequence

from lwmt_sionna.runs import command_line

# Each process takes a scene, the solver's tables and its buffers: 1 to 3 GB.
_MOST_WORKERS = 4


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.build_parser(__doc__)
    command_line.add_options(parser, "config")
    parser.add_argument("--out", type=pathlib.Path, help="HDF5 file, or a folder [data]")
    parser.add_argument("--variant", nargs="+", help="variants of the configuration [all]")
    parser.add_argument(
        "--scene", help="built-in name or scene.xml, in place of the configured one"
    )
    parser.add_argument("--num-sequences", type=int, help="in place of the configured number")
    command_line.add_options(parser, "seed", "workers", "dask")
    parser.add_argument("--estimate", action="store_true", help="say what it would take, and stop")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    workers = min(os.cpu_count() or 1, _MOST_WORKERS) if args.workers is None else args.workers
    if workers < 1:
        raise command_line.UsageError(f"--workers must be at least 1, not {workers}")

    from lwmt_sionna.rt import GenerationConfig, estimate, generate, num_shards

    overrides = {"scene": args.scene, "num_sequences": args.num_sequences, "seed": args.seed}
    variants = GenerationConfig.variants_from_toml(args.config, overrides)
    unknown = sorted(set(args.variant or ()) - set(variants))
    if unknown:
        known = ", ".join(filter(None, variants)) or "none"
        raise command_line.UsageError(f"--variant must be among {known}, not {unknown[0]}")
    name = args.config.stem.removeprefix("data_")
    for variant in args.variant or variants:
        config = variants[variant]
        out = pathlib.Path("data") if args.out is None else args.out
        if variant or args.out is None or out.is_dir():
            out = out / f"{'_'.join(filter(None, (name, variant)))}.h5"
        shares = min(workers, num_shards(config))
        if args.estimate:
            command_line.say(estimate(config, workers=shares, dask=args.dask))
            continue
        sequences = generate(
            config,
            out,
            workers=shares,
            dask=args.dask,
            progress=not args.quiet,
            announce=None if args.quiet else command_line.say,
        )
        command_line.say(f"{out}: {_describe(sequences)}")


def _describe(sequences):
    counts = sequences.metadata
    if "num_scattered" in counts:
        paths = (
            f"{counts['num_scattered']:.0f} scattered paths per snapshot with "
            f"{100 * counts['scattered_share']:.1f} % of a user's power"
        )
    else:
        paths = (
            f"{sequences.valid.sum(-1).mean():.1f} paths per snapshot "
            f"(at most {sequences.num_paths})"
        )
    return (
        f"{sequences.num_sequences} sequences of {sequences.num_snapshots} snapshots in "
        f"{sequences.scene}, {paths}\n"
        f"of {counts['num_drawn']} tracks drawn, {counts['num_out_of_coverage']} were out of "
        f"coverage; the channel vanishes in {counts['num_vanishing']} of those kept"
    )
