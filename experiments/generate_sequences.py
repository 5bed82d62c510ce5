"""Trace users that move through a scene and store their propagation paths.

Shards are traced in local processes, or by the workers of a Dask cluster. A killed run goes on
where it stopped when started again with the same arguments.

Example:
    python experiments/generate_sequences.py --config experiments/configs/data_munich.toml \\
        --out data/munich.h5
    dask scheduler & dask worker tcp://127.0.0.1:8786 --nworkers 4 --nthreads 1 &
    python experiments/generate_sequences.py --config experiments/configs/data_munich.toml \\
        --dask tcp://127.0.0.1:8786
"""

import os
import pathlib

from lwmt_sionna.runs import command_line

# Each process takes a scene, the solver's tables and its buffers: 1 to 3 GB.
_MOST_WORKERS = 4


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file: what to trace"
    )
    parser.add_argument("--out", type=pathlib.Path, help="HDF5 file to write [data/NAME.h5]")
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
    config = GenerationConfig.from_toml(args.config, overrides)
    out = args.out
    if out is None:
        out = pathlib.Path("data") / f"{args.config.stem.removeprefix('data_')}.h5"
    workers = min(workers, num_shards(config))
    if args.estimate:
        print(estimate(config, workers=workers, dask=args.dask))
        return
    announce = None if args.quiet else print
    paths = generate(
        config,
        out,
        workers=workers,
        dask=args.dask,
        progress=not args.quiet,
        announce=announce,
    )
    counts = paths.metadata
    print(
        f"{out}: {paths.num_sequences} sequences of {paths.num_snapshots} snapshots in "
        f"{paths.scene}, {paths.valid.sum(-1).mean():.1f} paths per snapshot "
        f"(at most {paths.num_paths})\n"
        f"of {counts['num_drawn']} tracks drawn, {counts['num_out_of_coverage']} were out of "
        f"coverage; the channel vanishes in {counts['num_vanishing']} of those kept"
    )


if __name__ == "__main__":
    command_line.run(main)
