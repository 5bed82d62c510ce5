"""Block errors and goodput of a multi-user downlink whose precoder knows an aged channel.

Every CSI policy meets the same users, bits, noise and receiver; only the channel that the precoder
is built on differs. The run prints a table and writes a record and figures: block error rates,
goodput, its distribution over users, the SNR needed over the horizon. A killed run goes on where it
stopped when started again with the same arguments.

Policies: perfect, noisy_perfect, every baseline by its name (hold, pooled_ar, local_ar, ...), model
(see --preset), every shipped preset by its name, preset:PATH for a further model, and module:object
for your own: a Keras model, or a callable (history, num_horizons) -> prediction on complex arrays
[batch, time, antenna, subcarrier].

Example:
    python experiments/link_level_eval.py --config experiments/configs/link_demo.toml \\
        --out runs/demo
    PYTHONPATH=. python experiments/link_level_eval.py \\
        --config experiments/configs/link_demo.toml --policy my_module:MyPredictor --out runs/mine
"""

import pathlib

from lwmt_sionna.runs import command_line


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    add = parser.add_argument
    add("--config", type=pathlib.Path, required=True, help="TOML file: what to evaluate")
    add("--out", type=pathlib.Path, required=True, help="folder for record, figures and points")
    group = parser.add_argument_group("in place of configured values")
    add = group.add_argument
    add("--data", nargs="+", metavar="FILE", help="HDF5 files with paths, one regime each")
    add("--policies", nargs="+", metavar="POLICY", help="CSI policies")
    add("--policy", action="append", metavar="POLICY", help="one more CSI policy; repeatable")
    add("--preset", help="name or folder of the preset behind the policy `model`")
    add("--horizons", nargs="+", type=int, metavar="H", help="snapshots ahead")
    add("--link-snr", nargs="+", type=float, metavar="DB", help="link SNR in dB")
    add("--mcs", nargs="+", type=int, metavar="INDEX", help="schemes of 3GPP TS 38.214, table 1")
    add("--history-snr", type=float, metavar="DB", help="SNR of the measured history in dB")
    add("--drops", type=int, metavar="N", help="drops of users per regime")
    add("--slots", type=int, metavar="N", help="slots with fresh bits and noise per drop")
    add(
        "--decoding",
        choices=("chain", "information", "sys"),
        help="decode every block, or tell block errors from mutual information or SINR (fast)",
    )
    add("--batch-size", type=int, metavar="N", help="drops per call of the compiled link")
    add("--receiver", choices=("ls", "lmmse", "perfect"), help="channel knowledge of the users")
    add("--seed", type=int, help="seed of grouping, history noise, bits and noise")
    group = parser.add_argument_group("where to compute")
    add = group.add_argument
    add("--workers", type=int, default=1, metavar="N", help="processes on this machine [1]")
    add("--dask", metavar="ADDRESS", help="Dask scheduler, such as tcp://10.0.0.1:8786")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.link import LinkEvalConfig, evaluate_link, format_table

    config = LinkEvalConfig.from_toml(args.config, overrides=_overrides(args))
    config = config.with_swept(args.mcs, args.link_snr).with_policies(args.policy or ())
    record = evaluate_link(
        config,
        args.out,
        progress=False if args.quiet else None,
        workers=args.workers,
        dask=args.dask,
    )
    print(format_table(record))
    print(f"\n{args.out}: {', '.join(sorted(path.name for path in args.out.glob('link_*')))}")


def _overrides(args):
    return {
        "data": args.data,
        "policies": args.policies,
        "preset": args.preset,
        "downlink": {"receiver": args.receiver},
        "drops": {
            "num_drops": args.drops,
            "history_snr_db": args.history_snr,
            "seed": args.seed,
        },
        "sweep": {
            "horizons": args.horizons,
            "num_slots": args.slots,
            "decoding": args.decoding,
            "batch_size": args.batch_size,
            "seed": args.seed,
        },
    }


if __name__ == "__main__":
    command_line.run(main)
