"""Monte-Carlo over regimes, horizons, policies, SNR and schemes, resumable piece by piece."""

import logging
from dataclasses import dataclass
from typing import NamedTuple

from tqdm import tqdm

from lwmt_sionna.link.decoding.tables import DecoderTable
from lwmt_sionna.link.phy.mcs import get_mcs
from lwmt_sionna.link.sweep.points import Task, Workbench
from lwmt_sionna.link.sweep.store import PointStore
from lwmt_sionna.link.sweep.summary import goodput_rows, scheme_point, survey_columns

__all__ = ["SweepConfig", "SweepResult", "run_sweep"]

logger = logging.getLogger(__name__)

# The policy that others are compared with, drop by drop.
REFERENCE_POLICY = "hold"


@dataclass(frozen=True)
class SweepConfig:
    """What is swept, and how long.

    Args:
        horizons: tuple of int, snapshots from the history to the slot.
        snr_db: tuple of float, link SNR [dB]: total transmit power per resource element times
            mean gain of an antenna, over noise power.
        mcs: tuple of int, indices of `MCS_TABLE`.
        num_slots: int, slots per drop: same channel, fresh bits and noise.
        max_slots: int or None, slots per drop at most, for points with few errors; `num_slots` when
            None.
        target_block_errors: int, block errors after which a point has enough. Slots are added until
            it has, from `num_slots` to `max_slots`.
        target_mcs: tuple of int or None, schemes that slots are added for; all when None.
        goodput_snr_db: tuple of float or None, link SNR at which the goodput of choosing among all
            schemes is told; all of `snr_db` when None. Elsewhere only the schemes of `target_mcs`
            are simulated.
        decoding: "chain", "information" or "sys". "chain" decodes every block. "information" runs
            everything but the decoder and tells block errors from what it would be told (see
            `DecoderTable`): one pass per modulation serves all schemes. "sys" tells them from SINR
            with Sionna SYS (see `SysAbstraction`).
        decoder_table: str or None, path of the decoder table; the shipped one when None.
        batch_size: int, drops per call of the compiled link; bounds the memory.
        seed: int, seed of bits and noise.
        compile: "xla", "graph" or "eager".
    """

    horizons: tuple = (1, 5)
    snr_db: tuple = (-6.0, -2.0, 2.0, 6.0, 10.0)
    mcs: tuple = (4, 13, 22)
    num_slots: int = 1
    max_slots: int | None = None
    target_block_errors: int = 0
    target_mcs: tuple | None = None
    goodput_snr_db: tuple | None = None
    decoding: str = "chain"
    decoder_table: str | None = None
    batch_size: int = 32
    seed: int = 0
    compile: str = "xla"

    def __post_init__(self):
        for name, kind in (("horizons", int), ("snr_db", float), ("mcs", int)):
            values = tuple(kind(value) for value in getattr(self, name))
            if not values or len(set(values)) != len(values):
                raise ValueError(
                    f"`{name}` must be a list of different values. Received: {name}={values}"
                )
            object.__setattr__(self, name, values)
        for mcs in self.mcs:
            get_mcs(mcs)
        if min(self.horizons) < 1:
            raise ValueError(f"Horizons start at 1. Received: horizons={self.horizons}")
        for name in ("num_slots", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be positive. Received: {name}={getattr(self, name)}"
                )
        if self.max_slots is not None and self.max_slots < self.num_slots:
            raise ValueError(
                "`max_slots` is at least `num_slots`. "
                f"Received: max_slots={self.max_slots}, num_slots={self.num_slots}"
            )
        if self.target_block_errors < 0:
            raise ValueError(
                "`target_block_errors` must not be negative. "
                f"Received: target_block_errors={self.target_block_errors}"
            )
        if self.target_mcs is not None:
            object.__setattr__(self, "target_mcs", tuple(int(mcs) for mcs in self.target_mcs))
            if not set(self.target_mcs) <= set(self.mcs):
                raise ValueError(
                    f"`target_mcs` must be among mcs={self.mcs}. "
                    f"Received: target_mcs={self.target_mcs}"
                )
        if self.goodput_snr_db is not None:
            ratios = tuple(float(value) for value in self.goodput_snr_db)
            object.__setattr__(self, "goodput_snr_db", ratios)
            if not ratios or not set(ratios) <= set(self.snr_db) or self.target_mcs is None:
                raise ValueError(
                    f"`goodput_snr_db` must be among snr_db={self.snr_db}, and leaves the schemes "
                    f"of `target_mcs` alone elsewhere. Received: goodput_snr_db={ratios}, "
                    f"target_mcs={self.target_mcs}"
                )
        choices = {
            "compile": ("xla", "graph", "eager"),
            "decoding": ("chain", "information", "sys"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                listed = ", ".join(f'"{item}"' for item in known)
                raise ValueError(
                    f"`{name}` is one of {listed}. Received: {name}={getattr(self, name)!r}"
                )

    def slots_of(self, mcs):
        """int, slots that a scheme is simulated for at most."""
        wanted = self.target_mcs is None or mcs in self.target_mcs
        return self.max_slots if wanted and self.max_slots is not None else self.num_slots

    def schemes_at(self, snr_db):
        """tuple of int, schemes that are simulated at a link SNR."""
        every = self.goodput_snr_db is None or snr_db in self.goodput_snr_db
        return self.mcs if every else self.target_mcs


class SweepResult(NamedTuple):
    """What a sweep found: `points`, one per scheme and SNR, and `goodput` with adapted schemes."""

    points: list
    goodput: list


def run_sweep(
    factories, policies, config=None, store=None, progress=None, execute=None, adaptation=None
):
    """Runs every policy over every regime, horizon, SNR and scheme.

    All policies meet the same drops, bits and noise and the same receiver: only the precoder's
    CSI differs.

    Args:
        factories: list of `DropFactory`, one per regime, or any objects with its `at`, `name`,
            `downlink`, `num_drops` and `digest`.
        policies: list of `CsiPolicy`.
        config: `SweepConfig`.
        store: `PointStore` or None; results found in it are not computed again.
        progress: bool or None, show a progress bar; None shows one on a terminal.
        execute: callable or None, takes a list of `Task` and yields pairs of a task and its result
            in any order (see `sweep.execute`); they are computed here, one after the other, when
            None.
        adaptation: `AdaptationConfig`.

    Returns:
        `SweepResult` of two lists of dict.

        Points, in order of regime, horizon, policy, scheme and SNR, hold counts and rates:
        `num_drops`, `num_blocks`, `num_block_errors`, `bler` with `bler_low` and `bler_high` (95 %,
        over drops), `rate` and `goodput` of the scheme [bit/s/Hz and user], `sum_rate` (mean over
        drops of the users' summed `log2(1 + SINR)` [bit/s/Hz]), the NMSE of the policy, the
        difference of its BLER to that of the policy `hold` with its paired interval, and NMSE and
        BLER of the users without events where events are known.

        Goodput, in order of regime, horizon, policy, SNR and way of choosing schemes, holds what
        `lwmt_sionna.link.sweep.summary.goodput_rows` says.
    """
    config = SweepConfig() if config is None else config
    store = PointStore() if store is None else store
    bench = Workbench(factories, policies, config)
    # That a table does not fit is better said before hours of computing than after.
    tables = {downlink: _decoder_table(downlink, config) for downlink in _links(bench)}
    tasks = _tasks(bench, config)
    digests = {task: bench.digest(task) for task in tasks}
    missing = [task for task in tasks if digests[task] not in store]
    with tqdm(
        total=len(tasks),
        initial=len(tasks) - len(missing),
        desc="link",
        unit="point",
        # Tasks differ in length; a mean over all of them tells the time left best.
        smoothing=0.0,
        disable=None if progress is None else not progress,
    ) as bar:
        results = _serial(bench, missing) if execute is None else execute(missing)
        for task, result in results:
            store.add(digests[task], _label(bench, task), result)
            bar.set_postfix_str(_label(bench, task))
            bar.update()
    return _summarise(bench, config, store, digests, tables, adaptation)


def _links(bench):
    return {factory.downlink for factory in bench.factories}


def _serial(bench, tasks):
    for task in tasks:
        yield task, bench.compute(task)


def _tasks(bench, config):
    """All tasks, those that share channels and predictions next to each other."""
    decoded = config.mcs if config.decoding == "chain" else ()
    return [
        Task(regime, horizon, policy, snr_db, mcs)
        for regime in range(len(bench.factories))
        for horizon in config.horizons
        for policy in bench.policies
        for mcs in (None, *decoded)
        for snr_db in config.snr_db
        if mcs is None or mcs in config.schemes_at(snr_db)
    ]


def _label(bench, task):
    scheme = "" if task.mcs is None else f", MCS {task.mcs}"
    name = bench.factories[task.regime].name
    return f"{name}, horizon {task.horizon}, {task.policy}, {task.snr_db:g} dB{scheme}"


def _summarise(bench, config, store, digests, tables, adaptation):
    result = SweepResult([], [])
    for regime, factory in enumerate(bench.factories):
        table = tables[factory.downlink]
        for horizon in config.horizons:
            found = {}
            for policy in bench.policies:
                for snr_db in config.snr_db:
                    schemes = config.schemes_at(snr_db)
                    survey, *counted = (
                        store.get(digests.get(Task(regime, horizon, policy, snr_db, mcs)))
                        for mcs in (None, *schemes)
                    )
                    found[policy, snr_db] = _outcome(
                        factory.downlink, config, table, survey, dict(zip(schemes, counted))
                    )
            for policy in bench.policies:
                common = {"regime": factory.name, **getattr(factory, "columns", {})}
                common |= {"horizon": horizon, "policy": policy}
                own = {snr_db: found[policy, snr_db] for snr_db in config.snr_db}
                held = {}
                if policy != REFERENCE_POLICY:
                    held = {snr_db: found.get((REFERENCE_POLICY, snr_db)) for snr_db in own}
                result.points.extend(_points(factory, config, common, own, held))
                result.goodput.extend(_goodput(factory, config, common, own, table, adaptation))
    return result


class _Outcome(NamedTuple):
    """One policy at one SNR: per scheme failures `[num_drops, num_users, num_slots]`."""

    survey: dict
    failures: dict
    bit_errors: dict


def _outcome(downlink, config, table, survey, counted):
    if config.decoding == "chain":
        failures = {mcs: result["failed"] for mcs, result in counted.items()}
        bit_errors = {mcs: result["num_bit_errors"] for mcs, result in counted.items()}
        return _Outcome(survey, failures, bit_errors)
    if config.decoding == "sys":
        failures = dict(zip(config.mcs, survey["failure"]))
        failures = {mcs: failures[mcs] for mcs in counted}
    else:
        failures = {}
        num_symbols = downlink.num_data_symbols * downlink.streams_per_user
        for mcs in counted:
            told = survey["information"][..., get_mcs(mcs).num_bits_per_symbol // 2 - 1]
            failures[mcs] = table.waterfall(mcs, num_symbols).failure(told)
    return _Outcome(survey, failures, dict.fromkeys(config.mcs))


def _points(factory, config, common, own, held):
    return [
        {
            **common,
            "snr_db": snr_db,
            **survey_columns(outcome.survey),
            **scheme_point(
                factory.downlink,
                mcs,
                outcome.failures[mcs],
                outcome.survey["event"],
                outcome.bit_errors[mcs],
                held[snr_db].failures[mcs] if held.get(snr_db) else None,
            ),
        }
        for mcs in config.mcs
        for snr_db, outcome in own.items()
        if mcs in outcome.failures
    ]


def _goodput(factory, config, common, own, table, adaptation):
    downlink = factory.downlink
    schemes = tuple(sorted(config.mcs, key=downlink.rate))
    rows = []
    for snr_db, (survey, failures, _) in own.items():
        if len(failures) < len(schemes):
            continue
        # The slots that all schemes were simulated for.
        num_slots = min(failure.shape[2] for failure in failures.values())
        stacked = [failures[mcs][..., :num_slots] for mcs in schemes]
        columns = {"snr_db": snr_db, "num_drops": len(stacked[0]), **survey_columns(survey)}
        for row in goodput_rows(downlink, schemes, stacked, survey, table, adaptation):
            rows.append({**common, **columns, **row})
    return rows


def _decoder_table(downlink, config):
    """The decoder table, or None where it does not belong to this link's decoder."""
    table = DecoderTable(config.decoder_table)
    try:
        table.check(downlink)
        for mcs in config.mcs:
            table.waterfall(mcs, 1)
    except ValueError as error:
        if config.decoding == "information":
            raise
        logger.warning("Schemes are not adapted. %s", error)
        return None
    return table
