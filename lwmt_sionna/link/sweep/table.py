"""The result of a link-level evaluation as text."""

__all__ = ["cells_lost", "format_comparison", "format_table", "goodput_of", "recovered_goodput"]

# They know what no policy can know.
_CEILINGS = ("perfect", "noisy_perfect")
_WAYS = ("fixed", "inner", "outer")


def goodput_of(record, adaptation=None):
    """Rows of the goodput with one way of choosing schemes.

    Args:
        record: dict, a record of `evaluate_link`.
        adaptation: str or None, see `summary.ADAPTATIONS`; the reported one of the
            record when None. Where schemes were not adapted, the best fixed one is all there is.

    Returns:
        List of dict.
    """
    if adaptation is None:
        adaptation = record["config"].get("report_adaptation", "fixed")
    rows = record["goodput"]
    chosen = [row for row in rows if row.get("adaptation", "fixed") == adaptation]
    return chosen if chosen else [row for row in rows if row.get("adaptation", "fixed") == "fixed"]


def format_table(record):
    """The result as text: one line per regime, horizon and policy.

    Args:
        record: dict, a record of `evaluate_link`.

    Returns:
        str of several lines.
    """
    mcs, snr = record["config"]["report_mcs"], record["config"]["report_snr_db"]
    rows = goodput_of(record)
    goodput = {_cell(row): row for row in rows if row["snr_db"] == snr}
    chosen = [p for p in record["points"] if p["mcs"] == mcs and p["snr_db"] == snr]
    lines = [
        ("", "", "", "NMSE [dB]", "event-free", "BLER", "", "goodput", "won", "sum rate", "won",
         "weakest"),
        ("regime", "horizon", "policy", "", "", "", "95 %", "[b/s/Hz]", "back", "[b/s/Hz]", "back",
         "5 %"),
    ]  # fmt: skip
    for point in chosen:
        if len(lines) > 2 and lines[-1][:2] != (point["regime"], str(point["horizon"])):
            lines.append(("",) * len(lines[0]))
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
            )
        )
    return "\n".join(
        [
            *_caption(record, chosen, rows[0].get("adaptation", "fixed"), snr),
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


def recovered_goodput(record, snr_db=None):
    """Share of the goodput that age costs, won back by each policy, with schemes adapted.

    `(g(policy) - g(hold)) / (g(perfect) - g(hold))`, `g` being the mean goodput of a user. Besides
    each way of choosing schemes (see `summary.ADAPTATIONS`) there is `own_best`:
    every policy, hold and perfect included, has the way that suits it best.

    Args:
        record: dict, a record of `evaluate_link`.
        snr_db: float or None, link SNR [dB]; the reported one when None.

    Returns:
        List of dict with `regime`, `horizon`, `policy` and per way `goodput_WAY` [bit/s/Hz] and
        `recovered_WAY`; None where a way is missing or there is nothing to win back.
    """
    snr_db = record["config"]["report_snr_db"] if snr_db is None else snr_db
    cells = {}
    for row in record["goodput"]:
        if row["snr_db"] == snr_db:
            ways = cells.setdefault(_cell(row), {})
            ways[row.get("adaptation", "fixed")] = row["goodput"]
    for ways in cells.values():
        ways["own_best"] = max(ways.values())
    rows = []
    for (regime, horizon, policy), ways in cells.items():
        row = {"regime": regime, "horizon": horizon, "policy": policy}
        for way in (*_WAYS, "own_best"):
            low, high = (cells.get((regime, horizon, p), {}).get(way) for p in ("hold", "perfect"))
            row[f"goodput_{way}"] = value = ways.get(way)
            known = None not in (low, high, value) and high - low > 0.01 * high
            row[f"recovered_{way}"] = (value - low) / (high - low) if known else None
        rows.append(row)
    return rows


def cells_lost(record, policy="model"):
    """Cells in which another policy that knows no more is better.

    Args:
        record: dict, a record of `evaluate_link`.
        policy: str.

    Returns:
        List of dict with `regime`, `horizon`, `snr_db`, `quantity` ("bler", "goodput" or
        "sum_rate"), `detail` (scheme or way of choosing schemes), `winner`, and the values
        `of_winner` and `of_policy`; the best of the winners of a cell.
    """
    cells = {}
    for point in record["points"]:
        key = (*_place(point), "bler", point["mcs_name"])
        cells.setdefault(key, {})[point["policy"]] = point["bler"]
    for row in record["goodput"]:
        key = (*_place(row), "goodput", row.get("adaptation", "fixed"))
        cells.setdefault(key, {})[row["policy"]] = row["goodput"]
        if "sum_rate" in row:
            cells.setdefault((*_place(row), "sum_rate", ""), {})[row["policy"]] = row["sum_rate"]
    lost = []
    for (regime, horizon, snr_db, quantity, detail), values in cells.items():
        if policy not in values:
            continue
        sign = -1.0 if quantity == "bler" else 1.0
        rivals = {name: x for name, x in values.items() if name not in (*_CEILINGS, policy)}
        winner = max(rivals, key=lambda name: sign * rivals[name], default=None)
        if winner is None or sign * rivals[winner] <= sign * values[policy]:
            continue
        lost.append(
            {
                "regime": regime,
                "horizon": horizon,
                "snr_db": snr_db,
                "quantity": quantity,
                "detail": detail,
                "winner": winner,
                "of_winner": rivals[winner],
                "of_policy": values[policy],
            }
        )
    return lost


def format_comparison(record, policy="model"):
    """What each policy wins back of what age costs, and where a rival beats one, as text.

    Args:
        record: dict, a record of `evaluate_link`.
        policy: str, the policy whose lost cells are listed.

    Returns:
        str of several lines.
    """
    lines = [("regime", "horizon", "policy", *_WAYS, "own best")]
    for row in recovered_goodput(record):
        if len(lines) > 1 and lines[-1][:2] != (row["regime"], str(row["horizon"])):
            lines.append(("",) * len(lines[0]))
        ways = (
            f"{row[f'goodput_{way}']:.3f} {_percent(row[f'recovered_{way}']):>6s}"
            if row[f"goodput_{way}"] is not None
            else "-"
            for way in (*_WAYS, "own_best")
        )
        lines.append((row["regime"], str(row["horizon"]), row["policy"], *ways))
    lost = cells_lost(record, policy)
    num_cells = _num_cells(record, policy)
    cells = [("regime", "horizon", "SNR", "quantity", "", "best rival", "its", policy)]
    cells += [
        (
            cell["regime"], str(cell["horizon"]), f"{cell['snr_db']:g}", cell["quantity"],
            cell["detail"], cell["winner"], f"{cell['of_winner']:.4f}", f"{cell['of_policy']:.4f}",
        )
        for cell in lost
    ]  # fmt: skip
    return "\n".join(
        [
            "Goodput per user [bit/s/Hz] and its share won back between hold and perfect CSI, at",
            f"{record['config']['report_snr_db']:g} dB link SNR: with the best fixed scheme, with "
            "schemes by the base station's belief",
            "(inner) or adapted by an outer loop, and with the way that suits each policy best.",
            "",
            *_aligned(lines),
            "",
            f"Cells in which a rival without knowledge of the future beats {policy}: {len(lost)} "
            f"of {num_cells}.",
            *(["", *_aligned(cells)] if lost else []),
        ]
    )


def _num_cells(record, policy):
    points = sum(point["policy"] == policy for point in record["points"])
    rows = [row for row in record["goodput"] if row["policy"] == policy]
    return points + len(rows) + len({_place(row) for row in rows if "sum_rate" in row})


def _place(row):
    return row["regime"], row["horizon"], row["snr_db"]


def _caption(record, chosen, adaptation, snr):
    blocks = _span({point["num_blocks"] for point in chosen})
    drops = _span({point["num_drops"] for point in chosen})
    scheme = {
        "fixed": "the best fixed scheme",
        "inner": "schemes chosen by the base station's belief",
        "outer": "schemes adapted by an outer loop",
    }[adaptation]
    decoding = {
        "chain": "every block decoded",
        "information": "decoding told from mutual information",
        "sys": "decoding told from SINR (Sionna SYS)",
    }[record["config"]["sweep"].get("decoding", "chain")]
    return [
        f"BLER of {chosen[0]['mcs_name']}, goodput per user with {scheme}, sum rate of all users;",
        f"all at {snr:g} dB link SNR, {blocks} blocks from {drops} drops a point, {decoding}.",
        "NMSE: pooled / median. Event-free: users without path births and deaths between the last",
        "measurement and the slot. Won back: share of the goodput or sum rate between hold and",
        "perfect CSI. Weakest 5 %: the rate that 95 % of the users exceed.",
    ]


def _aligned(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in (0, 2) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _cell(point):
    return point["regime"], point["horizon"], point["policy"]


def _pair(point, suffix):
    pooled, median = (point.get(f"nmse_{kind}_db{suffix}") for kind in ("pooled", "median"))
    if pooled is None or median is None:
        return "-"
    if pooled < -100:
        return "exact"
    return f"{pooled:.1f} / {median:.1f}"


def _percent(share):
    return "-" if share is None else f"{100 * share:.0f} %"


def _span(values):
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
