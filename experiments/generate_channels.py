"""Draw channel sequences of a world of 3GPP TR 38.901 by Sionna PHY.

History and future of a sequence are one realisation. Worlds are in experiments/configs/worlds. A
killed run goes on where it stopped when started again with the same arguments.

Example:
    python experiments/generate_channels.py \\
        --config experiments/configs/worlds/cdl_a_100ns_30kmh_5ms.toml --out data/cdl_a.h5
"""

import pathlib

from lwmt_sionna.runs import command_line


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a Tr38901Config"
    )
    parser.add_argument("--out", type=pathlib.Path, help="HDF5 file to write [data/CONFIG.h5]")
    parser.add_argument("--num-sequences", type=int, help="in place of the configured number")
    command_line.add_options(parser, "seed")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.link.phy.tr38901 import Tr38901Config, generate_channels

    overrides = {"num_sequences": args.num_sequences, "seed": args.seed}
    config = Tr38901Config.from_toml(args.config, overrides)
    out = pathlib.Path("data") / f"{args.config.stem}.h5" if args.out is None else args.out
    channels = generate_channels(config, out, progress=not args.quiet)
    print(
        f"{out}: {channels.num_sequences} sequences of {channels.num_snapshots} snapshots, "
        f"{channels.h.shape[2]} antennas and {channels.h.shape[3]} subcarriers; {channels.origin}; "
        f"normalised Doppler {channels.normalized_doppler.mean():.3f}"
    )


if __name__ == "__main__":
    command_line.run(main)
