"""The result of a link-level evaluation as text, and what figures of it share.

A record is one of `evaluate_link` (of the worlds where the name says so), as a dict or by its path.
"""

import textwrap
from collections.abc import Iterable
from typing import Any

from lwmt_sionna.link.csi.policies import LINK_CEILINGS
from lwmt_sionna.link.sweep.adaptation import ADAPTATIONS
from lwmt_sionna.link.sweep.summary import recovered_share
from lwmt_sionna.runs.figures import as_record
from lwmt_sionna.typing import PathLike

# Errors below are those of rounding: what is predicted is exact.
EXACT_DB = -100.0
_CELL = ("regime", "horizon", "policy")
# Of old records, where one name stood for the SNR of the link, and for that of the history.
_OLD_NAMES = {
    "snr_db": "link_snr_db",
    "report_snr_db": "report_link_snr_db",
    "goodput_snr_db": "goodput_link_snr_db",
}
_WAYS = (*ADAPTATIONS, "own_best")
# Columns of tables that hold words: regime, policy, verdict.
_TEXT_COLUMNS = (0, 2, 13)
_DECODINGS = {
    "chain": "every block decoded",
    "information": "decoding told from mutual information",
    "sys": "decoding told from SINR (Sionna SYS)",
}


def link_record(record: dict[str, Any] | PathLike) -> dict[str, Any]:
    """A record with the names of today, whenever it was written.

    Rows of records from before schemes were adapted say that they are of the best fixed one.
    """
    record = as_record(record)

    def renamed(row):
        return {_OLD_NAMES.get(name, name): value for name, value in row.items()}

    config = renamed(record["config"])
    config = {"report_adaptation": "fixed", **config, "sweep": renamed(config["sweep"])}
    return {
        **record,
        "config": config,
        "points": [renamed(row) for row in record["points"]],
        "goodput": [{"adaptation": "fixed", **renamed(row)} for row in record["goodput"]],
    }


def goodput_of(
    record: dict[str, Any] | PathLike, adaptation: str | None = None
) -> list[dict[str, Any]]:
    """Rows of the goodput with one way of choosing schemes, see `ADAPTATIONS`.

    The reported one of the record when None; where schemes were not adapted, the best fixed one is
    all there is.
    """
    record = link_record(record)
    adaptation = record["config"]["report_adaptation"] if adaptation is None else adaptation
    rows = record["goodput"]
    chosen = [row for row in rows if row["adaptation"] == adaptation]
    return chosen if chosen else [row for row in rows if row["adaptation"] == "fixed"]


def format_table(record: dict[str, Any] | PathLike) -> str:
    """The result as text: one line per regime, horizon and policy."""
    record = link_record(record)
    mcs, snr = record["config"]["report_mcs"], record["config"]["report_link_snr_db"]
    rows = goodput_of(record)
    goodput = {_cell(row): row for row in rows if row["link_snr_db"] == snr}
    chosen = [p for p in record["points"] if p["mcs"] == mcs and p["link_snr_db"] == snr]
    lines: list[tuple[str, ...]] = [
        ("", "", "", "NMSE [dB]", "event-free", "BLER", "", "goodput", "won", "sum rate", "won",
         "weakest", "against the best", ""),
        ("regime", "horizon", "policy", "", "", "", "95 %", "[b/s/Hz]", "back", "[b/s/Hz]", "back",
         "5 %", "training-free, 95 %", "verdict"),
    ]  # fmt: skip
    for point in chosen:
        _part(lines, 2, point)
        row = goodput[_cell(point)]
        lines.append(
            (
                point["regime"],
                str(point["horizon"]),
                point["policy"],
                _pair(point, ""),
                _pair(point, "_event_free"),
                f"{point['bler']:.3f}",
                f"{point['bler_low']:.3f} - {point['bler_high']:.3f}",
                f"{row['goodput']:.2f}",
                _percent(row["recovered_goodput"]),
                f"{point['sum_rate']:.1f}",
                _percent(row["recovered_sum_rate"]),
                f"{point['user_rate_q05']:.2f}",
                *_compared(row),
            )
        )
    return "\n".join(
        [
            *_caption(record, chosen, rows[0]["adaptation"], snr),
            "",
            *_aligned(lines),
            "",
            *(
                "{regime}: of {num_sequences} sequences, {num_vanished} vanish within the history, "
                "{num_not_heard} are no longer heard, {num_grouped} can be grouped.".format(**users)
                for users in record["users"]
            ),
        ]
    )


