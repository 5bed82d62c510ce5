"""Blocks per second of the link: eager, compiled, batched, one point at a time, without decoding.

Every case serves the same drops and counts the same blocks. Steady cases are timed after a first
call; the others include what a user waits for: building and compiling.

Example:
    python experiments/link_benchmark.py --out runs/link_benchmark.json
"""

import pathlib
import statistics
import time

from lwmt_sionna.runs import command_line


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    add = parser.add_argument
    add("--data", default="experiments/data/san_francisco_30kmh_5ms.h5", help="HDF5 file of paths")
    add("--drops", type=int, default=64, help="drops per point")
    add("--batch-size", type=int, default=32, help="drops per call")
    add("--mcs", type=int, default=22, help="scheme of 3GPP TS 38.214, table 1")
    command_line.add_options(parser, "link_snr", "workdir", link_snr=[6.0, 9.0, 12.0, 15.0])
    add("--rounds", type=int, default=3, help="timings of every steady case; the median counts")
    add("--out", type=pathlib.Path, default=pathlib.Path("runs/link_benchmark.json"))
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    if args.rounds < 1:
        parser.error(f"--rounds must be positive. Received: {args.rounds}")

    from lwmt_sionna.data import read_paths
    from lwmt_sionna.link import DropConfig, DropFactory, LinkRunner
    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.digests import code_digest
    from lwmt_sionna.runs.store import RunFolder

    factory = DropFactory(read_paths(args.data), config=DropConfig(num_drops=args.drops))
    drops = factory.at(1)
    h_hat = drops.history[:, :, -1]
    num_users = drops.num_users

    def serve(runner):
        for snr in args.link_snr:
            runner.count(drops.slot, h_hat, args.mcs, snr)

    def steady(compile, batch_size=args.batch_size):
        runner = LinkRunner(batch_size=batch_size, compile=compile)
        runner.count(drops.slot[:batch_size], h_hat[:batch_size], args.mcs, args.link_snr[0])
        return [_timed(lambda: serve(runner)) for _ in range(args.rounds)]

    def informed():
        runner = LinkRunner(batch_size=args.batch_size)
        chosen = {"num_bits_per_symbol": runner.downlink(args.mcs).mcs.num_bits_per_symbol}
        first = slice(0, args.batch_size)
        runner.information(drops.slot[first], h_hat[first], link_snr_db=args.link_snr[0], **chosen)
        return [
            _timed(
                lambda: [
                    runner.information(drops.slot, h_hat, link_snr_db=snr, **chosen)
                    for snr in args.link_snr
                ]
            )
            for _ in range(args.rounds)
        ]

    def one_point_at_a_time():
        total = 0.0
        for snr in args.link_snr:
            total += _timed(
                lambda snr=snr: LinkRunner(batch_size=args.batch_size).count(
                    drops.slot, h_hat, args.mcs, snr
                )
            )
        return [total]

    cases = {
        "eager": (lambda: steady("eager"), False),
        "graph": (lambda: steady("graph"), False),
        "xla": (lambda: steady("xla"), False),
        "xla, one drop per call": (lambda: steady("xla", 1), False),
        "xla, without decoding": (informed, False),
        "points of one sweep": (
            lambda: [_timed(lambda: serve(LinkRunner(batch_size=args.batch_size)))],
            True,
        ),
        "one point at a time": (one_point_at_a_time, True),
    }
    left_out = ("debug", "out", "quiet", "workdir")
    config = {key: value for key, value in vars(args).items() if key not in left_out}
    # A time is kept as long as code, machine, data and settings are the same.
    here = config | {
        "code": code_digest("lwmt_sionna.link.phy.runner", "lwmt_sionna.link.csi.drops"),
        "machine": records.machine_info(),
        "sha256": records.sha256(args.data),
    }
    points = []
    num_blocks = len(args.link_snr) * args.drops * num_users
    with RunFolder(command_line.workdir(args)) as folder:
        for name, (run, compiles) in cases.items():
            seconds = folder.store.compute(here | {"case": name}, run)
            point = {
                "case": name,
                "includes_compilation": compiles,
                "num_points": len(args.link_snr),
                "num_blocks": num_blocks,
                "num_timings": len(seconds),
                "seconds": round(statistics.median(seconds), 3),
                "seconds_min": round(min(seconds), 3),
                "seconds_max": round(max(seconds), 3),
                "blocks_per_s": round(num_blocks / statistics.median(seconds), 1),
            }
            points.append(point)
            print(f"{name:24s} {point['blocks_per_s']:8.1f} blocks/s", flush=True)
    records.write_record(
        args.out,
        name="link_benchmark",
        config=config,
        points=points,
        seeds=[0],
        inputs={pathlib.Path(args.data).stem: args.data},
        started=started,
    )
    print(f"record: {args.out}")


def _timed(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    command_line.run(main)
