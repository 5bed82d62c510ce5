"""The result of a link-level evaluation as text."""

__all__ = ["format_table", "goodput_of"]


def goodput_of(record, adaptation=None):
    """Rows of the goodput with one way of choosing schemes.

    Args:
        record: dict, a record of `evaluate_link`.
        adaptation: str or None, see `lwmt_sionna.link.summary.ADAPTATIONS`; the reported one of the
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
        ("", "", "", "NMSE [dB]", "event-free", "BLER", "", "goodput", "won", "weakest", "sum rate",
         "won"),
        ("regime", "horizon", "policy", "", "", "", "95 %", "[b/s/Hz]", "back", "5 %", "[b/s/Hz]",
         "back"),
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
                f"{row['user_goodput_q05']:.2f}",
                f"{point['sum_rate']:.1f}",
                _percent(row["recovered_sum_rate"]),
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
        "perfect CSI. Weakest 5 %: the goodput that 95 % of the users exceed.",
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
