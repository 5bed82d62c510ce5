"""Judge channel predictors on the benchmark of CSI-4CAST, drawn anew by its recipe.

3GPP TR 38.901 CDL by Sionna: 32 antennas (4 x 4, dual-polarised), one user antenna, 300 subcarriers
at 2.4 GHz, a snapshot every 2.352 ms, 16 known and 4 asked for, white noise on the known ones at 0
to 25 dB; profiles A, C and D, three delay spreads, three speeds. Two published figures, those of
holding the last snapshot and of PAD, tell whether the recipe is met. Finished blocks of ten
sequences are kept: a killed run goes on where it stopped, and asking for more sequences adds to it.

Example:
    python experiments/csi4cast_eval.py --sequences 100
    python experiments/csi4cast_eval.py --general B 400 45 --general E 30 3 --sequences 20
"""

import functools
import itertools
import pathlib
import time
import zlib

import numpy as np

from lwmt_sionna.runs import command_line

BLOCK = 10
NUM_HISTORY, NUM_HORIZONS = 16, 4
SNR_DB = [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]
REGULAR = list(itertools.product("ACD", (30, 100, 300), (1, 10, 30)))
# Five slots of 14 symbols of 750 samples and a prefix of 6, at 750 x 30 kHz.
PERIOD = 5 * 14 * (750 + 6) / (750 * 30e3)
ARRAY = {"num_rows": 4, "num_cols": 4, "polarization": "cross"}
SOURCE = "CSI-4CAST, github.com/AI4OPT/CSI-4CAST and its paper, TDD, vanilla noise"
# Published: predictor -> error over all SNRs, and at some of them.
PUBLISHED = {
    "regular": {
        "no prediction": {None: 1.808},
        "AR": {None: 0.787},
        "Wiener": {None: 0.824},
        "PAD": {None: 0.230, 15: 0.170},
        "StemGNN": {None: 0.221},
        "CNN": {None: 0.209},
        "RNN": {
            None: 0.164, 0: 0.196, 5: 0.170, 10: 0.159, 15: 0.154, 20: 0.152, 25: 0.152
        },
        "LLM4CP": {None: 0.141},
        "CSI-4CAST": {None: 0.125, 15: 0.112},
    },
    "general": {
        "PAD": {None: 0.335},
        "RNN": {None: 0.308},
        "LLM4CP": {None: 0.262},
        "CSI-4CAST": {None: 0.260},
    },
}  # fmt: skip
# What a reproduction must meet: ours, its published name, and how closely.
CHECKS = (("hold", "no prediction", 0.05), ("pad", "PAD", 0.10))


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--sequences", type=int, default=100, help="of each setting, in blocks of ten [100]"
    )
    parser.add_argument(
        "--general",
        nargs=3,
        action="append",
        metavar=("PROFILE", "NS", "MPS"),
        help="a setting of one's own (A to E, nanoseconds, m/s) in place of the regular 27; what "
        "is published is the mean over A to E, 30 to 400 ns, 1 to 45 m/s",
    )
    parser.add_argument("--baselines", nargs="+", help="training-free baselines [all], besides PAD")
    parser.add_argument(
        "--direction",
        choices=("uplink", "downlink"),
        default="uplink",
        help="which way Sionna draws: see Tr38901Config; theirs is the uplink [uplink]",
    )
    command_line.add_options(
        parser, "preset", "history_snr", "seed", "workdir", history_snr=SNR_DB, seed=0
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/csi4cast_eval.json"), help="record"
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    if args.sequences < 1:
        raise command_line.UsageError(f"--sequences must be at least 1, not {args.sequences}")
    settings = REGULAR if args.general is None else [read_setting(*g) for g in args.general]

    from lwmt_sionna.models.presets import DEFAULT_PRESET, preset_digest, preset_folder
    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.digests import code_digest
    from lwmt_sionna.runs.parallel import progress_bar
    from lwmt_sionna.runs.store import RunFolder

    predictors = {"pad": lambda history_snr_db: pad, **baselines(args.baselines)}
    presets = [DEFAULT_PRESET] if args.preset is None else args.preset
    inputs = {f"preset_{pathlib.Path(name).name}": preset_folder(name) for name in presets}
    predictors |= {pathlib.Path(name).name: preset(name) for name in presets}
    code = code_digest("lwmt_sionna.link.phy.tr38901", "lwmt_sionna.evaluation.grid")
    blocks = -(-args.sequences // BLOCK)
    errors = {}
    with RunFolder(command_line.workdir(args)) as folder:
        cells = list(itertools.product(range(blocks), settings))
        for block, setting in progress_bar(cells, unit="block"):
            config = world(setting, block, args.seed, args.direction)
            draw = functools.cache(functools.partial(draw_block, config))
            for name, make in predictors.items():
                preset_file = inputs.get(f"preset_{name}")
                key = {
                    "channels": config.to_dict(),
                    "history_snr_db": args.history_snr,
                    "predictor": name,
                    "preset": None if preset_file is None else preset_digest(preset_file),
                    "code": code,
                }
                run = functools.partial(judge, make, draw, args.history_snr, config.seed)
                found = folder.store.compute(key, run, f"{setting} {name}")
                errors.setdefault((setting, name), []).append(found)
    # [sequence, SNR, horizon]
    errors = {
        cell: np.concatenate(parts)[: args.sequences].astype(np.float64)
        for cell, parts in errors.items()
    }
    overall = summarize(errors, settings, list(predictors), args.history_snr)
    checks = [] if args.general else check(overall, args.history_snr)
    published = [
        {"settings": kind, "predictor": name, "history_snr_db": snr, "nmse": nmse, "source": SOURCE}
        for kind, table in PUBLISHED.items()
        for name, row in table.items()
        for snr, nmse in row.items()
    ]
    records.write_record(
        args.out,
        name="csi4cast_eval",
        config={
            "sequences": args.sequences, "settings": settings, "history_snr_db": args.history_snr,
            "predictors": list(predictors),
            "channels": world(settings[0], 0, args.seed, args.direction).to_dict(),
        },
        points=points(errors, args.history_snr),
        seeds=[args.seed],
        inputs=inputs,
        started=started,
        extra={"overall": overall, "checks": checks, "published": published},
    )  # fmt: skip
    kind = "general" if args.general else "regular"
    print(format_table(overall, PUBLISHED[kind], args.history_snr))
    for entry in checks:
        print(
            f"{entry['predictor']}: {entry['nmse']:.3f}, published {entry['published']:.3f}, "
            f"{'met' if entry['met'] else 'NOT met'} within {100 * entry['tolerance']:.0f} %"
        )
    print(f"record: {args.out}")


def read_setting(profile, delay_spread_ns, speed):
    if profile not in tuple("ABCDE"):
        raise command_line.UsageError(f"--general: expected a profile A to E, not {profile}")
    return profile, float(delay_spread_ns), float(speed)


def world(setting, block, seed, direction="uplink"):
    """The channels of one block of a setting."""
    from lwmt_sionna.link.phy.tr38901 import Tr38901Config

    profile, delay_spread_ns, speed = setting
    return Tr38901Config.from_dict(
        {
            "model": f"CDL-{profile}",
            "num_sequences": BLOCK,
            "delay_spread": delay_spread_ns * 1e-9,
            "speed_kmh": [3.6 * speed, 3.6 * speed],
            "sampling_period": PERIOD,
            "num_snapshots": NUM_HISTORY + NUM_HORIZONS,
            "carrier_frequency": 2.4e9,
            "num_subcarriers": 300,
            "subcarrier_spacing": 30e3,
            "array": ARRAY,
            # As they drew it: only with the uplink's motion is PAD as good as published.
            "direction": direction,
            "seed": zlib.crc32(f"{profile} {delay_spread_ns:g} {speed:g} {block} {seed}".encode()),
        }
    )


def draw_block(config):
    from lwmt_sionna.link.phy.tr38901 import draw_channels

    return draw_channels(config).h


def pad(history, num_horizons):
    """Their PAD: one recursion of order 8 for all antennas and subcarriers, fitted to the last one.

    Their transform to angles and delays is unitary, and one recursion for all does not see it.
    """
    from lwmt_sionna.baselines import PooledAutoregression

    return PooledAutoregression(order=8, ridge=1e-4)(history[:, -9:], num_horizons)


def baselines(names):
    """By name: functions from the SNR to a predictor with settings for it."""
    from lwmt_sionna.baselines import CLASSICAL, tuned_baselines

    names = list(CLASSICAL) if names is None else names
    # A fit over 300 subcarriers is slow.
    names = [name for name in names if name != "path_fit"]
    tuned_baselines(15.0, names)
    shape = (ARRAY["num_rows"], ARRAY["num_cols"], 2)

    def make(name, history_snr_db):
        return tuned_baselines(history_snr_db, [name], shape)[name]

    return {name: functools.partial(make, name) for name in names}


def preset(name):
    """A function that loads a preset for the planar array; its weights do not depend on it."""

    @functools.cache
    def load():
        from lwmt_sionna.baselines import ModelPredictor
        from lwmt_sionna.models.presets import load_preset

        model = load_preset(name)
        shape = [ARRAY["num_rows"], ARRAY["num_cols"], 2]
        planar = type(model).from_config({**model.get_config(), "array_shape": shape})
        planar.build((None, NUM_HISTORY, 32, 300, 2))
        planar.set_weights(model.get_weights())
        return ModelPredictor(planar, name, batch_size=BLOCK)

    return lambda history_snr_db: load()


def judge(make, draw, history_snr_db, seed):
    """Errors by their metric: a ratio per antenna over subcarriers, averaged over antennas."""
    from lwmt_sionna.data import add_noise

    h = draw()
    errors = np.empty((len(h), len(history_snr_db), NUM_HORIZONS), np.float32)
    future = h[:, NUM_HISTORY:]
    power = np.sum(np.abs(future) ** 2, axis=3)
    for place, snr in enumerate(history_snr_db):
        noisy = add_noise(h[:, :NUM_HISTORY], snr, np.random.default_rng([seed, place]))
        error = np.sum(np.abs(make(snr)(noisy, NUM_HORIZONS) - future) ** 2, axis=3)
        errors[:, place] = np.mean(error / power, axis=2)
    return errors


def points(errors, history_snr_db):
    rows = []
    for ((profile, delay_spread_ns, speed), name), values in errors.items():
        for place, snr in enumerate(history_snr_db):
            for horizon in range(NUM_HORIZONS):
                rows.append(
                    {
                        "profile": f"CDL-{profile}",
                        "delay_spread_ns": delay_spread_ns,
                        "speed": speed,
                        "history_snr_db": snr,
                        "horizon": horizon + 1,
                        "predictor": name,
                        **interval(values[:, place, horizon]),
                    }
                )
    return rows


def summarize(errors, settings, predictors, history_snr_db):
    """Means over all settings and horizons: at each SNR, over all SNRs, and at each horizon."""
    rows = []
    for name in predictors:
        values = np.concatenate([errors[setting, name] for setting in settings])
        every = {"predictor": name, "history_snr_db": None, "horizon": None}
        rows.append({**every, **interval(values.mean(axis=(1, 2)))})
        for place, snr in enumerate(history_snr_db):
            rows.append({**every, "history_snr_db": snr, **interval(values[:, place].mean(axis=1))})
        for horizon in range(NUM_HORIZONS):
            rows.append(
                {**every, "horizon": horizon + 1, **interval(values[..., horizon].mean(axis=1))}
            )
    return rows


def interval(values):
    """A mean over sequences with its 95 % bootstrap interval; a sequence is a cluster."""
    from lwmt_sionna.evaluation import cluster_mean

    low, high = cluster_mean(values)
    return {
        "nmse": float(np.mean(values)), "nmse_low": low, "nmse_high": high,
        "num_sequences": len(values),
    }  # fmt: skip


def check(overall, history_snr_db):
    """Whether the recipe is met, as far as the published SNRs were run."""
    checks = []
    for ours, theirs, tolerance in CHECKS:
        for snr, published in PUBLISHED["regular"][theirs].items():
            if snr is None and sorted(history_snr_db) != SNR_DB:
                continue
            for row in overall:
                asked = (row["predictor"], row["history_snr_db"], row["horizon"])
                if asked == (ours, snr, None):
                    met = abs(row["nmse"] / published - 1) <= tolerance
                    checks.append(
                        {
                            "predictor": ours, "history_snr_db": snr, "nmse": row["nmse"],
                            "published": published, "tolerance": tolerance, "met": met,
                        }
                    )  # fmt: skip
    return checks


def format_table(overall, published, history_snr_db):
    """Ours, then theirs: over all SNRs, and at each."""
    columns = [None, *history_snr_db]
    table, intervals = {}, {}
    for row in overall:
        if row["horizon"] is None:
            table.setdefault(row["predictor"], {})[row["history_snr_db"]] = row["nmse"]
            if row["history_snr_db"] is None:
                intervals[row["predictor"]] = f"{row['nmse_low']:.3f} to {row['nmse_high']:.3f}"
    table |= {f"published {name}": row for name, row in published.items()}
    head = ["all SNRs", *(f"{snr:g} dB" for snr in history_snr_db)]
    lines = [" " * 24 + "".join(f"{word:>10}" for word in head) + "   95 %, all SNRs"]
    for name, row in table.items():
        cells = [f"{row[snr]:.3f}" if snr in row else "" for snr in columns]
        words = "".join(f"{cell:>10}" for cell in cells)
        lines.append(f"{name:24}{words}   {intervals.get(name, '')}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main)
