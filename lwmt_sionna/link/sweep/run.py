"""The link-level evaluation: from a configuration to points, table, record and figures."""

import collections
import dataclasses
import functools
import itertools
import logging
import os
import pathlib
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np

from lwmt_sionna.data import ChannelSequences, read_sequences
from lwmt_sionna.link.csi.drops import DropConfig, DropFactory
from lwmt_sionna.link.csi.policies import CausalCsi, CsiPolicy, LmmseCsi, make_policy
from lwmt_sionna.link.csi.sounding import SoundingConfig
from lwmt_sionna.link.phy.config import DownlinkConfig
from lwmt_sionna.link.sweep.adaptation import AdaptationConfig, goodput_rows
from lwmt_sionna.link.sweep.points import Bench, SweepConfig, Task
from lwmt_sionna.link.sweep.summary import (
    add_differences,
    recovered_share,
    scheme_point,
    survey_columns,
)
from lwmt_sionna.masking import HardwareConfig
from lwmt_sionna.models.presets import DEFAULT_PRESET
from lwmt_sionna.runs import records
from lwmt_sionna.runs.configuration import FILLED, Config
from lwmt_sionna.runs.parallel import progress_bar, run_tasks
from lwmt_sionna.runs.shipped import find
from lwmt_sionna.runs.store import RunFolder, Store
from lwmt_sionna.typing import PathLike

logger = logging.getLogger(__name__)

_VARIABLE = {
    "downlink": DownlinkConfig,
    "drops": DropConfig,
    "sounding": SoundingConfig,
    "hardware": HardwareConfig,
}
# The policy that others are compared with, drop by drop.
_REFERENCE_POLICY = "hold"


