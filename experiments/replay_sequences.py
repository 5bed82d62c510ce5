"""Make of traced sequences those of another speed and period on the same tracks, without tracing.

Snapshots between the stored ones are interpolated path by path.

Example:
    python experiments/replay_sequences.py --data data/wide_san_francisco_30kmh_5ms.h5 \\
        --speed 3 --period 2.5e-3 --out data/wide_san_francisco_3kmh_2p5ms.h5
"""

import dataclasses
import pathlib

from lwmt_sionna.runs import command_line


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    add = parser.add_argument
    add("--data", type=pathlib.Path, required=True, help="HDF5 file of paths, all at one speed")
    add("--speed", type=float, required=True, metavar="KMH", help="new speed in km/h")
    add("--period", type=float, required=True, metavar="S", help="new time between snapshots in s")
    add("--out", type=pathlib.Path, required=True, help="HDF5 file to write")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    import numpy as np

    from lwmt_sionna.data import read_paths, replay, write_paths
    from lwmt_sionna.runs import records

    paths = read_paths(args.data)
    # Drawn speeds differ a little from the one that was asked for.
    stored = round(float(np.median(paths.speed)) * 3.6)
    if np.ptp(paths.speed) * 3.6 > 0.05 * stored:
        raise command_line.UsageError(
            f"{args.data}: users move at {3.6 * paths.speed.min():.1f} to "
            f"{3.6 * paths.speed.max():.1f} km/h, not at one speed"
        )
    replayed = replay(paths, args.speed / stored, args.period)
    origin = {"file": args.data.name, "sha256": records.sha256(args.data)}
    replayed = dataclasses.replace(
        replayed, metadata={**replayed.metadata, "replayed_from": origin}
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_paths(args.out, replayed)
    print(
        f"{args.out}: {replayed.num_sequences} sequences at {args.speed:g} km/h, a snapshot every "
        f"{1e3 * args.period:g} ms, {replayed.traced.mean():.0%} of them traced"
    )


if __name__ == "__main__":
    command_line.run(main)
