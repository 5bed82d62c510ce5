"""From a record of the link: what each policy wins back of what age costs, and where a model loses.

Example:
    python experiments/link_comparison.py experiments/results/link_level_eval.json
"""

import pathlib

from lwmt_sionna.runs import command_line


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument("record", type=pathlib.Path, help="JSON record of link_level_eval.py")
    parser.add_argument("--policy", default="model", help="policy whose lost cells are listed")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.link.sweep.table import format_comparison

    print(format_comparison(args.record, args.policy))


if __name__ == "__main__":
    command_line.run(main)
