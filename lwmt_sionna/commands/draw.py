"""Draw channel sequences of a world of 3GPP TR 38.901 by Sionna PHY.

History and future of a sequence are one realisation. Worlds are in experiments/configs/worlds;
tables `variants.NAME` make a file of each, `CONFIG_NAME.h5`, in the folder `--out`. A killed run
goes on where it stopped when started again with the same arguments.

Example:
    lwmt draw --config worlds/cdl_a_100ns_30kmh_5ms --out data/cdl_a.h5
"""

import pathlib
from collections.abc import Sequence

from lwmt_sionna.runs import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.build_parser(__doc__)
    command_line.add_options(parser, "config")
    parser.add_argument("--out", type=pathlib.Path, help="HDF5 file, or a folder [data]")
    parser.add_argument("--num-sequences", type=int, help="in place of the configured number")
    command_line.add_options(parser, "seed")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.link.phy.tr38901 import Tr38901Config, generate_channels

    overrides = {"num_sequences": args.num_sequences, "seed": args.seed}
    for variant, config in Tr38901Config.variants_from_toml(args.config, overrides).items():
        out = pathlib.Path("data") if args.out is None else args.out
        if variant or args.out is None or out.is_dir():
            out = out / f"{'_'.join(filter(None, (args.config.stem, variant)))}.h5"
        channels = generate_channels(config, out, progress=not args.quiet)
        command_line.say(
            f"{out}: {channels.num_sequences} sequences of {channels.num_snapshots} snapshots, "
            f"{channels.h.shape[2]} antennas and {channels.h.shape[3]} subcarriers; "
            f"{channels.origin}; normalised Doppler {channels.normalized_doppler.mean():.3f}"
        )