def recovered_goodput(record: dict[str, Any] | PathLike) -> list[dict[str, Any]]:
    """Share of the goodput that age costs, won back by each policy at the reported link SNR.

    See `recovered_share`. Besides each way of choosing schemes (see `ADAPTATIONS`) there is
    `own_best`: every policy, hold and perfect included, has the way that suits it best.

    Returns:
        List of dict with `regime`, `horizon`, `policy` and per way `goodput_WAY` [bit/s/Hz] and
        `recovered_WAY`; None where a way is missing or there is nothing to win back.
    """
    record = link_record(record)
    link_snr_db = record["config"]["report_link_snr_db"]
    found = [row for row in record["goodput"] if row["link_snr_db"] == link_snr_db]
    best: dict[Any, dict[str, Any]] = {}
    for row in found:
        kept = best.setdefault(_cell(row), row)
        best[_cell(row)] = max(kept, row, key=lambda row: row["goodput"])
    found += [{**row, "adaptation": "own_best"} for row in best.values()]
    columns = [f"{kind}_{way}" for way in _WAYS for kind in ("goodput", "recovered")]
    rows: dict[Any, dict[str, Any]] = {}
    for row, share in zip(found, recovered_share(found, "goodput")):
        place = dict(zip(_CELL, _cell(row)))
        cell = rows.setdefault(_cell(row), {**place, **dict.fromkeys(columns)})
        cell[f"goodput_{row['adaptation']}"] = row["goodput"]
        cell[f"recovered_{row['adaptation']}"] = share
    return list(rows.values())


def cells_lost(record: dict[str, Any] | PathLike, policy: str = "model") -> list[dict[str, Any]]:
    """Cells in which another policy that knows no more is better.

    Returns:
        List of dict with `regime`, `horizon`, `link_snr_db`, `quantity` ("bler", "goodput" or
        "sum_rate"), `detail` (scheme or way of choosing schemes), `winner`, the values `of_winner`
        and `of_policy`, and `verdict`, what their paired difference says of the policy; the best of
        the winners of a cell. The verdict is None where the record compares with another policy.
    """
    record = link_record(record)
    cells: dict[Any, dict[str, dict[str, Any]]] = {}
    for point in record["points"]:
        cells.setdefault((*_place(point), "bler", point["mcs_name"]), {})[point["policy"]] = point
    for row in record["goodput"]:
        cells.setdefault((*_place(row), "goodput", row["adaptation"]), {})[row["policy"]] = row
        if "sum_rate" in row:
            cells.setdefault((*_place(row), "sum_rate", ""), {})[row["policy"]] = row
    lost = []
    for (regime, horizon, link_snr_db, quantity, detail), rows in cells.items():
        if policy not in rows:
            continue
        sign = -1.0 if quantity == "bler" else 1.0
        values = {name: row[quantity] for name, row in rows.items()}
        rivals = {name: x for name, x in values.items() if name not in (*LINK_CEILINGS, policy)}
        winner = max(rivals, key=lambda name: sign * rivals[name], default=None)
        if winner is None or sign * rivals[winner] <= sign * values[policy]:
            continue
        own = rows[policy]
        told = own.get(f"{quantity}_reference") == winner
        lost.append(
            {
                "regime": regime,
                "horizon": horizon,
                "link_snr_db": link_snr_db,
                "quantity": quantity,
                "detail": detail,
                "winner": winner,
                "of_winner": rivals[winner],
                "of_policy": values[policy],
                "verdict": own.get(f"{quantity}_verdict") if told else None,
            }
        )
    return lost


