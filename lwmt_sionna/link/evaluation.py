"""The link-level evaluation: from a configuration to points, table, record and figures."""

import dataclasses
import logging
import pathlib
import time

from lwmt_sionna import records
from lwmt_sionna.configuration import from_toml
from lwmt_sionna.data import read_paths
from lwmt_sionna.link.config import DownlinkConfig
from lwmt_sionna.link.drops import DropConfig, DropFactory
from lwmt_sionna.link.policies import make_policy
from lwmt_sionna.link.statistics import best_fixed_mcs, recovered_share
from lwmt_sionna.link.store import PointStore
from lwmt_sionna.link.sweep import SweepConfig, run_sweep
from lwmt_sionna.link.uplink import SoundingConfig

__all__ = ["LinkEvalConfig", "evaluate_link", "format_table"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LinkEvalConfig:
    """Everything that a link-level evaluation depends on.

    Args:
        data: tuple of str, HDF5 files with paths, one regime (speed, CSI period) each.
        policies: tuple of str, names for `make_policy`.
        preset: str, preset (name or folder) of the policy `model`.
        report_mcs: int or None, scheme of the BLER that the table and the figure show; the middle
            one of the sweep when None.
        report_snr_db: float or None, link SNR of the table [dB]; the highest when None.
        downlink: `DownlinkConfig`.
        drops: `DropConfig`.
        sounding: `SoundingConfig`.
        sweep: `SweepConfig`.
        baselines: dict of dicts, per policy the arguments of its constructor in
            `lwmt_sionna.baselines`; the defaults where there are none.
    """

    data: tuple = ()
    policies: tuple = ("perfect", "hold", "pooled_ar", "local_ar", "model")
    preset: str = "small"
    report_mcs: int | None = None
    report_snr_db: float | None = None
    downlink: DownlinkConfig = dataclasses.field(default_factory=DownlinkConfig)
    drops: DropConfig = dataclasses.field(default_factory=DropConfig)
    sounding: SoundingConfig = dataclasses.field(default_factory=SoundingConfig)
    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    baselines: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in ("data", "policies"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"`{name}` is a list. Received: {name}={value!r}")
            object.__setattr__(self, name, tuple(str(item) for item in value))
        if not self.policies or len(set(self.policies)) != len(self.policies):
            raise ValueError(
                f"`policies` must be a list of different names. Received: {self.policies}"
            )
        unknown = sorted(set(self.baselines) - set(self.policies))
        if unknown:
            raise ValueError(
                f"`baselines` holds settings of policies that are not evaluated: {unknown}. "
                f"Received: policies={self.policies}"
            )
        schemes, ratios = self.sweep.mcs, self.sweep.snr_db
        if self.report_mcs is None:
            object.__setattr__(self, "report_mcs", schemes[len(schemes) // 2])
        if self.report_snr_db is None:
            object.__setattr__(self, "report_snr_db", max(ratios))
        if self.report_mcs not in schemes:
            raise ValueError(
                f"The reported scheme must be swept: mcs={schemes}. "
                f"Received: report_mcs={self.report_mcs}"
            )
        if self.report_snr_db not in ratios:
            raise ValueError(
                f"The reported SNR must be swept: snr_db={ratios}. "
                f"Received: report_snr_db={self.report_snr_db}"
            )

    def with_policies(self, names):
        """The same configuration with further policies; those that are there already stay once."""
        names = [name for name in dict.fromkeys(names) if name not in self.policies]
        return dataclasses.replace(self, policies=(*self.policies, *names))

    @classmethod
    def from_toml(cls, path, overrides=None):
        """Reads a configuration; an unknown key is an error.

        Args:
            path: path of a TOML file with the fields as keys and the tables `downlink`, `drops`,
                `sounding`, `sweep` and `baselines`.
            overrides: dict or None, values in place of those of the file, nested like them.
        """
        return from_toml(
            cls,
            path,
            overrides=overrides,
            downlink=DownlinkConfig,
            drops=DropConfig,
            sounding=SoundingConfig,
            sweep=SweepConfig,
        )


def evaluate_link(config, out, progress=None):
    """Runs the evaluation; a killed run goes on with the first point that is missing.

    Args:
        config: `LinkEvalConfig`.
        out: path of a folder. It receives `link_level_eval.json` (the record), `link_bler.png` and
            `link_goodput.png`, and keeps finished points in `points.jsonl`.
        progress: bool or None, show a progress bar; None shows one on a terminal.

    Returns:
        The record, a dict.
    """
    started = time.time()
    out = pathlib.Path(out)
    if not config.data:
        raise ValueError("There is no data to evaluate on. Received: data=()")
    for path in config.data:
        if not pathlib.Path(path).is_file():
            raise ValueError(f"There is no data file here. Received: data={path}")
    policies = [
        make_policy(
            name,
            preset=config.preset,
            history_snr_db=config.drops.history_snr_db,
            seed=config.drops.seed,
            settings=config.baselines.get(name),
            num_horizons=max(config.sweep.horizons),
        )
        for name in config.policies
    ]
    factories = []
    for path in config.data:
        try:
            factories.append(
                DropFactory(read_paths(path), config.downlink, config.drops, config.sounding)
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    _check_regimes(factories, config)
    points = run_sweep(
        factories, policies, config.sweep, PointStore(out / "points.jsonl"), progress=progress
    )

    inputs = {pathlib.Path(path).stem: path for path in config.data}
    for policy in policies:
        if policy.source is not None:
            inputs[policy.name] = policy.source
    record = records.write_record(
        out / "link_level_eval.json",
        name="link_level_eval",
        config=config,
        points=points,
        seeds={"drops": config.drops.seed, "link": config.sweep.seed},
        inputs=inputs,
        started=started,
        extra={
            "goodput": _goodput(points),
            "users": [
                {"regime": factory.name, "scene": factory.scene, **factory.counts}
                for factory in factories
            ],
        },
    )
    from lwmt_sionna import plots

    plots.plot_bler(record, out / "link_bler.png", mcs=config.report_mcs)
    plots.plot_goodput(record, out / "link_goodput.png")
    return record


def _goodput(points):
    rows = best_fixed_mcs(points)
    for quantity in ("goodput", "sum_rate"):
        for row, share in zip(rows, recovered_share(rows, quantity)):
            row[f"recovered_{quantity}"] = share
    return rows


def _check_regimes(factories, config):
    names = [factory.name for factory in factories]
    if len(set(names)) != len(names):
        raise ValueError(f"Every data file needs a regime of its own. Received: {names}")
    for factory in factories:
        if max(config.sweep.horizons) > factory.max_horizon:
            raise ValueError(
                f"{factory.name}: the sequences allow horizons from 1 to {factory.max_horizon}. "
                f"Received: horizons={config.sweep.horizons}"
            )


def format_table(record):
    """The result as text: one line per regime, horizon and policy.

    Args:
        record: dict, a record of `evaluate_link`.

    Returns:
        str of several lines.
    """
    mcs, snr = record["config"]["report_mcs"], record["config"]["report_snr_db"]
    goodput = {_cell(row): row for row in record["goodput"] if row["snr_db"] == snr}
    chosen = [p for p in record["points"] if p["mcs"] == mcs and p["snr_db"] == snr]
    rows = [
        ("", "", "", "NMSE [dB]", "event-free", "BLER", "", "event-", "goodput", "sum rate", "won"),
        ("regime", "horizon", "policy", "", "", "", "95 %", "free", "[b/s/Hz]", "[b/s/Hz]", "back"),
    ]
    for point in chosen:
        if len(rows) > 2 and rows[-1][:2] != (point["regime"], str(point["horizon"])):
            rows.append(("",) * len(rows[0]))
        free = point.get("bler_event_free")
        rows.append(
            (
                point["regime"],
                str(point["horizon"]),
                point["policy"],
                _pair(point, ""),
                _pair(point, "_event_free"),
                f"{point['bler']:.3f}",
                f"{point['bler_low']:.3f} - {point['bler_high']:.3f}",
                "-" if free is None else f"{free:.3f}",
                f"{goodput[_cell(point)]['goodput']:.2f}",
                f"{point['sum_rate']:.1f}",
                _percent(goodput[_cell(point)]["recovered_sum_rate"]),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 2) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    blocks = _span({point["num_blocks"] for point in chosen})
    drops = _span({point["num_drops"] for point in chosen})
    return "\n".join(
        [
            f"BLER of {chosen[0]['mcs_name']}, goodput per user with the best fixed scheme, sum "
            f"rate of {record['config']['downlink']['num_users']} users;",
            f"all at {snr:g} dB link SNR, {blocks} blocks from {drops} drops a point. NMSE: pooled "
            "/ median. Event-free: users",
            "without path births and deaths between the last measurement and the slot. Won back: "
            "share of the sum rate",
            "between hold and perfect CSI.",
            "",
            *lines,
            "",
            *(
                "{regime}: of {num_sequences} sequences, {num_vanished} vanish within the history, "
                "{num_not_heard} are no longer heard, {num_grouped} can be grouped.".format(**users)
                for users in record["users"]
            ),
        ]
    )


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
