"""The link-level evaluation: from a configuration to points, table, record and figures."""

import dataclasses
import itertools
import pathlib
import time

from lwmt_sionna.data import read_paths
from lwmt_sionna.link.csi.drops import DropConfig, DropFactory
from lwmt_sionna.link.csi.policies import make_policy
from lwmt_sionna.link.csi.sounding import SoundingConfig
from lwmt_sionna.link.phy.config import DownlinkConfig
from lwmt_sionna.link.sweep.adaptation import AdaptationConfig
from lwmt_sionna.link.sweep.points import Workbench
from lwmt_sionna.link.sweep.statistics import recovered_share
from lwmt_sionna.link.sweep.store import PointStore
from lwmt_sionna.link.sweep.summary import ADAPTATIONS
from lwmt_sionna.link.sweep.sweep import SweepConfig, run_sweep
from lwmt_sionna.runs import records
from lwmt_sionna.runs.configuration import from_toml

__all__ = ["LinkEvalConfig", "evaluate_link", "make_bench"]

_VARIABLE = {"downlink": DownlinkConfig, "drops": DropConfig, "sounding": SoundingConfig}


@dataclasses.dataclass(frozen=True)
class LinkEvalConfig:
    """Everything that a link-level evaluation depends on.

    Args:
        data: tuple of str, HDF5 files with paths: one scene, speed and sampling period each.
        policies: tuple of str, names for `make_policy`.
        preset: str, preset (name or folder) of the policy `model`.
        report_mcs: int or None, scheme of the BLER that the table and the figure show; the middle
            one of the sweep when None.
        report_snr_db: float or None, link SNR of the table [dB]; the highest when None.
        report_adaptation: str, "outer", "inner" or "fixed": how the schemes of the goodput shown
            are chosen (see `lwmt_sionna.link.sweep.summary.ADAPTATIONS`).
        downlink: `DownlinkConfig`.
        drops: `DropConfig`.
        sounding: `SoundingConfig`.
        adaptation: `AdaptationConfig`.
        sweep: `SweepConfig`.
        vary: dict of lists, settings that regimes are made of besides the data files, such as
            `{"downlink.num_users": [2, 4, 8], "drops.history_snr_db": [5.0, 15.0]}`: every file
            with every combination.
        baselines: dict of dicts, per policy the arguments of its constructor in
            `lwmt_sionna.baselines`; the tuned ones where there are none.
    """

    data: tuple = ()
    policies: tuple = ("perfect", "hold", "pooled_ar", "local_ar", "model")
    preset: str = "small"
    report_mcs: int | None = None
    report_snr_db: float | None = None
    report_adaptation: str = "outer"
    downlink: DownlinkConfig = dataclasses.field(default_factory=DownlinkConfig)
    drops: DropConfig = dataclasses.field(default_factory=DropConfig)
    sounding: SoundingConfig = dataclasses.field(default_factory=SoundingConfig)
    adaptation: AdaptationConfig = dataclasses.field(default_factory=AdaptationConfig)
    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    vary: dict = dataclasses.field(default_factory=dict)
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
        told = ratios if self.sweep.goodput_snr_db is None else self.sweep.goodput_snr_db
        if self.report_snr_db is None:
            object.__setattr__(self, "report_snr_db", max(told))
        if self.report_mcs not in schemes:
            raise ValueError(
                f"The reported scheme must be swept: mcs={schemes}. "
                f"Received: report_mcs={self.report_mcs}"
            )
        if self.report_snr_db not in told:
            raise ValueError(
                f"The reported SNR must be one that goodput is told at: {told}. "
                f"Received: report_snr_db={self.report_snr_db}"
            )
        if self.report_adaptation not in ADAPTATIONS:
            raise ValueError(
                f"`report_adaptation` is one of {', '.join(ADAPTATIONS)}. "
                f"Received: report_adaptation={self.report_adaptation!r}"
            )
        # Said here rather than when hours of the other variants are done.
        self.variants()

    def variants(self):
        """What every data file is evaluated with.

        Returns:
            List of `(label, settings)`: text that names what differs, and a dict of the sections
            `downlink`, `drops` and `sounding`.
        """
        for key, values in self.vary.items():
            section, _, name = key.partition(".")
            known = [
                f"{s}.{f.name}" for s, cls in _VARIABLE.items() for f in dataclasses.fields(cls)
            ]
            if key not in known:
                raise ValueError(
                    "`vary` knows the settings of downlink, drops and sounding, such as "
                    f"downlink.num_users. Received: vary={key!r}"
                )
            if not isinstance(values, list | tuple) or not values:
                raise ValueError(f"`vary` holds lists of values. Received: {key}={values!r}")
        variants = []
        for combination in itertools.product(*self.vary.values()):
            settings = {section: getattr(self, section) for section in _VARIABLE}
            labels = []
            for key, value in zip(self.vary, combination):
                section, _, name = key.partition(".")
                settings[section] = dataclasses.replace(settings[section], **{name: value})
                labels.append(
                    f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                )
            variants.append((", ".join(labels), settings))
        return variants

    def with_policies(self, names):
        """The same configuration with further policies; those that are there already stay once."""
        names = [name for name in dict.fromkeys(names) if name not in self.policies]
        return dataclasses.replace(self, policies=(*self.policies, *names))

    @classmethod
    def from_toml(cls, path, overrides=None):
        """Reads a configuration; an unknown key is an error.

        Args:
            path: path of a TOML file with the fields as keys and the tables `downlink`, `drops`,
                `sounding`, `adaptation`, `sweep`, `vary` and `baselines`.
            overrides: dict or None, values in place of those of the file, nested like them.
        """
        return from_toml(
            cls,
            path,
            overrides=overrides,
            downlink=DownlinkConfig,
            drops=DropConfig,
            sounding=SoundingConfig,
            adaptation=AdaptationConfig,
            sweep=SweepConfig,
        )


