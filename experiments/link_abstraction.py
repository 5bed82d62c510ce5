"""Hold the link's fast modes against the full chain: the SNR that 10 % block errors need.

The same drops, bits, noise and policies go through the chain with decoding, through mutual
information at the decoder's input, and through Sionna SYS's effective SINR. A killed run goes on
where it stopped.

Example:
    python experiments/link_abstraction.py --config experiments/configs/link_abstraction.toml \\
        --out runs/link_abstraction
"""

import dataclasses
import pathlib
import time

from lwmt_sionna.runs import command_line

DECODINGS = ("chain", "information", "sys")


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    add = parser.add_argument
    add("--config", type=pathlib.Path, required=True, help="TOML file of a LinkEvalConfig")
    add("--out", type=pathlib.Path, required=True, help="folder for records and points")
    add("--drops", type=int, metavar="N", help="drops per regime, in place of the configured ones")
    add("--bler", type=float, default=0.1, help="block error rate to compare at [0.1]")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    if not 0 < args.bler < 1:
        parser.error(f"--bler lies between 0 and 1. Received: {args.bler}")

    import numpy as np

    from lwmt_sionna.link import LinkEvalConfig, evaluate_link
    from lwmt_sionna.link.sweep.figures import required_snr_db
    from lwmt_sionna.runs import records

    config = LinkEvalConfig.from_toml(args.config, {"drops": {"num_drops": args.drops}})
    curves = {}
    for decoding in DECODINGS:
        sweep = dataclasses.replace(config.sweep, decoding=decoding)
        record = evaluate_link(
            dataclasses.replace(config, sweep=sweep),
            args.out / decoding,
            progress=False if args.quiet else None,
        )
        for point in record["points"]:
            key = tuple(point[name] for name in ("regime", "horizon", "policy", "mcs"))
            curves.setdefault(key, {}).setdefault(decoding, []).append(point)
    points = []
    for (regime, horizon, policy, mcs), found in curves.items():
        needed = {name: required_snr_db(curve, args.bler) for name, curve in found.items()}
        if any(value is None or not np.isfinite(value) for value in needed.values()):
            continue
        low, high = (
            required_snr_db(found["chain"], args.bler, f"bler_{end}") for end in ("low", "high")
        )
        points.append(
            {
                "regime": regime,
                "horizon": horizon,
                "policy": policy,
                "mcs": mcs,
                "mcs_name": found["chain"][0]["mcs_name"],
                "num_drops": found["chain"][0]["num_drops"],
                "num_blocks": found["chain"][0]["num_blocks"],
                "snr_db_chain": needed["chain"],
                "snr_db_chain_low": low,
                "snr_db_chain_high": high,
                **{f"snr_db_{name}": needed[name] for name in DECODINGS[1:]},
                **{f"error_db_{n}": needed[n] - needed["chain"] for n in DECODINGS[1:]},
            }
        )
    records.write_record(
        args.out / "link_abstraction.json",
        name="link_abstraction",
        config=config,
        points=points,
        seeds={"drops": config.drops.seed, "link": config.sweep.seed},
        inputs={pathlib.Path(path).stem: path for path in config.data},
        started=started,
    )
    print(f"link SNR that {100 * args.bler:g} % block errors need, against the full chain [dB]")
    for point in points:
        print(
            f"{point['regime']:28s} horizon {point['horizon']} {point['policy']:12s} "
            f"{point['mcs_name']:30s} {point['snr_db_chain']:6.2f}  information "
            f"{point['error_db_information']:+.2f}  sys {point['error_db_sys']:+.2f}"
        )
    for name in DECODINGS[1:]:
        errors = np.abs([point[f"error_db_{name}"] for point in points])
        mean, worst = errors.mean(), errors.max()
        print(f"{name}: {len(errors)} curves, off by {mean:.2f} dB on average, {worst:.2f} at most")
    print(f"record: {args.out / 'link_abstraction.json'}")


if __name__ == "__main__":
    command_line.run(main)