def format_comparison(record: dict[str, Any] | PathLike, policy: str = "model") -> str:
    """What each policy wins back of what age costs, and where a rival beats one, as text."""
    record = link_record(record)
    lines = [("regime", "horizon", "policy", *ADAPTATIONS, "own best")]
    for row in recovered_goodput(record):
        _part(lines, 1, row)
        ways = (
            f"{row[f'goodput_{way}']:.3f} {_percent(row[f'recovered_{way}']):>6s}"
            if row[f"goodput_{way}"] is not None
            else "-"
            for way in _WAYS
        )
        lines.append((row["regime"], str(row["horizon"]), row["policy"], *ways))
    lost = cells_lost(record, policy)
    num_cells = _num_cells(record, policy)
    told = sum(cell["verdict"] == "worse" for cell in lost)
    cells = [("regime", "horizon", "SNR", "quantity", "", "best rival", "its", policy, "paired")]
    cells += [
        (
            cell["regime"], str(cell["horizon"]), f"{cell['link_snr_db']:g}", cell["quantity"],
            cell["detail"], cell["winner"], f"{cell['of_winner']:.4f}", f"{cell['of_policy']:.4f}",
            cell["verdict"] or "-",
        )
        for cell in lost
    ]  # fmt: skip
    return "\n".join(
        [
            "Goodput per user [bit/s/Hz] and its share won back between hold and perfect CSI, at",
            f"{record['config']['report_link_snr_db']:g} dB link SNR: with the best fixed scheme, "
            "with schemes by the base station's belief",
            "(inner) or adapted by an outer loop, and with the way that suits each policy best.",
            "",
            *_aligned(lines),
            "",
            f"Cells in which a rival without knowledge of the future beats {policy}: {len(lost)} "
            f"of {num_cells}, {told} of them by a detectable difference.",
            *(["", *_aligned(cells)] if lost else []),
        ]
    )


def world_points(
    record: dict[str, Any] | PathLike, history_snr_db: float, horizon: int, errors: bool = True
) -> dict[str, dict[str, dict[str, Any]]]:
    """Points of a record of `experiments/worlds_eval.py`, by world and predictor.

    With `errors` those that tell errors, of event-free sequences where events are known; without,
    those that tell of the link, which serves all.
    """
    record = as_record(record)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for point in record["points"]:
        if (point["history_snr_db"], point["horizon"]) == (history_snr_db, horizon):
            world = found.setdefault(point["world"], {})
            if point["subset"] == ("event_free" if errors else "all"):
                world[point["predictor"]] = point
            elif errors:
                world.setdefault(point["predictor"], point)
    return found