def make_bench(config):
    """Builds what the tasks of an evaluation need.

    Args:
        config: `LinkEvalConfig`.

    Returns:
        `Workbench`.

    Raises:
        ValueError: data or policies are missing, or do not fit the configuration.
    """
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
    contents = []
    for path in config.data:
        try:
            contents.append(read_paths(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    several_scenes = len({paths.scene for paths in contents}) > 1
    factories = []
    for path, paths in zip(config.data, contents):
        for label, settings in config.variants():
            label = ", ".join(filter(None, [paths.scene if several_scenes else "", label]))
            try:
                factories.append(
                    DropFactory(
                        paths,
                        settings["downlink"],
                        settings["drops"],
                        settings["sounding"],
                        label=label,
                    )
                )
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
    _check_regimes(factories, config)
    return Workbench(factories, policies, config.sweep)


def evaluate_link(config, out, progress=None, workers=1, dask=None):
    """Runs the evaluation; a killed run goes on with the first point that is missing.

    Args:
        config: `LinkEvalConfig`.
        out: path of a folder. It receives `link_level_eval.json` (the record) and the figures (see
            `draw_figures`), and keeps finished points in `points.jsonl`.
        progress: bool or None, show a progress bar; None shows one on a terminal.
        workers: int, processes on this machine; 1 computes in this one.
        dask: str or None, address of a Dask scheduler whose workers compute the points.

    Returns:
        The record, a dict.
    """
    started = time.time()
    out = pathlib.Path(out)
    bench = make_bench(config)
    execute = _executor(config, workers, dask)
    result = run_sweep(
        bench.factories,
        list(bench.policies.values()),
        config.sweep,
        PointStore(out / "points.jsonl"),
        progress=progress,
        execute=execute,
        adaptation=config.adaptation,
    )
    for quantity in ("goodput", "sum_rate"):
        for row, share in zip(result.goodput, recovered_share(result.goodput, quantity)):
            row[f"recovered_{quantity}"] = share

    inputs = {pathlib.Path(path).stem: path for path in config.data}
    for policy in bench.policies.values():
        if policy.source is not None:
            inputs[policy.name] = policy.source
    record = records.write_record(
        out / "link_level_eval.json",
        name="link_level_eval",
        config=config,
        points=_rounded(result.points),
        seeds={"drops": config.drops.seed, "link": config.sweep.seed},
        inputs=inputs,
        started=started,
        extra={
            "goodput": _rounded(result.goodput),
            "users": [
                {"regime": factory.name, "scene": factory.scene, **factory.counts}
                for factory in bench.factories
            ],
        },
    )
    from lwmt_sionna.link.sweep.figures import draw_figures

    draw_figures(record, out)
    return record


def _rounded(rows, digits=6):
    """The rows with numbers of six significant digits: thousands of them make a record."""
    return [
        {k: float(f"{v:.{digits}g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in rows
    ]


def _executor(config, workers, dask):
    if workers == 1 and dask is None:
        return None
    from lwmt_sionna.link.sweep.execute import in_workers

    # Workers may have been started in another folder.
    paths = [str(pathlib.Path(path).resolve()) for path in config.data]
    preset = config.preset
    if pathlib.Path(preset).is_dir():
        preset = str(pathlib.Path(preset).resolve())
    config = dataclasses.replace(config, data=paths, preset=preset)
    return in_workers(config, workers, dask)


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
