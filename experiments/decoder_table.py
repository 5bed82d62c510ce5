"""Measure where the LDPC decoder stops failing, for the link's fast mode and its link adaptation.

Blocks of every scheme and size are decoded in white Gaussian noise. A killed run goes on with the
first scheme that is missing. The shipped table, lwmt_sionna/link/decoder_table.json, came
from the defaults.

Example:
    python experiments/decoder_table.py --out lwmt_sionna/link/decoder_table.json
    python experiments/decoder_table.py --iterations 8 --mcs 4 13 22 --out runs/decoder_table.json
"""

import functools
import json
import pathlib

from lwmt_sionna.runs import command_line


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    add = parser.add_argument
    add("--out", type=pathlib.Path, required=True, help="JSON file to write")
    add("--mcs", nargs="+", type=int, metavar="INDEX", default=list(range(3, 29)))
    add("--symbols", nargs="+", type=int, metavar="N", default=[320, 1280], help="block sizes")
    add("--iterations", type=int, default=20, help="iterations of the decoder")
    add("--cn-update", default="boxplus-phi", help="check-node update of the decoder")
    add("--blocks", type=int, default=1600, help="blocks per scheme and size")
    command_line.add_options(parser, "seed", "workdir", seed=1)
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    import dataclasses

    import sionna.phy

    from lwmt_sionna.link import get_mcs
    from lwmt_sionna.link.decoding import measure_waterfall
    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.digests import code_digest
    from lwmt_sionna.runs.parallel import progress_bar
    from lwmt_sionna.runs.store import RunFolder

    # A wrong index is told before the others are measured.
    for mcs in args.mcs:
        get_mcs(mcs)
    settings = {
        "num_iterations": args.iterations,
        "cn_update": args.cn_update,
        "num_blocks": args.blocks,
        "seed": args.seed,
    }
    code = code_digest("lwmt_sionna.link.decoding")

    def measure(mcs, size):
        # A seed per code: it comes out the same whether or not others were measured before.
        sionna.phy.config.seed = 10_000 * args.seed + 100 * mcs + size % 97
        waterfall, num_blocks = measure_waterfall(
            mcs, size, args.iterations, args.cn_update, args.blocks
        )
        row = {"mcs": mcs, "num_symbols": size, "blocks": num_blocks}
        return row | {name: round(x, 5) for name, x in dataclasses.asdict(waterfall).items()}

    rows = []
    codes = [(mcs, size) for size in sorted(args.symbols) for mcs in sorted(args.mcs)]
    with RunFolder(command_line.workdir(args)) as folder:
        for mcs, size in progress_bar(codes, unit="code", show=False if args.quiet else None):
            key = {**settings, "code": code, "mcs": mcs, "num_symbols": size}
            rows.append(folder.store.compute(key, functools.partial(measure, mcs, size)))
    text = ",\n  ".join(json.dumps(row) for row in rows)
    head = json.dumps(settings)[1:-1]
    with records.atomic_path(args.out) as temporary:
        temporary.write_text(f'{{{head},\n "waterfalls": [\n  {text}\n]}}\n', encoding="utf-8")
    print(f"{args.out}: {len(rows)} codes")


if __name__ == "__main__":
    command_line.run(main)
