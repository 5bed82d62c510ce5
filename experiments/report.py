"""Write the tables and figures of README and docs from the records, and the map from the code.

A table stands between `<!-- report: NAME -->` and `<!-- end -->`; what stands there is replaced. A
figure carries the digest of the record that it was drawn from; those of other records are drawn
again, with `--redraw` all. With `--check` nothing is written: the program names what differs from
the records and exits with 1.

Example:
    python experiments/report.py
    python experiments/report.py --redraw
    python experiments/report.py --check
"""

import ast
import collections
import functools
import hashlib
import importlib
import itertools
import pathlib
import re
import runpy
import statistics
import sys

from lwmt_sionna.runs import command_line, records

ROOT = pathlib.Path(__file__).resolve().parents[1]
CARD = "lwmt_sionna/models/preset_files/universal/README.md"
PRETRAINED_CARD = "lwmt_sionna/models/preset_files/base/README.md"
TINY_CARD = "lwmt_sionna/models/preset_files/tiny/README.md"
SIGHT_CARD = "lwmt_sionna/models/preset_files/sight/README.md"
CARDS = (CARD, PRETRAINED_CARD, TINY_CARD, SIGHT_CARD)
PAGES = ("README.md", "docs/architecture.md", "docs/results.md", *CARDS)
MARKER = re.compile(r"(<!-- report: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

LABELS = {
    "perfect": "perfect CSI",
    "noisy_perfect": "noisy perfect CSI",
    "causal": "causal ceiling",
    "aligned_hold": "phase-aligned hold",
    "pooled_ar": "pooled AR",
    "local_ar": "local AR",
    "denoised_ar": "denoised local AR",
    "clamped_ar": "AR with clamped poles",
    "direct_ar": "direct multi-step AR",
    "kalman": "Kalman, per bin",
    "wiener": "Wiener",
    "prony": "Prony",
    "pad": "PAD, our reading",
    "path_fit": "path fit",
    "linear": "linear interpolation",
    "pursuit": "matching pursuit",
    "estimator": "**`ChannelEstimator`, untrained**",
    "lmmse": "LMMSE, true statistics",
    "universal": "**preset `universal`**",
    "small": "**preset `small`**",
    "paths": "**preset `paths`**",
    "universal (untrained)": "`universal`, untrained",
    "small (untrained)": "`small`, untrained",
    "paths (untrained)": "`paths`, untrained",
    "gru_seed1": "recurrent network",
    "conv_seed1": "convolutions",
    "factored_seed1": "attention factored into space and time",
    "random_seed1": "random neighbourhoods",
    **{f"sparse_seed{seed}": f"`paths`, seed {seed}" for seed in (2, 3)},
    **{f"dense_seed{seed}": f"dense attention, seed {seed}" for seed in (1, 2, 3)},
}
CEILINGS = ("perfect", "noisy_perfect", "causal", "lmmse")
# Sets of trainings that differ in their seed alone.
SEEDS = {
    "`paths`": ("paths", "sparse_seed2", "sparse_seed3"),
    "dense attention": ("dense_seed1", "dense_seed2", "dense_seed3"),
}
SNR = "history_snr_db"
CSI4CAST_UNITS = {
    "profile": "{}", "speed": "{:g} m/s", "delay_spread_ns": "{:g} ns", "horizon": "horizon {}",
}  # fmt: skip
# Below, what is left of an error is rounding.
EXACT_DB = -90.0
# A lead counts from so many decibels on.
MARGIN_DB = 0.5
# In all worlds the default preset may be behind by the first, and should be ahead by the second.
BEHIND_DB, AHEAD_DB = 0.3, 1.0
# A group of worlds is said to be better or worse from this share of its cells on.
VERDICT_SHARE = 0.25
# What a link gives: in records, and in words.
LINKED = {"goodput": "goodput", "sum_rate": "sum rate"}
GROUPS = {
    "specular": "streets that reflect",
    "diffuse": "streets that scatter",
    "tr38901": "TR 38.901",
    "hardware": "imperfect hardware",
    "sounding": "sounding pilots",
    "array": "planar arrays",
}
# Calibration errors of arrays that have none.
NO_ERROR_DB = -60.0
BLOCKS = {}
FIGURES = ROOT / "docs" / "figures"
# Figure -> record, and the function that draws one from the other.
DRAWN = {
    "attention_benchmark": (
        "attention_benchmark",
        "experiments/attention_benchmark.py:plot_attention_benchmark",
    ),
    "attention_comparison": (
        "attention_comparison",
        "lwmt_sionna.training.figures:plot_attention_comparison",
    ),
    "finetuning": ("finetuning", "lwmt_sionna.training.figures:plot_label_shares"),
    "link_bler": ("link_level_eval", "lwmt_sionna.link.sweep.figures:plot_bler"),
    "link_goodput": ("link_level_eval", "lwmt_sionna.link.sweep.figures:plot_goodput"),
    "link_nmse": ("link_level_eval", "lwmt_sionna.link.sweep.figures:plot_nmse_goodput"),
    "link_pilots": ("link_pilots", "lwmt_sionna.link.sweep.figures:plot_goodput_over_pilots"),
    "link_speed": ("link_wide", "lwmt_sionna.link.sweep.figures:plot_goodput_over_speed"),
    "prediction_nmse": (
        "prediction_eval",
        "lwmt_sionna.evaluation.figures:plot_prediction_errors",
    ),
    "prediction_scatter": (
        "prediction_eval",
        "lwmt_sionna.evaluation.figures:plot_error_scatter",
    ),
    "pretraining": ("pretraining", "lwmt_sionna.training.figures:plot_mask_ablation"),
    "tasks": ("task_eval", "lwmt_sionna.training.figures:plot_tasks"),
    "embeddings": ("task_eval", "lwmt_sionna.training.figures:plot_embeddings"),
    "worlds": ("worlds_eval", "lwmt_sionna.link.sweep.figures:plot_worlds"),
    "tracing_benchmark": (
        "tracing_benchmark",
        "experiments/tracing_benchmark.py:plot_tracing_benchmark",
    ),
}


def block(function):
    """Registers the text between the markers of this name."""
    BLOCKS[function.__name__] = function
    return function


@functools.cache
def read(name):
    """Record `experiments/results/NAME.json`."""
    return records.read_record(ROOT / "experiments" / "results" / f"{name}.json")


@functools.cache
def read_link(name):
    """A record of the link with the names of today, and that of the preset for the policy model."""
    from lwmt_sionna.link.sweep.table import link_record

    record = link_record(read(name))
    named = {"model": preset_of(record)}
    for row in (*record["points"], *record["goodput"]):
        row["policy"] = named.get(row["policy"], row["policy"])
    return record


def preset_of(record):
    """The preset that a record of the link is about."""
    return pathlib.Path(record["config"]["preset"]).name


def label(name):
    return LABELS.get(name, name)


def table(header, rows):
    """A Markdown table; cells that are no strings are written as they are."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def percent(share, digits=0):
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def spread(values, digits=1):
    """Mean and standard deviation over seeds."""
    return f"{statistics.fmean(values):.{digits}f} +- {statistics.stdev(values):.{digits}f}"


def index(rows, *keys):
    """Dictionary of the rows by the values of some keys; the last of equal ones stays."""
    return {tuple(row[key] for key in keys): row for row in rows}


def in_order(rows, key):
    return list(dict.fromkeys(row[key] for row in rows))


def regime_of(row):
    return (
        f"{row['speed_kmh']:.0f} km/h, CSI every {1e3 * row['sampling_period_s']:g} ms, "
        f"normalised Doppler {row['normalized_doppler']:.2f}"
    )


def older():
    """Names of the records that are of other weights of the default than are shipped."""
    preset = CARD.rpartition("/")[0]
    shipped, found = records.sha256(ROOT / preset), []
    for path in sorted((ROOT / "experiments" / "results").glob("*.json")):
        inputs = read(path.stem)["inputs"].values()
        if {each["sha256"] for each in inputs if each["path"] == preset} - {shipped}:
            found.append(path.stem)
    return found


# Since when what has changed predictors without their weights has changed nothing, and which.
PATH_FIT_SINCE, FITTED = "2026-11-29T10:08", {"path_fit", "paths"}
ALIGNED_SINCE, ALIGNED = "2026-11-29T14:17", {"universal"}


def judged_before(since, predictors):
    """Names of the records that are older, and have one of the predictors or policies."""
    found = []
    for path in sorted((ROOT / "experiments" / "results").glob("*.json")):
        record = read(path.stem)
        points = record.get("points", [])
        judged = {point.get("predictor", point.get("policy")) for point in points}
        judged |= {preset_of(record)} if "model" in judged else set()
        if record["created"] < since and judged & predictors:
            found.append(path.stem)
    return found


@block
def older_records():
    lines = {
        "Of earlier weights of `universal` than are shipped": older(),
        "Of an earlier path fit, which `paths` has as well": judged_before(PATH_FIT_SINCE, FITTED),
        "Of an earlier alignment in `universal`": judged_before(ALIGNED_SINCE, ALIGNED),
    }
    told = [
        f"{line}: {', '.join(f'`{name}.json`' for name in names)}."
        for line, names in lines.items()
        if names
    ]
    return " ".join(told or ["All are of what is shipped."]) + "\n"


# --- prediction -------------------------------------------------------------------------------


@block
def prediction():
    points = sorted(read("prediction_eval")["points"], key=lambda p: p["speed_kmh"])
    found = index(points, "speed_kmh", "predictor", "horizon", "subset")
    cases = [(horizon, subset) for horizon in (1, 5) for subset in ("event_free", "quiet")]
    rows = []
    for speed in in_order(points, "speed_kmh"):
        names = [n for n in in_order(points, "predictor") if n not in ("zero", *CEILINGS)]
        names.sort(key=lambda name: -found[speed, name, 1, "event_free"]["nmse_median_db"])
        for name in names:
            cells = [found[speed, name, *case] for case in cases]
            regime = regime_of(cells[0]) if name == names[0] else ""
            figures = [f"{c['nmse_pooled_db']:.1f} / {c['nmse_median_db']:.1f}" for c in cells]
            rows.append([regime, label(name), *figures])
        rows.append(["", "*share of sequences*", *(percent(cell["share"]) for cell in cells)])
    header = ["", "NMSE pooled / median [dB]", "horizon 1: event-free", "quiet"]
    return table([*header, "horizon 5: event-free", "quiet"], rows)


def compare(by, snr_db=None):
    """Leads of the preset `paths` over every other predictor in the cells of the grid, in dB."""
    from lwmt_sionna.evaluation.table import leads

    record = read("prediction_eval_grid")
    if snr_db is not None:
        kept = [p for p in record["points"] if p["history_snr_db"] == snr_db]
        record = record | {"points": kept}
    return leads(record, "paths", by)


@block
def prediction_grid():
    rows = []
    for by in ("nmse_median_db", "nmse_pooled_db"):
        for rival, lead in compare(by).items():
            values = list(lead.values())
            rows.append(
                [
                    by.split("_")[1],
                    label(rival),
                    f"{sum(v > 0 for v in values)} of {len(values)}",
                    sum(v < -MARGIN_DB for v in values),
                    *(f"{f(values):.1f}" for f in (min, statistics.median, max)),
                ]
            )
    behind = f"behind by more than {MARGIN_DB:g} dB"
    header = ["NMSE", "rival", "ahead in cells", behind, "least lead [dB]", "middle", "most"]
    return table(header, rows)


@block
def prediction_network():
    from lwmt_sionna.evaluation.table import seed_gains

    rows = []
    for by in ("nmse_median_db", "nmse_pooled_db"):
        for snr_db in sorted({p["history_snr_db"] for p in read("prediction_eval_grid")["points"]}):
            lead = compare(by, snr_db)["path_fit"]
            means = [
                statistics.fmean(v for key, v in lead.items() if key[-1] == horizon)
                for horizon in (1, 5)
            ]
            name = f"`paths`, histories at {snr_db:g} dB"
            rows.append([by.split("_")[1], name, *(f"{mean:.2f}" for mean in means)])
        for kind, names in SEEDS.items():
            gains = [
                seed_gains(read("prediction_eval_grid"), names, "path_fit", by, horizon)
                for horizon in (1, 5)
            ]
            cells = [f"{statistics.fmean(g):.2f} +- {statistics.stdev(g):.2f}" for g in gains]
            rows.append([by.split("_")[1], f"{kind}, {len(names)} seeds, all cells", *cells])
    return table(["NMSE", "won over the path fit [dB]", "horizon 1", "horizon 5"], rows)


@block
def prediction_arrays():
    rows = []
    for name in ("prediction_eval_16x64", "prediction_eval_64x32"):
        points = [p for p in read(name)["points"] if p["subset"] == "event_free"]
        found = index(points, "predictor", "speed_kmh", "horizon")
        cells = [
            " / ".join(f"{found[who, speed, h]['nmse_median_db']:.1f}" for h in (1, 5))
            for speed in sorted(in_order(points, "speed_kmh"))
            for who in ("small", "denoised_ar")
        ]
        rows.append([name.rpartition("_")[2].replace("x", " x "), *cells])
    ways = ["`small`", "denoised local AR"]
    header = [f"{speed} km/h: {ways[0]}" if way == ways[0] else way
              for speed in (30, 120) for way in ways]  # fmt: skip
    return table(["antennas x subcarriers", *header], rows)


@block
def prediction_small_arrays():
    """Where the default is beside the best training-free predictor of each world, by the median."""
    rows = []
    for size in ("1x64", "4x64"):
        record = read(f"prediction_eval_{size}")
        presets = record["config"]["presets"]
        found = index(record["points"], "scene", SNR, "horizon", "predictor")
        for scene, snr_db in sorted({key[:2] for key in found}):
            cells = []
            for horizon in (1, 5):
                errors = {
                    who: row["nmse_median_db"]
                    for (*world, who), row in found.items()
                    if tuple(world) == (scene, snr_db, horizon) and who not in CEILINGS
                }
                best = min(errors.keys() - set(presets), key=errors.__getitem__)
                own = " / ".join(f"{errors[name] - errors[best]:+.1f}" for name in presets)
                cells += [f"{errors[best]:.1f} ({label(best)})", own]
            world = scene.removeprefix("3GPP TR 38.901, ").removesuffix(", by Sionna PHY")
            rows.append([size.replace("x", " x "), world, f"{snr_db:g} dB", *cells])
    own = " / ".join(label(name) for name in presets)
    ahead = [
        f"{way}: {name}"
        for way in ("horizon 1", "horizon 5")
        for name in ("best training-free [dB]", own)
    ]
    return table(["antennas x subcarriers", "TR 38.901", "histories", *ahead], rows)


@block
def prediction_cost():
    costs = read("prediction_eval")["costs"]
    names = [name for name in in_order(costs, "predictor") if name not in ("zero", *CEILINGS)]
    speeds = sorted(in_order(costs, "speed_kmh"))
    found = index(costs, "predictor", "speed_kmh")
    rows = [[label(n), *(f"{found[n, s]['cpu_ms']:.1f}" for s in speeds)] for n in names]
    header = ["processor time per sequence [ms]", *(f"{speed:.0f} km/h" for speed in speeds)]
    return table(header, rows)


@block
def tuning():
    points = read("tune_baselines")["points"]
    best = index([p for p in points if p["is_best"]], "predictor", "history_snr_db")
    snrs = sorted(in_order(points, "history_snr_db"))
    rows = []
    for name in in_order(points, "predictor"):
        cells = []
        for snr_db in snrs:
            settings = re.sub(r"[{}'\"]", "", str(best[name, snr_db]["settings"]))
            cells.append(f"{best[name, snr_db]['score_db']:.1f}: {settings}")
        rows.append([label(name), *cells])
    header = ["mean NMSE over horizons [dB]: settings", *(f"{snr:g} dB" for snr in snrs)]
    return table(header, rows)


# --- link -------------------------------------------------------------------------------------


def world_table(horizon):
    """Median NMSE in decibels of every predictor in every world."""
    from lwmt_sionna.link.sweep.table import world_points

    record = read("worlds_eval")
    kinds = {p["predictor"]: p["kind"] for p in record["points"]}
    names = [n for n in kinds if n not in ("zero", "perfect", "noisy_perfect")]
    rows = []
    for world, points in world_points(record, 15.0, horizon).items():
        told = {name: point["nmse_median_db"] for name, point in points.items()}
        told = {name: f"{db:.1f}" if db > EXACT_DB else "exact" for name, db in told.items()}
        free = [name for name, point in points.items() if point["kind"] == "training_free"]
        best = min(free, key=lambda name, points=points: points[name]["nmse_median_db"])
        told |= {name: f"**{told[name]}**" for name in free if told[name] == told[best]}
        rows.append([f"`{world}`", *(told.get(name, "-") for name in names)])
    return table(["world", *map(label, names)], rows)


@block
def worlds_near():
    return world_table(1)


@block
def worlds_far():
    return world_table(5)


@block
def worlds_goodput():
    from lwmt_sionna.link.sweep.table import world_points

    record = read("worlds_eval")
    kinds = {p["predictor"]: p["kind"] for p in record["points"]}
    presets = [name for name, kind in kinds.items() if kind == "preset"]
    near, far = (world_points(record, 15.0, h, errors=False) for h in (1, 5))
    rows = []
    for world in near:
        row = [f"`{world}`"]
        for points in (near[world], far[world]):
            free = [p for p in points.values() if p["kind"] == "training_free"]
            best = max(free, key=lambda p: p["goodput"])
            row.append(f"{percent(best['recovered_goodput'])}, {label(best['predictor'])}")
            for name in presets:
                p = points.get(name)
                told = "-" if p is None else percent(p["recovered_goodput"])
                row.append(told if p is None else f"{told}, {p['goodput_verdict']}")
            row.append(percent(points.get("causal", {}).get("recovered_goodput")))
        rows.append(row)
    head = ["best training-free", *map(label, presets), "causal ceiling"]
    head = [f"horizon {h}: {head[0]}" if n == head[0] else n for h in (1, 5) for n in head]
    return table(["goodput won back", *head], rows)


@block
def worlds_groups():
    """Means over the worlds of a group, at every SNR of the histories, and counted verdicts."""
    from lwmt_sionna.link.sweep.table import world_points

    record = read("worlds_eval")
    kinds = {p["predictor"]: p["kind"] for p in record["points"]}
    models = [name for name, kind in kinds.items() if kind in ("preset", "untrained_start")]
    presets = [name for name in models if kinds[name] == "preset"]
    groups = {p["world"]: p["group"] for p in record["points"]}
    rows = []
    for group in dict.fromkeys(groups.values()):
        for snr, horizon in itertools.product(record["config"]["history_snr_db"], (1, 5)):
            told = world_points(record, snr, horizon)
            cells = [points for world, points in told.items() if groups[world] == group]
            best = [
                min(p["nmse_median_db"] for p in points.values() if p["kind"] == "training_free")
                for points in cells
            ]
            row = [group if (snr, horizon) == (record["config"]["history_snr_db"][0], 1) else ""]
            row += [f"{snr:g} dB", horizon, f"{statistics.mean(best):.1f}"]
            for name in models:
                ahead = [
                    p[name]["nmse_median_db"] - least
                    for p, least in zip(cells, best, strict=True)
                    if name in p
                ]
                row.append(f"{statistics.mean(ahead):+.1f}" if ahead else "-")
            told = world_points(record, snr, horizon, errors=False)
            cells = [points for world, points in told.items() if groups[world] == group]
            for name in presets:
                words = [p[name]["goodput_verdict"] for p in cells if name in p]
                counted = [words.count(word) for word in ("better", "worse")]
                row.append(f"{counted[0]} / {counted[1]} of {len(words)}" if words else "-")
            rows.append(row)
    head = ["worlds", "histories", "horizon", "best training-free [dB]", *map(label, models)]
    return table([*head, *(f"{label(name)}: better / worse" for name in presets)], rows)


def default_cells():
    """The default preset against the best of all others, in every cell of every world.

    List of dict: the place, the preset's points (`own` errors, `link`), those of its untrained
    `start` and of `perfect` CSI in the link, and by figure the difference in dB (below zero:
    ahead), its paired interval and the best other.
    """
    from lwmt_sionna.link.sweep.table import world_points
    from lwmt_sionna.models import DEFAULT_PRESET

    record = read("worlds_eval")
    cells = []
    places = itertools.product(record["config"]["history_snr_db"], record["config"]["horizons"])
    for snr, horizon in places:
        linked = world_points(record, snr, horizon, errors=False)
        for world, points in world_points(record, snr, horizon).items():
            own = points.get(DEFAULT_PRESET)
            if own is not None:
                place = {"world": world, "group": own["group"], SNR: snr, "horizon": horizon}
                told = {name: against_others(points, own, name) for name in ("median", "pooled")}
                start = points.get(f"{DEFAULT_PRESET} (untrained)")
                link, ceiling = (linked[world][name] for name in (DEFAULT_PRESET, "perfect"))
                found = {"own": own, "start": start, "link": link, "perfect": ceiling}
                cells.append(place | told | found)
    return cells


def against_others(points, own, figure):
    """Difference in dB of a predictor to the best other one that knows no more, its interval, who.

    Without a paired interval, which records from before presets were compared with each other have
    for training-free rivals alone, the difference is its own.
    """
    name = f"nmse_{figure}_db"
    rivals = [
        p for p in points.values() if p["kind"] in ("training_free", "preset") and p is not own
    ]
    best = min(rivals, key=lambda p: p[name])
    value = own[name] - best[name]
    start = f"nmse_{figure}_others_difference_db"
    if start not in own and best["kind"] == "training_free":
        start = f"nmse_{figure}_difference_db"
    ends = (own.get(f"{start}_{end}", value) for end in ("low", "high"))
    return value, *ends, best["predictor"]


def default_label():
    from lwmt_sionna.models import DEFAULT_PRESET

    return f"`{DEFAULT_PRESET}`"


def link_words(point, quantity):
    """What the paired difference to the best training-free policy says: records keep its ends."""
    low, high = (point[f"{quantity}_difference_{end}"] for end in ("low", "high"))
    return verdict_of(low > 0, high < 0)


def beside_best(point, quantity):
    """The verdict on what differs from the best training-free policy, and by how much."""
    difference = point[f"{quantity}_difference"]
    words = link_words(point, quantity) if difference else "the best"
    return f"{difference:+.2f}, {words}" if words in ("better", "worse") else words


def by_share(better, worse):
    """What counted verdicts say of a group: nothing, unless a quarter or more say it, and most."""
    told = max(better, worse) >= VERDICT_SHARE
    return verdict_of(told and better > worse, told and worse > better)


@block
def worlds_verdicts():
    """The default preset by groups of worlds: one row each."""
    cells = default_cells()
    rows = []
    for group, name in GROUPS.items():
        chosen = [cell for cell in cells if cell["group"] == group]
        if not chosen:
            rows.append([name, *["-"] * 4])
            continue
        shares = [
            statistics.fmean(test(cell["median"]) for cell in chosen)
            for test in (lambda told: told[2] < 0, lambda told: told[1] > 0)
        ]
        linked = []
        for quantity in LINKED:
            words = [link_words(cell["link"], quantity) for cell in chosen]
            linked.append(by_share(*(words.count(w) / len(words) for w in ("better", "worse"))))
        mean = statistics.fmean(cell["median"][0] for cell in chosen)
        rows.append([name, f"{mean:+.1f} dB", by_share(*shares), *linked])
    weights = " (weights before the shipped ones)" if "worlds_eval" in older() else ""
    header = [f"{default_label()}{weights} in"]
    header += ["median NMSE over that of the best other predictor", "verdict"]
    goodput, sum_rate = LINKED.values()
    header += [f"{goodput} against the best training-free policy", sum_rate]
    return table(header, rows)


@block
def worlds_default():
    """How often the default preset is behind or ahead, and the share of its network."""
    cells = default_cells()
    rows = []
    groups = {name: (group,) for group, name in GROUPS.items()}
    groups[f"all but {GROUPS['specular']}"] = tuple(GROUPS)[1:]
    for name, members in groups.items():
        chosen = [cell for cell in cells if cell["group"] in members]
        row = [name, len(chosen)]
        for figure in ("median", "pooled"):
            told = [cell[figure] for cell in chosen]
            behind = sum(t[0] > BEHIND_DB and t[1] > 0 for t in told)
            ahead = sum(t[0] <= -AHEAD_DB and t[2] < 0 for t in told)
            mean = f"{statistics.fmean(t[0] for t in told):+.1f}" if told else "-"
            row += [mean, behind, ahead]
            name = f"nmse_{figure}_db"
            won = [c["start"][name] - c["own"][name] for c in chosen if c["start"] is not None]
            row += [f"{told(won):+.1f}" if won else "-" for told in (statistics.fmean, min)]
        for quantity in LINKED:
            words = [link_words(cell["link"], quantity) for cell in chosen]
            row.append(f"{words.count('better')} / {words.count('worse')}")
        rows.append(row)
    header = [f"{default_label()} in", "cells"]
    for figure in ("median", "pooled"):
        header += [f"{figure} NMSE: mean [dB]", f"behind by more than {BEHIND_DB:g} dB"]
        header += [f"ahead by {AHEAD_DB:g} dB or more", "won: mean [dB]", "least"]
    return table([*header, *(f"{name}: better / worse" for name in LINKED.values())], rows)


@block
def worlds_behind():
    """Where the default preset is behind, world by world."""
    rows = {}
    names = ("median", "pooled", *LINKED)
    for cell in default_cells():
        place = f"{cell[SNR]:g} dB, horizon {cell['horizon']}: "
        for figure in ("median", "pooled"):
            value, low, high, best = cell[figure]
            if value > BEHIND_DB and low > 0:
                told = f"{place}{value:+.1f} ({low:.1f} to {high:.1f}), {label(best)}"
                rows.setdefault(cell["world"], {}).setdefault(figure, []).append(told)
        for quantity in LINKED:
            if link_words(cell["link"], quantity) == "worse":
                difference, low, high = (
                    100 * cell["link"][f"{quantity}_difference{end}"] / cell["perfect"][quantity]
                    for end in ("", "_low", "_high")
                )
                told = f"{place}{difference:.1f} % ({low:.1f} to {high:.1f})"
                rows.setdefault(cell["world"], {}).setdefault(quantity, []).append(told)
    rows = [
        [f"`{world}`", *("; ".join(found.get(name, [])) for name in names)]
        for world, found in rows.items()
    ]
    header = [
        "median NMSE [dB]",
        "pooled NMSE [dB]",
        *(f"{n} of perfect CSI" for n in LINKED.values()),
    ]
    return table([f"{default_label()} is behind in", *header], rows)


@block
def csi4cast():
    """Ours and what is published: over all SNRs, and at each."""
    record, presets = read("csi4cast_eval"), read("csi4cast_presets")
    columns = [None, *record["config"]["history_snr_db"]]
    rows = []
    for source in (record, presets):
        ours = index([r for r in source["overall"] if r["horizon"] is None], "predictor", SNR)
        for name in source["config"]["predictors"]:
            if source is presets and name in record["config"]["predictors"]:
                continue
            cells = [ours[name, snr] for snr in columns]
            told = [f"{cell['nmse']:.3f}" for cell in cells]
            told[0] += f" ({cells[0]['nmse_low']:.3f} to {cells[0]['nmse_high']:.3f})"
            rows.append([label(name), cells[0]["num_sequences"], *told])
    published = [r for r in record["published"] if r["settings"] == "regular"]
    theirs = index(published, "predictor", SNR)
    for name in in_order(published, "predictor"):
        cells = [theirs.get((name, snr)) for snr in columns]
        rows.append([f"*{name}*", "", *("" if c is None else f"{c['nmse']:.3f}" for c in cells)])
    return table(
        ["mean NMSE", "sequences", "all SNRs", *(f"{snr:g} dB" for snr in columns[1:])], rows
    )


@block
def csi4cast_settings():
    """Means over SNRs: by profile and speed, and by horizon."""
    record = read("csi4cast_eval")
    names = record["config"]["predictors"]
    rows = []
    for keys in (("profile", "speed"), ("delay_spread_ns",), ("horizon",)):
        values = collections.defaultdict(list)
        for point in record["points"]:
            values[*(point[key] for key in keys), point["predictor"]].append(point["nmse"])
        for found in in_order([{"place": place[:-1]} for place in values], "place"):
            told = ", ".join(CSI4CAST_UNITS[k].format(v) for k, v in zip(keys, found, strict=True))
            cells = [f"{statistics.mean(values[*found, name]):.3f}" for name in names]
            rows.append([told, *cells])
    return table(["mean NMSE over all SNRs", *map(label, names)], rows)


@block
def csi4cast_checks():
    """Whether the recipe is met: ours against what is published."""
    rows = [
        [
            label(check["predictor"]),
            "all" if check[SNR] is None else f"{check[SNR]:g} dB",
            f"{check['nmse']:.3f}",
            f"{check['published']:.3f}",
            percent(check["tolerance"]),
            "met" if check["met"] else "not met",
        ]
        for check in read("csi4cast_eval")["checks"]
    ]
    return table(["check", "SNRs", "here", "published", "tolerance", "verdict"], rows)


def goodput_of(record, adaptation="fixed"):
    """Rows of the goodput at the reported SNR, by regime, horizon and policy."""
    reported = record["config"]["report_link_snr_db"]
    rows = [r for r in record["goodput"] if r["adaptation"] == adaptation]
    return index([r for r in rows if r["link_snr_db"] == reported], "regime", "horizon", "policy")


def paired(row):
    """What the paired difference of the goodput to the best training-free policy says, if known."""
    if row["policy"] in CEILINGS:
        return "ceiling"
    if row["goodput_reference"] == row["policy"]:
        return "best training-free"
    names = ("goodput_difference", "goodput_difference_low", "goodput_difference_high")
    return "{:+.2f} ({:+.2f} to {:+.2f}): {}".format(
        *(row[name] for name in names), row["goodput_verdict"]
    )


@block
def link():
    record = read_link("link_level_eval")
    mcs = record["config"]["report_mcs"]
    points = [p for p in record["points"] if p["mcs"] == mcs and p["link_snr_db"] == 12.0]
    told = {way: goodput_of(record, way) for way in ("fixed", "inner", "outer")}
    rows, last = [], None
    for p in points:
        key = p["regime"], p["horizon"], p["policy"]
        row = told["fixed"][key]
        rows.append(
            [
                f"{p['regime']}, horizon {p['horizon']}" if key[:2] != last else "",
                label(p["policy"]),
                f"{p['bler']:.3f}",
                f"{p['bler_low']:.3f} - {p['bler_high']:.3f}",
                f"{row['goodput']:.2f}",
                f"{row['goodput_low']:.2f} - {row['goodput_high']:.2f}",
                *(percent(told[way][key]["recovered_goodput"]) for way in told),
                f"{row['sum_rate']:.1f}",
                percent(row["recovered_sum_rate"]),
                *([paired(row)] if "goodput_reference" in row else []),
            ]
        )
        last = key[:2]
    snr = f"{record['config']['report_link_snr_db']:g} dB"
    header = ["", "", "BLER at 12 dB", "95 %", f"goodput per user at {snr}", "95 %"]
    header += ["won back: fixed", "belief", "OLLA", f"sum rate at {snr}", "won back"]
    # Records from before differences were paired have no verdict.
    header += ["goodput against the best training-free policy"][: len(rows[0]) - len(header)]
    drops = {p["speed_kmh"]: p["num_drops"] for p in points}
    told = ", ".join(f"{number} at {speed} km/h" for speed, number in drops.items())
    return table(header, rows) + f"\nDrops: {told}. BLER of {points[0]['mcs_name']}.\n"


@block
def link_lost():
    from lwmt_sionna.link.sweep.table import cells_lost

    record = read_link("link_level_eval")
    preset = preset_of(record)
    lost = cells_lost(record, preset)
    counts = collections.Counter((c["winner"], c["quantity"]) for c in lost)
    winners = list(dict.fromkeys(c["winner"] for c in lost))
    quantities = ("bler", "goodput", "sum_rate")
    own = {
        "bler": sum(p["policy"] == preset for p in record["points"]),
        "goodput": sum(r["policy"] == preset for r in record["goodput"]),
    }
    own["sum_rate"] = len(
        {
            (r["regime"], r["horizon"], r["link_snr_db"])
            for r in record["goodput"]
            if "sum_rate" in r
        }
    )
    rows = [[label(w), *(counts[w, q] for q in quantities)] for w in winners]
    rows.append(["*cells*", *(own[q] for q in quantities)])
    return table([f"ahead of `{preset}`", "BLER", "goodput", "sum rate"], rows)


@block
def link_impaired():
    record = read_link("link_impaired")
    found = goodput_of(record)
    rows = []
    for regime in in_order(record["goodput"], "regime"):
        values = dict(pair.split("=") for pair in regime.split(", ") if "=" in pair)
        # The setting's name when the record was made, and today.
        jump = float(values.get("phase_jump_deg", values.get("phase_jitter_deg")))
        error = float(values["calibration_error_db"])
        told = [f"calibration errors of {error:g} dB"] if error > NO_ERROR_DB else []
        told += [f"phase jumps of {jump:g} degrees"] if jump > 0 else []
        name = " and ".join(told) if told else "sounding pilots alone"
        for policy in ("local_ar", "denoised_ar", "path_fit", preset_of(record)):
            cells = [found[regime, horizon, policy] for horizon in (1, 5)]
            rows.append(
                [
                    name if policy == "local_ar" else "",
                    label(policy),
                    *(f"{c['nmse_median_db']:.1f}" for c in cells),
                    *(percent(c["recovered_goodput"]) for c in cells),
                    *(percent(c["recovered_sum_rate"]) for c in cells),
                    *(beside_best(c, "sum_rate") for c in cells),
                ]
            )
    header = ["", "", "median NMSE [dB], horizon 1", "horizon 5", "goodput won back, horizon 1"]
    header += ["horizon 5", "sum rate won back, horizon 1", "horizon 5"]
    return table([*header, "sum rate beside the best training-free, horizon 1", "horizon 5"], rows)


@block
def link_wide():
    record = read_link("link_wide")
    found = goodput_of(record)
    horizons = sorted(in_order(record["goodput"], "horizon"))
    regimes = in_order(record["goodput"], "regime")
    rows = []
    for policy in in_order(record["goodput"], "policy"):
        cells = []
        for regime in regimes:
            chosen = [found[regime, horizon, policy] for horizon in horizons]
            if policy in ("hold", "perfect"):
                cells.append(" / ".join(f"{row['goodput']:.2f}" for row in chosen))
            else:
                cells.append(" / ".join(percent(row["recovered_goodput"]) for row in chosen))
        unit = ", bit/s/Hz per user" if policy in ("hold", "perfect") else ""
        rows.append([label(policy) + unit, *cells])
    return table([f"horizons {' / '.join(map(str, horizons))}", *regimes], rows)


@block
def link_pilots():
    record = read("link_pilots")
    found = goodput_of(record)
    mcs, low = record["config"]["report_mcs"], min(record["config"]["sweep"]["link_snr_db"])
    points = [p for p in record["points"] if p["mcs"] == mcs and p["link_snr_db"] == low]
    rows = []
    for speed in in_order(points, "speed_kmh"):
        own = [p for p in points if p["speed_kmh"] == speed]
        for i, p in enumerate(own):
            known = p["policy"] == "perfect"
            # Perfect CSI needs no pilots, and all combs have the same drops.
            if known and i:
                continue
            row = found[p["regime"], p["horizon"], p["policy"]]
            share = "all" if p["comb"] == 1 else f"1/{p['comb']}"
            errors = [f"{p[f'nmse_{figure}_db']:.1f}" for figure in ("median", "pooled")]
            rows.append(
                [
                    "" if i else f"{speed} km/h",
                    "-" if known else share,
                    label(p["policy"]),
                    *(["-", "-"] if known else errors),
                    f"{p['bler']:.3f}",
                    f"{p['bler_low']:.3f} - {p['bler_high']:.3f}",
                    f"{row['goodput']:.2f}",
                    f"{row['goodput_low']:.2f} - {row['goodput_high']:.2f}",
                    f"{row['sum_rate']:.1f}",
                    paired(row),
                ]
            )
    snr = f"{record['config']['report_link_snr_db']:g} dB"
    header = ["", "pilots", "", "median NMSE [dB]", "pooled", f"BLER at {low:g} dB", "95 %"]
    header += [f"goodput per user at {snr}", "95 %", f"sum rate at {snr}"]
    drops = {p["speed_kmh"]: p["num_drops"] for p in points}
    told = ", ".join(f"{number} at {speed} km/h" for speed, number in drops.items())
    end = f"\nDrops: {told}. BLER of {points[0]['mcs_name']}.\n"
    return table([*header, "goodput against the best without a network"], rows) + end


@block
def link_abstraction():
    points = read("link_abstraction")["points"]
    rows = []
    for regime in in_order(points, "regime"):
        chosen = [p for p in points if p["regime"] == regime]
        cells = []
        for way in ("information", "sys"):
            errors = [p[f"error_db_{way}"] for p in chosen]
            worst = max(errors, key=abs)
            cells += [f"{statistics.fmean(errors):.2f}", f"{worst:.2f}"]
        rows.append([regime.rpartition("=")[2], len(chosen), *cells])
    header = ["receiver", "curves", "by mutual information: mean error [dB]", "worst"]
    return table([*header, "by SINR (Sionna SYS): mean error [dB]", "worst"], rows)


@block
def link_speed():
    points = read("link_benchmark")["points"]
    rows = [
        [p["case"], f"{p['blocks_per_s']:.0f}", "yes" if p["includes_compilation"] else "no"]
        for p in points
    ]
    return table(["", "blocks per second", "with compilation"], rows)


# --- tracing ----------------------------------------------------------------------------------


@block
def tracing():
    points = read("tracing_benchmark")["points"]
    rows = []
    for p in points:
        if p["part"] == "cost":
            rows.append(
                [
                    p["way"] + (" (default)" if p.get("is_default") else ""),
                    f"{p['samples']:.0e}".replace("e+0", "e"),
                    f"{p['cpu_ms_per_snapshot']:.1f}",
                    f"{p['times_cheaper_than_loop_cpu']:.0f}",
                    f"{p['error_median_db']:.1f} / {p['error_pooled_db']:.1f}",
                ]
            )
    header = ["munich", "rays", "processor time per snapshot [ms]", "times less"]
    return table([*header, "error, median / pooled [dB]"], rows)


@block
def tracing_artefacts():
    points = [p for p in read("tracing_benchmark")["points"] if p["part"] == "artefacts"]
    found = index(points, "way", "scene")
    scenes = in_order(points, "scene")
    rows = [
        [way, *(percent(found[way, scene]["share_30db"], 1) for scene in scenes)]
        for way in in_order(points, "way")
    ]
    return table(["steps with a change above -30 dB", *scenes], rows)


@block
def new_city():
    record = read("new_city")
    rows = [[p["step"], f"{p['seconds']:.0f}"] for p in record["points"]]
    return table(["step of `experiments/new_city.py`", "seconds"], rows)


# --- cost -------------------------------------------------------------------------------------


def attention_points(head_size=4):
    points = read("attention_benchmark")["points"]
    points = [p for p in points if p["mode"] == "train" and p["head_size"] == head_size]
    points.sort(key=lambda p: p["num_tokens"])
    return index(points, "num_snapshots", "num_angle", "num_delay", "subject")


RIVALS = {
    "dense": "Keras dense attention, XLA",
    "torch_sdpa": "PyTorch fused dense",
    "gather": "gather per query, XLA",
    "torch_gather": "gather per query, PyTorch",
}


@block
def attention():
    found = [attention_points(head_size) for head_size in (4, 8)]
    rows = []
    for grid in dict.fromkeys(key[:3] for key in found[0]):
        own = [points[*grid, "lwmt"] for points in found]
        cells = ["{:.0f} ({:.0f}) ms".format(*(row["wall_ms"] for row in own))]
        for rival in RIVALS:
            both = [points.get((*grid, rival)) for points in found]
            ratios = [significant(row["wall_ratio"]) for row in both if row is not None]
            cells.append("{} ({})".format(*ratios) if ratios else "does not fit")
        rows.append([" x ".join(map(str, grid)), *cells])
    return table(["snapshots x angles x delays", "this project", *RIVALS.values()], rows)


def significant(ratio):
    """A ratio to two digits at least."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


def attention_on_accelerator():
    points = read("attention_accelerator")["points"]
    return index(points, "head_size", "num_snapshots", "num_angle", "num_delay", "subject")


@block
def attention_accelerator():
    record, found = read("attention_accelerator"), attention_on_accelerator()
    rows = []
    for place in dict.fromkeys(key[:-1] for key in found):
        own = found[*place, "lwmt"]
        rivals = [found.get((*place, rival)) for rival in RIVALS]
        told = [significant(p["wall_ratio"]) if p else "does not fit" for p in rivals]
        time = f"{own['wall_ms']:.1f} ms, {own['memory_mb'] / 1e3:.1f} GB"
        rows.append([" x ".join(map(str, place[1:])), place[0], time, *told])
    device = " and ".join(record["machine"]["accelerators"])
    head = ["snapshots x angles x delays", "head size", f"this project, {device}", *RIVALS.values()]
    return table(head, rows)


@block
def attention_memory():
    found = attention_points()
    rows = []
    for grid in dict.fromkeys(key[:3] for key in found):
        row = [found.get((*grid, subject)) for subject in ("lwmt", *RIVALS)]
        cells = [f"{p['memory_mb'] / 1e3:.2f}" if p else "does not fit" for p in row]
        rows.append([" x ".join(map(str, grid)), *cells])
    return table(["memory above an idle process [GB]", "this project", *RIVALS.values()], rows)


def benchmarked(point):
    """The preset that a point of the benchmark is about; old records are about `small`."""
    return f"`{pathlib.Path(point.get('preset', 'small')).name}`"


@block
def model_cost():
    points = read("model_benchmark")["points"]
    rows = []
    for p in points:
        if p["task"] == "latency":
            what = f"{benchmarked(p)} predicts, users at once: {p['users']}"
            told = f"{p['wall_ms_per_user']:.1f} ms per user", p["memory_mb"]
        elif p["task"] == "training":
            what = f"training step, {p['num_tokens']} tokens, depth {p['depth']}"
            what += f', batch {p["batch"]}, `block_loop="{p["block_loop"]}"`'
            told = f"{p['wall_ms'] / 1e3:.1f} s", p["peak_memory_mb"]
        else:
            continue
        rows.append([what, told[0], f"{told[1] / 1e3:.1f} GB"])
    return table(["", "time", "memory"], rows)


@block
def backend_cost():
    points = index(read("backend_timing")["points"], "preset", "backend", "way")
    ways = {
        "TensorFlow, XLA": ("tensorflow", "compiled"),
        "JAX, `jax.jit`": ("jax", "compiled"),
        "PyTorch, `torch.compile`": ("torch", "compiled"),
        "PyTorch, eager": ("torch", "eager"),
    }
    rows = []
    for preset in dict.fromkeys(key[0] for key in points):
        own = [points[preset, *way] for way in ways.values()]
        cells = [f"{p['ms_per_user']:.0f} ({p['times_tensorflow']:.1f} x)" for p in own]
        rows.append([f"`{preset}`", *cells])
        cells = [f"{p['first_call_s']:.0f} s" for p in own]
        rows.append([f"`{preset}`, first call", *cells])
    return table(["processor time per user [ms]", *ways], rows)


@block
def model_routing():
    points = [p for p in read("model_benchmark")["points"] if p["task"] == "routing"]
    rows = [
        [
            p["kept"],
            f"{p['speedup']:.1f}" if "speedup" in p else "-",
            *(f"{p[f'nmse_mean_of_db_h{horizon}']:.2f}" for horizon in (1, 5)),
        ]
        for p in points
    ]
    header = [f"patches kept by the encoder of {benchmarked(points[0])}", "times as fast"]
    return table([*header, "NMSE, mean of dB, horizon 1", "horizon 5"], rows)


# --- training ---------------------------------------------------------------------------------

MODES = {
    "scratch": "from scratch",
    "full": "pretrained, all weights",
    "lora": "pretrained, low rank",
    "frozen": "pretrained, frozen backbone",
    "baseline": "no training",
}


def over_test_sets(points):
    """Mean over the test sets of the median error of event-free sequences, by the rest."""
    values = collections.defaultdict(list)
    for p in points:
        if p["subset"] == "event_free":
            values[p["contestant"], p["horizon"]].append(p["nmse_median_db"])
    return {key: statistics.fmean(found) for key, found in values.items()}


@block
def finetuning():
    points = read("finetuning")["points"]
    modes = {p["contestant"]: p["mode"] for p in points}
    errors = over_test_sets(points)
    horizons = sorted(in_order(points, "horizon"))
    rows = []
    for name in sorted(modes, key=lambda name: (list(MODES).index(modes[name]), share_of(name))):
        how = label(name) if modes[name] == "baseline" else MODES[modes[name]]
        share = "-" if modes[name] == "baseline" else percent(share_of(name))
        rows.append([how, share, *(f"{errors[name, horizon]:.1f}" for horizon in horizons)])
    header = ["median NMSE [dB], mean over four test sets", "labels"]
    return table([*header, *(f"horizon {horizon}" for horizon in horizons)], rows)


def share_of(contestant):
    """Share of the labels: the number within `MODE_ATTENTION_SHARE_SEED`."""
    parts = contestant.split("_")
    return float(parts[2]) if len(parts) == 4 else 0.0


@block
def attention_kinds():
    points = read("attention_comparison")["points"]
    errors = over_test_sets(points)
    horizons = sorted(in_order(points, "horizon"))
    rows = []
    kinds = {"ssta": "by physics", "dense": "all tokens", "random": "as many, at random"}
    for kind, name in kinds.items():
        by_seed = [n for n in in_order(points, "contestant") if f"_{kind}_" in n]
        rows.append([name, *(spread([errors[n, h] for n in by_seed]) for h in horizons)])
    header = "who is seen: median NMSE [dB], mean over four test sets, +- of seeds"
    return table([header, *(f"horizon {horizon}" for horizon in horizons)], rows)


@block
def attention_study():
    points = read("attention_study")["points"]
    kinds = {"ssta": "by physics", "dense": "all tokens", "factored": "space and time in turns"}
    kinds |= {"random": "as many, at random", "none": "itself alone"}
    untrained = [p["validation_loss_untrained_db"] for p in points]
    rows = [["before training", spread(untrained, 2), "-"]]
    for kind in in_order(points, "attention"):
        mine = [p for p in points if p["attention"] == kind]
        spent = statistics.fmean(p["processor_s"] for p in mine)
        losses = [p["validation_loss_db"] for p in mine]
        rows.append([kinds[kind], spread(losses, 2), f"{spent:.0f}"])
    header = "loss in worlds of validation [dB], mean +- of seeds"
    return table(["who is seen", header, "processor time of a training [s]"], rows)


TASK_METRICS = {
    ("line_of_sight", "auc"): ("line of sight: ROC AUC", "{:.3f}"),
    ("line_of_sight", "accuracy"): ("line of sight: accuracy", "{:.3f}"),
    ("beam", "top_1"): ("best beam now", "{:.3f}"),
    ("beam", "loss_db"): ("its loss [dB]", "{:.2f}"),
    ("beam", "top_1_ahead"): ("best beam ahead", "{:.3f}"),
    ("beam", "loss_ahead_db"): ("its loss [dB]", "{:.2f}"),
    ("position", "median_m"): ("position: median error [m]", "{:.1f}"),
    ("position", "q90_m"): ("position: 90 % of errors below [m]", "{:.1f}"),
    ("estimation", "nmse_median_db"): ("estimation: median NMSE [dB]", "{:.1f}"),
    ("estimation", "nmse_pooled_db"): ("estimation: pooled NMSE [dB]", "{:.1f}"),
}
TASK_MODELS = {
    "taught": "**head on `base`, taught in other cities**",
    "taught_alone": "taught in other cities, no label here",
    "base": "head on `base`",
    "scratch": "the same head on patches",
    "k_factor": "threshold of the K-factor",
    "delay_spread": "threshold of the delay spread",
    "geometry": "users nearby by range and direction, line of sight unknown",
    "boosting": "gradient boosting",
    "neighbors": "K nearest neighbours",
    "angle": "strongest angle",
    "predicted_angle": "strongest angle of the predicted channel",
    "start": "resolved paths, the untrained estimator",
    "linear": "linear interpolation",
    "pursuit": "matching pursuit",
    "lmmse": "true statistics (ceiling)",
}


@block
def task_scores():
    """Means over seeds, by number of labels; tasks with few windows have fewer of them."""
    values = collections.defaultdict(list)
    for p in read("task_eval")["points"]:
        if p["value"] is not None:
            key = p["task"], p["metric"], p["model"], p["num_labels"]
            values[key].append(p["value"])
    most = {task: max(n for t, _, _, n in values if t == task) for task, *_ in values}
    counts = sorted({n for _, _, _, n in values} - set(most.values()) - {0})
    rows = []
    for (task, metric), (name, form) in TASK_METRICS.items():
        for model in dict.fromkeys(m for t, k, m, _ in values if (t, k) == (task, metric)):
            found = [values.get((task, metric, model, n)) for n in (0, *counts, most[task])]
            cells = [form.format(statistics.fmean(each)) if each else "-" for each in found]
            rows.append([name, TASK_MODELS[model], *cells])
    largest = set(most.values())
    last = f"{largest.pop():,} labels" if len(largest) == 1 else "all labels"
    header = ["figure", "who", "no label", *(f"{n:,} labels" for n in counts), last]
    return table(header, rows)


@block
def task_verdicts():
    rows = []
    for c in read("task_eval")["comparisons"]:
        name, form = TASK_METRICS[c["task"], c["metric"]]
        if c["difference"] is None or c["metric"] in ("accuracy", "loss_db", "loss_ahead_db"):
            continue
        rival = "scratch" if c["against"] == "ten_times_labels" else c["rival"]
        told = TASK_MODELS[rival] + (
            ", ten times the labels" if c["against"] == "ten_times_labels" else ""
        )
        ends = " to ".join(form.format(c[end]) for end in ("low", "high"))
        difference = f"{form.format(c['difference'])} ({ends})"
        rows.append([name, f"{c['num_labels']:,}", told, difference, c["verdict"]])
    header = ["figure", "labels", "head on `base` against", "difference", "verdict"]
    return table(header, rows)


# Mask or impairment -> condition that imitates it.
IMITATED = {
    "tail": "tail",
    "time_comb": "time_comb",
    "tube": "tube",
    "antenna_comb": "antenna_comb",
    "subcarrier_comb": "subcarrier_comb",
    "occlusion": "occlusion",
    "noise": "noise_5db_tail",
    "impairments": "impaired",
}


@block
def pretraining():
    values = collections.defaultdict(list)
    for p in read("pretraining")["points"]:
        values[p["contestant"], p["condition"]].append(p["nmse_pooled_db"])
    mean = {key: statistics.fmean(found) for key, found in values.items()}
    rows = [
        [
            part.replace("_", " "),
            *(
                f"{mean[contestant, condition]:.1f}"
                for contestant in ("curriculum", f"without_{part}", "random_masks")
            ),
        ]
        for part, condition in IMITATED.items()
    ]
    header = ["hidden tokens under what a part imitates, NMSE [dB]", "curriculum"]
    return table([*header, "without this part", "random masks alone"], rows)


EQUAL_TIME = {
    "curriculum": "curriculum",
    "random_masks": "random masks",
    "dense": "dense attention",
    "random_neighbourhood": "random neighbours",
    "interpolation": "interpolation",
    "path_fit": "path fit",
    "base": "`base`",
}


def reconstruction_errors():
    """Errors by contestant and mask: mean over seeds, test sets and sequences, in decibels."""
    values = collections.defaultdict(list)
    for p in read("pretraining_equal_time")["points"]:
        values[p["contestant"], p["condition"]].append(p["nmse_log_mean_db"])
    return {key: statistics.fmean(found) for key, found in values.items()}


def leads_over(errors, name, rivals, mask):
    """Whom one is ahead of, level with and behind, in words."""
    told = collections.defaultdict(list)
    for rival in rivals:
        lead = errors[rival, mask] - errors[name, mask]
        verdict = "ahead" if lead >= MARGIN_DB else "behind" if lead <= -MARGIN_DB else "level"
        told[verdict].append(EQUAL_TIME[rival])
    return "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in told.items())


@block
def equal_time():
    """The curriculum, and the larger preset, against what they must beat."""
    errors = reconstruction_errors()
    rows = []
    for mask in in_order(read("pretraining_equal_time")["points"], "condition"):
        cells = [f"{errors[name, mask]:.1f}" for name in EQUAL_TIME]
        rivals = ["interpolation", "path_fit"]
        told = leads_over(errors, "curriculum", ["random_masks", *rivals], mask)
        larger = leads_over(errors, "base", rivals, mask)
        rows.append([mask.replace("_", " "), *cells, told, larger])
    header = ["hidden by: NMSE [dB]", *EQUAL_TIME.values()]
    margin = f"from {MARGIN_DB:g} dB on"
    return table([*header, f"the curriculum, {margin}", f"`base`, {margin}"], rows)


@block
def equal_time_attention():
    """What sparsity buys at equal time, and the longest history in so much memory."""
    record, errors = read("pretraining_equal_time"), reconstruction_errors()
    masks = in_order(record["points"], "condition")
    mean = {n: statistics.fmean(errors[n, mask] for mask in masks) for n in EQUAL_TIME}
    times, longest = index(record["times"], "contestant"), index(record["longest"], "attention")
    spent = index(record["points"], "contestant")
    rows = []
    kinds = {"curriculum": "ssta", "dense": "dense", "random_neighbourhood": "random"}
    names = EQUAL_TIME | {"curriculum": "by physics"}
    for name, kind in kinds.items():
        lead = mean[name] - mean["curriculum"]
        verdict = "-" if name == "curriculum" else f"{lead:.1f}: {'yes' if lead >= 1 else 'no'}"
        step, most = times[name,], longest.get((kind,))
        rows.append(
            [
                names[name],
                f"{step['step_s']:.2f}",
                step["steps"],
                f"{spent[name,]['train_cpu_s']:.0f}",
                f"{mean[name]:.1f}",
                verdict,
                "-" if most is None else f"{most['snapshots']} ({most['peak_gb']:.1f} GB)",
            ]
        )
    header = ["who is seen", "a step [s]", "steps", "processor time with compiling [s]"]
    header += ["NMSE, mean over masks [dB]", "physics ahead by [dB]: 1 dB?"]
    limits = " / ".join(f"{most:g}" for most in {p["limit_gb"] for p in record["longest"]})
    return table([*header, f"longest history in {limits} GB [snapshots]"], rows)


@block
def position_codes():
    rows = [
        [
            p["position"].replace("_", " "),
            "mask embedding" if p["masking"] == "embedding" else "zeros",
            p["num_parameters"],
            *(
                f"{p[name]:.1f}" if p.get(name) is not None else "-"
                for name in ("test_db", "strided_db", "other_grid_db")
            ),
        ]
        for p in read("position_codes")["points"]
    ]
    header = ["position code", "hidden tokens", "parameters", "as trained [dB]"]
    return table([*header, "every other snapshot", "other grid"], rows)


@block
def card():
    """What the record of its training says of the default preset."""
    path = (ROOT / CARD).with_name("metadata.json")
    metadata = records.read_json(path) if path.is_file() else {}
    training = metadata.get("training", {})
    (point,) = training.get("points", [{}])
    counts = training.get("sequences", {}).values()
    passes = [row.get("validation_loss_db") for row in training.get("history", ())]
    told = {
        "parameters": metadata.get("num_parameters"),
        "sequences to train on": sum(count.get("training", 0) for count in counts),
        "sequences to validate on": sum(count.get("validation", 0) for count in counts),
        "validation before training [dB]": point.get("validation_loss_untrained_db"),
        "validation after each pass [dB]": ", ".join(f"{x:.2f}" for x in passes if x is not None),
        "validation of the weights that were kept [dB]": point.get("validation_loss_db"),
        "hours": training.get("wall_time_s", 0.0) / 3600,
    }
    rows = [
        [name, f"{value:.2f}" if isinstance(value, float) else value]
        for name, value in told.items()
        if value
    ]
    return table(["training", ""], rows)


def pretraining_card(card):
    """What the record of its training says of a pretrained preset."""
    metadata = records.read_json((ROOT / card).with_name("metadata.json"))
    training = metadata["training"]
    history, steps = training["history"], training["config"]["optimization"]
    last = history[-1]["step"]
    # Checkpoints are logged; five to ten of them say enough.
    every = steps["checkpoint_every"] * max(1, last // (5 * steps["checkpoint_every"]))
    losses = [row["loss"] for row in history if row["step"] % every == 0]
    rows = [
        ["parameters", metadata["num_parameters"]],
        ["steps", f"{last} of {steps['steps']}"],
        ["sequences seen, each with a mask and impairments of its own", last * steps["batch_size"]],
        [f"loss after each {every:,} steps [dB]", ", ".join(f"{loss:.2f}" for loss in losses)],
        ["loss of the last steps [dB]", f"{history[-1]['loss']:.2f}"],
    ]
    return table(["pretraining", ""], rows)


@block
def pretrained_card():
    return pretraining_card(PRETRAINED_CARD)


@block
def tiny_card():
    return pretraining_card(TINY_CARD)


@block
def sight_card():
    """In which cities the head was taught, and how it answers for other users there."""
    training = records.read_json((ROOT / SIGHT_CARD).with_name("metadata.json"))["training"]
    rows = [
        [p["scene"], p["num_training"], p["num_held"], f"{p['accuracy']:.3f}"]
        for p in training["points"]
    ]
    return table(["city", "users", "others, held out", "of these right"], rows)


# --- verdicts ---------------------------------------------------------------------------------


def verdict_of(better, worse):
    return "better" if better else "worse" if worse else "no detectable difference"


def by_link(regime, horizon):
    """Whether the preset's goodput differs from that of the best training-free policy, paired."""
    record = read_link("link_level_eval")
    found, preset = goodput_of(record), preset_of(record)
    own = found[regime, horizon, preset]
    other = found[regime, horizon, own["goodput_reference"]]
    told = " against ".join(percent(row["recovered_goodput"]) for row in (own, other))
    ahead = {1: "one period", 5: "five periods"}[horizon]
    rival, speed = label(own["goodput_reference"]), regime.partition(",")[0]
    name = f"`{preset}` against {rival}: goodput at {speed}, {ahead} ahead"
    return name, f"{told} won back", own["goodput_verdict"]


def by_benchmark(model):
    """A preset against a published model, on their benchmark: means over all settings and SNRs."""
    from lwmt_sionna.models import DEFAULT_PRESET

    record = read("csi4cast_presets")
    preset = DEFAULT_PRESET if DEFAULT_PRESET in record["config"]["predictors"] else "small"
    (row,) = (
        r
        for r in record["overall"]
        if r["predictor"] == preset and r[SNR] is None and r["horizon"] is None
    )
    published = next(
        r["nmse"]
        for r in record["published"]
        if (r["settings"], r["predictor"], r[SNR]) == ("regular", model, None)
    )
    return (
        f"`{preset}` on the benchmark of {model}, against its published figure: mean NMSE",
        f"{row['nmse']:.3f} against {published:.3f}",
        verdict_of(row["nmse_high"] < published, row["nmse_low"] > published),
    )


@block
def verdicts():
    errors = over_test_sets(read("finetuning")["points"])
    network = min(v for (n, h), v in errors.items() if h == 1 and n not in ("hold", "denoised_ar"))
    physics = errors["denoised_ar", 1]
    tracing = [p for p in read("tracing_benchmark")["points"] if p["part"] == "cost"]
    loop = next(p for p in tracing if p["way"] == "loop")
    pooled = next(
        p for p in tracing if p["way"] == "pooled candidates" and p["samples"] == loop["samples"]
    )
    cheaper = pooled["times_cheaper_than_loop_cpu"]
    regimes = in_order(read_link("link_level_eval")["goodput"], "regime")
    gather = attention_points()[20, 32, 32, "gather"]
    on_gpu = attention_on_accelerator()[8, 20, 32, 32, "gather"]["wall_ratio"]
    on_gpu = "level" if abs(on_gpu - 1) < 0.05 else f"{significant(on_gpu)} times"
    rows = [
        *(by_link(regime, horizon) for regime in regimes for horizon in (1, 5)),
        by_benchmark("CSI-4CAST"),
        [
            "a pretrained network alone against denoised local AR: NMSE",
            f"{network:.1f} against {physics:.1f} dB",
            verdict_of(network < physics, network > physics),
        ],
        [
            "a training step of the attention against gathering per query, two CPU cores (a GPU)",
            f"{gather['wall_ratio']:.0f} times as fast ({on_gpu})",
            verdict_of(gather["wall_ratio"] > 1, gather["wall_ratio"] < 1),
        ],
        [
            "tracing a track against a loop over receivers, as many rays",
            f"{cheaper:.0f} times less processor time",
            verdict_of(cheaper > 1, cheaper < 1),
        ],
    ]
    return table(["what against what", "measured", "verdict"], rows)


# --- the map ----------------------------------------------------------------------------------


@block
def files():
    rows = []
    package = ROOT / "lwmt_sionna"
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        room = place.parts[0] if len(place.parts) > 1 else ""
        told = ast.get_docstring(ast.parse(path.read_text())) or ""
        if place.name != "__init__.py" and told:
            rows.append([room, f"`{place}`", told.splitlines()[0].rstrip(".")])
    rows = [
        ["" if i and rows[i - 1][0] == row[0] else row[0], *row[1:]] for i, row in enumerate(rows)
    ]
    return table(["room", "file", "what it is"], rows)


# --- figures ----------------------------------------------------------------------------------


def digest_of(record):
    path = ROOT / "experiments" / "results" / f"{record}.json"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stale_figures():
    """Names of the figures that are missing or were drawn from another record."""
    from PIL import Image

    stale = []
    for name, (record, _) in DRAWN.items():
        path = FIGURES / f"{name}.png"
        drawn_from = None
        if path.is_file():
            with Image.open(path) as image:
                drawn_from = image.info.get("Record")
        if drawn_from != digest_of(record):
            stale.append(name)
    return stale


def drawing(name):
    """The function `(record, path)` that draws a figure."""
    home, _, function = DRAWN[name][1].partition(":")
    if home.endswith(".py"):
        return runpy.run_path(str(ROOT / home))[function]
    return getattr(importlib.import_module(home), function)


def draw(name):
    """Draws a figure and writes into it which record it shows."""
    from PIL import Image, PngImagePlugin

    record, path = DRAWN[name][0], FIGURES / f"{name}.png"
    drawing(name)(read(record), path)
    note = PngImagePlugin.PngInfo()
    note.add_text("Record", digest_of(record))
    with Image.open(path) as image:
        image.load()
        image.save(path, pnginfo=note, optimize=True)


# --- pages ------------------------------------------------------------------------------------


def filled(text):
    """A page with the blocks of today's records, and the names of those that differ."""
    differing = []

    def fill(found):
        name = found[2]
        if name not in BLOCKS:
            raise command_line.UsageError(
                f"expected one of {', '.join(BLOCKS)}. Received: <!-- report: {name} -->"
            )
        new = f"{found[1]}{BLOCKS[name]()}{found[3]}"
        if new != found[0]:
            differing.append(name)
        return new

    return MARKER.sub(fill, text), differing


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, tell what differs")
    parser.add_argument("--redraw", action="store_true", help="draw all figures again")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    stale = stale_figures()
    if not args.check:
        for name in DRAWN if args.redraw else stale:
            draw(name)
    stale = [f"docs/figures/{name}.png" for name in stale]
    for page in PAGES:
        path = ROOT / page
        text, differing = filled(path.read_text())
        stale += [f"{page}: {name}" for name in differing]
        if differing and not args.check:
            path.write_text(text)
    print("\n".join(stale) if stale else "everything equals the records")
    if args.check and stale:
        sys.exit(1)


if __name__ == "__main__":
    command_line.run(main)
