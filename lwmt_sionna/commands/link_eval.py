"""Block errors and goodput of a multi-user downlink whose precoder knows an aged channel.

Every CSI policy meets the same users, bits, noise and receiver; only the channel that the precoder
is built on differs. The run prints a table and writes a record and figures: block error rates,
goodput, its distribution over users, the SNR needed over the horizon. A line of the table ends in a
verdict: whether the goodput differs from that of the best training-free policy on the same drops.
A killed run goes on where it stopped when started again with the same arguments.

Policies: perfect, noisy_perfect, causal (what could be foreseen at best), every baseline by its
name (hold, pooled_ar, local_ar, ...), model (the first --preset; further ones have policies of
their own), every shipped preset by its name, preset:PATH for a further model, and module:object for
your own: a Keras model, or a callable (history, num_horizons) -> prediction on complex arrays
[batch, time, antenna, subcarrier]. Where sounding is sparse (--config link_pilots): linear,
pursuit, estimator, estimator:PATH, and lmmse, which knows the true statistics.

Example:
    lwmt link-eval --config link_demo --out runs/demo
    PYTHONPATH=. lwmt link-eval --config link_demo --policy my_module:MyPredictor --out runs/mine
"""

import pathlib
from collections.abc import Sequence

from lwmt_sionna.runs import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.build_parser(__doc__)
    command_line.add_options(parser, "config")
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, help="folder for record, figures and points"
    )
    group = parser.add_argument_group("in place of configured values")
    shared = ("data", "preset", "horizons", "history_snr", "link_snr", "seed")
    command_line.add_options(group, *shared)
    add = group.add_argument
    add("--policies", nargs="+", metavar="POLICY", help="CSI policies")
    add("--policy", action="append", metavar="POLICY", help="one more CSI policy; repeatable")
    add("--mcs", nargs="+", type=int, metavar="INDEX", help="schemes of 3GPP TS 38.214, table 1")
    add("--drops", type=int, metavar="N", help="drops of users per regime")
    add("--slots", type=int, metavar="N", help="slots with fresh bits and noise per drop")
    add(
        "--decoding",
        choices=("chain", "information", "sys"),
        help="decode every block, or tell block errors from mutual information or SINR (fast)",
    )
    add("--batch-size", type=int, metavar="N", help="drops per call of the compiled link")
    add("--receiver", choices=("ls", "lmmse", "perfect"), help="channel knowledge of the users")
    group = parser.add_argument_group("where to compute")
    command_line.add_options(group, "workers", "dask", workers=1)
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.link import LinkEvalConfig, evaluate_link, format_table

    config = LinkEvalConfig.from_toml(args.config, overrides=_overrides(args))
    further = [*_further_models(args.preset), *(args.policy or ())]
    config = config.with_swept(args.mcs, args.link_snr).with_policies(further)
    record = evaluate_link(
        config,
        args.out,
        progress=False if args.quiet else None,
        workers=args.workers,
        dask=args.dask,
    )
    command_line.say(format_table(record))
    command_line.say(
        f"\n{args.out}: {', '.join(sorted(path.name for path in args.out.glob('link_*')))}"
    )


def _further_models(presets):
    """Policies of the presets after the first, which stands behind the policy `model`."""
    from lwmt_sionna.models import list_presets

    names = presets[1:] if presets else ()
    return [name if name in list_presets() else f"preset:{name}" for name in names]


def _overrides(args):
    histories = args.history_snr
    several = histories is not None and len(histories) > 1
    return {
        "data": args.data,
        "policies": args.policies,
        "preset": args.preset[0] if args.preset else None,
        "downlink": {"receiver": args.receiver},
        "drops": {
            "num_drops": args.drops,
            "history_snr_db": None if histories is None else histories[0],
            "seed": args.seed,
        },
        "sweep": {
            "horizons": args.horizons,
            "num_slots": args.slots,
            "decoding": args.decoding,
            "batch_size": args.batch_size,
            "seed": args.seed,
        },
        # A regime for each.
        "vary": {"drops.history_snr_db": histories if several else None},
    }