@dataclasses.dataclass(frozen=True)
class LinkEvalConfig(Config):
    """Everything that a link-level evaluation depends on.

    Attributes:
        data: tuple of str, HDF5 files with paths or channels: one scene, speed and sampling
            period each.
        policies: tuple of str, names for `make_policy`.
        preset: str, preset (name or folder) of the policy `model`, and of what predicts later slots
            from estimates of sparse sounding.
        report_mcs: int or None, scheme of the BLER that the table and the figure show; the middle
            one of the sweep when None.
        report_link_snr_db: float or None, link SNR of the table [dB]; the highest when None.
        report_adaptation: str, "outer", "inner" or "fixed": how the schemes of the goodput shown
            are chosen (see `lwmt_sionna.link.sweep.adaptation.ADAPTATIONS`).
        downlink: `DownlinkConfig`.
        drops: `DropConfig`.
        sounding: `SoundingConfig`.
        hardware: `lwmt_sionna.masking.HardwareConfig`.
        adaptation: `AdaptationConfig`.
        sweep: `SweepConfig`.
        vary: dict of lists, settings that regimes are made of besides the data files, such as
            `{"downlink.num_users": [2, 4, 8], "drops.history_snr_db": [5.0, 15.0]}`: every file
            with every combination.
        baselines: dict of dicts, per policy the arguments of its constructor in
            `lwmt_sionna.baselines`; the tuned ones where there are none.
    """

    data: tuple[str, ...] = ()
    policies: Annotated[tuple[str, ...], FILLED] = (
        "perfect",
        "hold",
        "pooled_ar",
        "local_ar",
        "model",
    )
    preset: str = DEFAULT_PRESET
    report_mcs: int | None = None
    report_link_snr_db: float | None = None
    report_adaptation: Literal["outer", "inner", "fixed"] = "outer"
    downlink: DownlinkConfig = dataclasses.field(default_factory=DownlinkConfig)
    drops: DropConfig = dataclasses.field(default_factory=DropConfig)
    sounding: SoundingConfig = dataclasses.field(default_factory=SoundingConfig)
    hardware: HardwareConfig = dataclasses.field(default_factory=HardwareConfig)
    adaptation: AdaptationConfig = dataclasses.field(default_factory=AdaptationConfig)
    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    vary: dict[str, Annotated[tuple[Any, ...], FILLED]] = dataclasses.field(default_factory=dict)
    baselines: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.policies)) != len(self.policies):
            raise ValueError(
                f"`policies` must be a list of different names. Received: {self.policies}"
            )
        unknown = sorted(set(self.baselines) - set(self.policies))
        if unknown:
            raise ValueError(
                f"`baselines` holds settings of policies that are not evaluated: {unknown}. "
                f"Received: policies={self.policies}"
            )
        schemes, ratios = self.sweep.mcs, self.sweep.goodput_link_snr_db
        told = self.sweep.link_snr_db if ratios is None else ratios
        if self.report_mcs is None:
            object.__setattr__(self, "report_mcs", schemes[len(schemes) // 2])
        if self.report_link_snr_db is None:
            object.__setattr__(self, "report_link_snr_db", max(told))
        if self.report_mcs not in schemes:
            raise ValueError(
                f"The reported scheme must be swept: mcs={schemes}. "
                f"Received: report_mcs={self.report_mcs}"
            )
        if self.report_link_snr_db not in told:
            raise ValueError(
                f"The reported SNR must be one that goodput is told at: {told}. "
                f"Received: report_link_snr_db={self.report_link_snr_db}"
            )
        # Said here rather than when hours of the other variants are done.
        self.variants()

    def variants(self) -> list[tuple[str, dict[str, Config]]]:
        """What every data file is evaluated with.

        Returns:
            List of `(label, settings)`: text that names what differs, and a dict of the sections
            `downlink`, `drops`, `sounding` and `hardware`.
        """
        known = [f"{s}.{f.name}" for s, cls in _VARIABLE.items() for f in dataclasses.fields(cls)]
        for key in self.vary:
            if key not in known:
                raise ValueError(
                    f"`vary` knows the settings of {', '.join(_VARIABLE)}, such as "
                    f"downlink.num_users. Received: vary={key!r}"
                )
        variants = []
        for combination in itertools.product(*self.vary.values()):
            settings = {section: getattr(self, section) for section in _VARIABLE}
            labels = []
            for key, value in zip(self.vary, combination):
                section, _, name = key.partition(".")
                settings[section] = dataclasses.replace(settings[section], **{name: value})
                shown = f"{value:g}" if isinstance(value, float) else value
                labels.append(f"{name}={shown}")
            variants.append((", ".join(labels), settings))
        return variants

    def with_policies(self, names: Sequence[str]) -> Self:
        """The same configuration with further policies; those that are there already stay once."""
        names = [name for name in dict.fromkeys(names) if name not in self.policies]
        return dataclasses.replace(self, policies=(*self.policies, *names))

    def with_swept(
        self, mcs: Sequence[int] | None = None, link_snr_db: Sequence[float] | None = None
    ) -> Self:
        """The same configuration with other schemes or link SNR, where they are given.

        What was to be reported of the old ones, or wanted in more depth, gives way.
        """
        sweep: dict[str, Any] = {}
        report: dict[str, Any] = {}
        if mcs is not None:
            sweep |= {"mcs": mcs, "target_mcs": None, "goodput_link_snr_db": None}
            report |= {"report_mcs": None}
        if link_snr_db is not None:
            sweep |= {"link_snr_db": link_snr_db, "goodput_link_snr_db": None}
            report |= {"report_link_snr_db": None}
        return dataclasses.replace(self, sweep=dataclasses.replace(self.sweep, **sweep), **report)


class SweepResult(NamedTuple):
    """What a sweep found: `points`, one per scheme and SNR, and `goodput` with adapted schemes."""

    points: list[dict[str, Any]]
    goodput: list[dict[str, Any]]


def evaluate_link(
    config: LinkEvalConfig,
    out: PathLike,
    progress: bool | None = None,
    workers: int = 1,
    dask: str | None = None,
) -> dict[str, Any]:
    """Runs the evaluation; a killed run goes on with the first point that is missing.

    Workers of a cluster need this package, TensorFlow, Sionna and the modules of one's own
    policies, all of the same versions, and the data files under the same paths.

    Args:
        out: path of a folder. It receives `link_level_eval.json` (the record) and the figures (see
            `draw_figures`), and keeps finished points.
        progress: bool or None, show a progress bar; None shows one on a terminal.
        workers: int, processes on this machine; 1 computes in this one.
        dask: str or None, address of a Dask scheduler whose workers compute the points.

    Raises:
        ValueError: data or policies are missing or do not fit the configuration, another run works
            in the folder, or a worker has other data, code or policies than this process.
    """
    started = time.time()
    with RunFolder(out) as folder:
        asked = _with_absolute_paths(config)
        bench = make_bench(asked, config.policies)
        compute = functools.partial(_compute_in_worker, asked, config.policies)
        if workers == 1 and dask is None:
            compute = functools.partial(_compute_here, bench)
        set_up = functools.partial(share_cores, workers)
        execute = functools.partial(
            run_tasks, compute, workers=workers, dask=dask, initializer=set_up
        )
        result = _run(bench, folder.store, progress, config.adaptation, execute)
        for quantity in ("goodput", "sum_rate"):
            for row, share in zip(result.goodput, recovered_share(result.goodput, quantity)):
                row[f"recovered_{quantity}"] = share
        record = records.write_record(
            folder.path / "link_level_eval.json",
            name="link_level_eval",
            config=config,
            points=_rounded(result.points),
            seeds={"drops": config.drops.seed, "link": config.sweep.seed},
            inputs=_inputs(asked, bench),
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

        draw_figures(record, folder.path)
    return record


def run_sweep(
    factories: Sequence[DropFactory],
    policies: Sequence[CsiPolicy],
    config: SweepConfig | None = None,
    store: Store | None = None,
    progress: bool | None = None,
    adaptation: AdaptationConfig | None = None,
) -> SweepResult:
    """Runs every policy over every regime, horizon, SNR and scheme.

    All policies meet the same drops, bits and noise and the same receiver: only the precoder's
    CSI differs.

    Args:
        factories, policies: see `Bench`.
        store: `lwmt_sionna.runs.store.Store` or None; results found in it are not computed again.
        progress: bool or None, show a progress bar; None shows one on a terminal.

    Returns:
        `SweepResult` of two lists of dict.

        Points, in order of regime, horizon, policy, scheme and SNR, hold counts and rates:
        `num_drops`, `num_blocks`, `num_block_errors`, `bler` with `bler_low` and `bler_high` (95 %,
        over drops), `rate` and `goodput` of the scheme [bit/s/Hz and user], `sum_rate` (mean over
        drops of the users' summed `log2(1 + SINR)` [bit/s/Hz]), the NMSE of the policy, the
        difference of its BLER to that of the policy `hold` with its paired interval, NMSE and
        BLER of the users without events where events are known, and how goodput and sum rate differ
        from those of the best training-free policy (see `add_differences`).

        Goodput, in order of regime, horizon, policy, SNR and way of choosing schemes, holds what
        `lwmt_sionna.link.sweep.adaptation.goodput_rows` says, and the same differences.
    """
    bench = Bench(factories, policies, SweepConfig() if config is None else config)
    execute = functools.partial(run_tasks, functools.partial(_compute_here, bench))
    return _run(bench, Store() if store is None else store, progress, adaptation, execute)


def make_bench(config: LinkEvalConfig, names: Sequence[str] | None = None) -> Bench:
    """Builds what the tasks of an evaluation need.

    Args:
        names: list of str or None, what policies are called that are named as they are made, one
            for each; as in the configuration when None.

    Raises:
        ValueError: data or policies are missing, or do not fit the configuration.
    """
    if not config.data:
        raise ValueError("There is no data to evaluate on. Received: data=()")
    for path in config.data:
        if not find(path).is_file():
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
    for policy, spec, name in zip(policies, config.policies, names or config.policies):
        if policy.name == spec:
            policy.name = name
    contents = [_told_of(path, read_sequences, path) for path in config.data]
    policies = _known(policies, contents)
    several_scenes = len({sequences.scene for sequences in contents}) > 1
    factories = []
    for path, sequences in zip(config.data, contents):
        for label, settings in config.variants():
            label = ", ".join(filter(None, [sequences.scene if several_scenes else "", label]))
            *sections, hardware = settings.values()
            factories.append(_told_of(path, DropFactory, sequences, *sections, label, hardware))
    names = [factory.name for factory in factories]
    if len(set(names)) != len(names):
        raise ValueError(f"Every data file needs a regime of its own. Received: {names}")
    for factory in factories:
        if max(config.sweep.horizons) > factory.max_horizon:
            raise ValueError(
                f"{factory.name}: the sequences allow horizons from 0 to {factory.max_horizon}. "
                f"Received: horizons={config.sweep.horizons}"
            )
    return Bench(factories, policies, config.sweep)


def _known(policies, contents):
    """The policies that all data can serve: of channels nobody knows the ceilings by paths."""
    if not any(isinstance(sequences, ChannelSequences) for sequences in contents):
        return policies
    known = [policy for policy in policies if not isinstance(policy, CausalCsi | LmmseCsi)]
    if len(known) < len(policies):
        left_out = ", ".join(policy.name for policy in policies if policy not in known)
        logger.warning("left out, as there are no paths but channels: %s", left_out)
    return known


def _told_of(path, function, *arguments):
    """What a function returns; its errors name the file."""
    try:
        return function(*arguments)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(path) in text else f"{path}: {text}") from error


def _run(bench, store, progress, adaptation, execute):
    # That a table does not fit is better said before hours of computing than after.
    tables = {factory.downlink: None for factory in bench.factories}
    tables = {downlink: _decoder_table(bench, downlink) for downlink in tables}
    tasks = bench.tasks()
    keys = {task: bench.key(task) for task in tasks}
    results = {task: store.get(key) for task, key in keys.items()}
    missing = [task for task in tasks if results[task] is None]
    kept = len(tasks) - len(missing)
    with progress_bar(
        unit="point", total=len(tasks), initial=kept, desc="link", show=progress
    ) as bar:
        for place, result in execute([(task, keys[task]) for task in missing]):
            task = missing[place]
            store.put(keys[task], result, bench.label(task))
            results[task] = result
            bar.set_postfix_str(bench.label(task))
            bar.update()
    return _summarise(bench, results, tables, adaptation)


def _compute_here(bench: Bench, job: tuple[Task, dict]) -> dict[str, Any]:
    return bench.compute(job[0])


# The bench of this process, and what it was made from. A Dask worker may have several threads; a
# bench serves one at a time.
_bench: tuple[Any, Bench] | None = None
_lock = threading.Lock()


def _compute_in_worker(
    config: LinkEvalConfig, names: tuple[str, ...], job: tuple[Task, dict]
) -> dict[str, Any]:
    """Result of a task in a process that may not have computed one before."""
    global _bench
    task, key = job
    with _lock:
        if _bench is None or _bench[0] != (config, names):
            _bench = (config, names), make_bench(config, names)
        bench = _bench[1]
        own = bench.key(task)
        differing = [name for name in key if own[name] != key[name]]
        if differing:
            raise ValueError(
                "A worker has other files or another version than the process that asks it. "
                f"Received: another {', '.join(differing)} for {bench.label(task)}"
            )
        return bench.compute(task)


def share_cores(workers: int) -> None:
    """Sets up a process before it imports TensorFlow."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"


def _with_absolute_paths(config):
    """The configuration with paths that hold in any folder: workers may have started in another."""

    def absolute(path):
        found = find(path)
        return str(found.resolve()) if found.exists() else path

    def policy(name):
        kind, colon, rest = name.partition(":")
        return f"{kind}:{absolute(rest)}" if colon and kind == "preset" else name

    table = config.sweep.decoder_table
    return dataclasses.replace(
        config,
        data=tuple(map(absolute, config.data)),
        preset=absolute(config.preset) if pathlib.Path(config.preset).is_dir() else config.preset,
        policies=tuple(map(policy, config.policies)),
        sweep=dataclasses.replace(config.sweep, decoder_table=table and absolute(table)),
        baselines={
            policy(name): {
                key: absolute(value) if isinstance(value, str) else value
                for key, value in settings.items()
            }
            for name, settings in config.baselines.items()
        },
    )


def _inputs(config, bench):
    """What the run read, by names for its record."""
    count = collections.Counter(pathlib.Path(path).stem for path in config.data)
    inputs: dict[str, PathLike] = {}
    for path in config.data:
        stem = pathlib.Path(path).stem
        inputs[stem if count[stem] == 1 else path] = path
    for policy in bench.policies.values():
        if policy.source is not None:
            inputs[policy.name] = policy.source
    if config.sweep.decoder_table is not None:
        inputs["decoder_table"] = config.sweep.decoder_table
    return inputs


def _rounded(rows):
    """The rows with numbers of six significant digits: thousands of them make a record."""
    return [
        {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in rows
    ]


def _decoder_table(bench, downlink):
    """The decoder table, or None where it does not belong to this link's decoder."""
    table = bench.block_errors.table
    try:
        table.check(downlink)
        for mcs in bench.config.mcs:
            table.waterfall(mcs, 1)
    except ValueError as error:
        if bench.block_errors.needs_table:
            raise
        logger.warning("Schemes are not adapted. %s", error)
        return None
    return table


class _Outcome(NamedTuple):
    """One policy at one SNR: per scheme failures `[num_drops, num_users, num_slots]`."""

    survey: dict
    failures: dict
    bit_errors: dict


def _summarise(bench, results, tables, adaptation):
    config, result = bench.config, SweepResult([], [])
    for (regime, factory), horizon in itertools.product(
        enumerate(bench.factories), config.horizons
    ):
        found = {
            policy: {
                ratio: _outcome(bench, results, Task(regime, horizon, policy, ratio))
                for ratio in config.link_snr_db
            }
            for policy in bench.policies
        }
        points, goodput = [], []
        for policy, own in found.items():
            common = {"regime": factory.name, **getattr(factory, "columns", {})}
            common |= {"horizon": horizon, "policy": policy}
            held = {} if policy == _REFERENCE_POLICY else found.get(_REFERENCE_POLICY, {})
            points.extend(_points(factory, config, common, own, held))
            table = tables[factory.downlink]
            goodput.extend(_goodput(factory, config, common, own, table, adaptation))
        result.points.extend(add_differences(points, "mcs"))
        result.goodput.extend(add_differences(goodput, "adaptation"))
    return result


def _outcome(bench, results, task):
    told, downlink = bench.block_errors, bench.factories[task.regime].downlink
    survey = results[task]
    found = dict.fromkeys(bench.config.schemes_at(task.link_snr_db), survey)
    if told.decodes:
        found = {mcs: results[dataclasses.replace(task, mcs=mcs)] for mcs in found}
    return _Outcome(
        survey,
        {mcs: told.failures(downlink, each, mcs) for mcs, each in found.items()},
        {mcs: each.get("num_bit_errors") for mcs, each in found.items()},
    )


def _points(factory, config, common, own, held):
    rows = []
    for mcs, (link_snr_db, outcome) in itertools.product(config.mcs, own.items()):
        if mcs not in outcome.failures:
            continue
        failure = outcome.failures[mcs]
        columns = scheme_point(
            factory.downlink,
            mcs,
            failure,
            outcome.survey["event"],
            outcome.bit_errors[mcs],
            held[link_snr_db].failures[mcs] if held.get(link_snr_db) else None,
        )
        by_drop = {
            "goodput": columns["rate"] * (1 - failure.mean(axis=(1, 2), dtype=np.float64)),
            "sum_rate": outcome.survey["rate"].sum(axis=1, dtype=np.float64),
        }
        columns = {"link_snr_db": link_snr_db, **survey_columns(outcome.survey), **columns}
        rows.append(({**common, **columns}, by_drop))
    return rows


def _goodput(factory, config, common, own, table, adaptation):
    downlink = factory.downlink
    schemes = tuple(sorted(config.mcs, key=downlink.rate))
    rows = []
    for link_snr_db, (survey, failures, _) in own.items():
        if len(failures) < len(schemes):
            continue
        # The slots that all schemes were simulated for.
        num_slots = min(failure.shape[2] for failure in failures.values())
        stacked = [failures[mcs][..., :num_slots] for mcs in schemes]
        columns = {"link_snr_db": link_snr_db, "num_drops": len(stacked[0])}
        columns |= survey_columns(survey)
        sum_rate = survey["rate"].sum(axis=1, dtype=np.float64)
        for row, goodput in goodput_rows(downlink, schemes, stacked, survey, table, adaptation):
            by_drop = {"goodput": goodput, "sum_rate": sum_rate}
            rows.append(({**common, **columns, **row}, by_drop))
    return rows