def format_worlds(record: dict[str, Any] | PathLike) -> str:
    """A record of `experiments/worlds_eval.py` as text: one line per world and horizon."""
    record = as_record(record)
    ratios = record["config"]["history_snr_db"]
    snr = ratios[len(ratios) // 2]
    kinds = {p["predictor"]: p["kind"] for p in record["points"]}
    models = [name for name, kind in kinds.items() if kind in ("preset", "untrained_start")]
    presets = [name for name in models if kinds[name] == "preset"]
    shown = [*models, "causal"]
    head = ["world", "horizon", "best training-free", *shown, "best training-free"]
    lines = [
        tuple([*head, *(column for name in presets for column in (name, "")), "causal"]),
    ]
    for horizon in record["config"]["horizons"]:
        linked = world_points(record, snr, horizon, errors=False)
        for world, points in world_points(record, snr, horizon).items():
            free = [p for p in points.values() if p["kind"] == "training_free"]
            best = min(free, key=lambda p: p["nmse_median_db"])
            line = [world, str(horizon), f"{best['nmse_median_db']:.1f} {best['predictor']}"]
            line += [_db(points.get(name)) for name in shown]
            free = [p for p in linked[world].values() if p["kind"] == "training_free"]
            best = max(free, key=lambda p: p["goodput"])
            line.append(f"{_percent(best['recovered_goodput'])} {best['predictor']}")
            for name in presets:
                point = linked[world].get(name, {})
                line.append(_percent(point.get("recovered_goodput")))
                line.append(point.get("goodput_verdict", ""))
            line.append(_percent(linked[world].get("causal", {}).get("recovered_goodput")))
            lines.append(tuple(line))
        lines.append(("",) * len(lines[0]))
    return "\n".join(
        [
            textwrap.fill(
                f"Histories at {snr:g} dB. Left: median NMSE [dB], of event-free sequences where "
                "paths are known. Right: share of the goodput between hold and perfect CSI that is "
                f"won back at {record['config']['link_snr_db']:g} dB link SNR, and what the paired "
                "difference to the best training-free policy allows to say. Causal: the ceiling, "
                "where paths are known.",
                96,
            ),
            "",
            *_aligned(lines[:-1]),
        ]
    )


def _db(point):
    return "-" if point is None else f"{max(point['nmse_median_db'], -99.9):.1f}"


def _num_cells(record, policy):
    points = sum(point["policy"] == policy for point in record["points"])
    rows = [row for row in record["goodput"] if row["policy"] == policy]
    return points + len(rows) + len({_place(row) for row in rows if "sum_rate" in row})


def _place(row):
    return row["regime"], row["horizon"], row["link_snr_db"]


def _caption(record, chosen, adaptation, snr):
    blocks = span({point["num_blocks"] for point in chosen})
    drops = span({point["num_drops"] for point in chosen})
    scheme = ADAPTATIONS[adaptation]
    decoding = _DECODINGS[record["config"]["sweep"].get("decoding", "chain")]
    return [
        f"BLER of {chosen[0]['mcs_name']}, goodput per user with {scheme}, sum rate of all users;",
        f"all at {snr:g} dB link SNR, {blocks} blocks from {drops} drops a point, {decoding}.",
        "NMSE: pooled / median. Event-free: users without path births and deaths between the last",
        "measurement and the slot. Won back: share of the goodput or sum rate between hold and",
        "perfect CSI. Weakest 5 %: the rate that 95 % of the users exceed. Verdicts: by the paired",
        "difference of the goodput over drops to the training-free policy with the largest mean,",
        "which that choice favours: what is better is so with caution.",
    ]


def _compared(row):
    """The paired difference of a row's goodput in words, and its verdict."""
    reference, low = row.get("goodput_reference"), row.get("goodput_difference_low")
    if row["policy"] in LINK_CEILINGS:
        return "", "ceiling"
    if reference == row["policy"]:
        return "", "best training-free"
    if reference is None or low is None:
        return "-", "-"
    difference, high = row["goodput_difference"], row["goodput_difference_high"]
    return f"{difference:+.2f} ({low:+.2f} to {high:+.2f})", row["goodput_verdict"]


def _part(lines, num_heads, row):
    """An empty line before the first one of another regime or horizon."""
    if len(lines) > num_heads and lines[-1][:2] != (row["regime"], str(row["horizon"])):
        lines.append(("",) * len(lines[0]))


def _aligned(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in _TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _cell(point):
    return tuple(point[name] for name in _CELL)


def _pair(point, suffix):
    values = [point.get(f"nmse_{kind}_db{suffix}") for kind in ("pooled", "median")]
    if None in values:
        return "-"
    told = ["exact" if value < EXACT_DB else f"{value:.1f}" for value in values]
    return "exact" if told == ["exact"] * 2 else " / ".join(told)


def _percent(share):
    return "-" if share is None else f"{100 * share:.0f} %"


def span(values: Iterable[int]) -> str:
    """str, one number, or the smallest and the largest of several."""
    values = set(values)
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
