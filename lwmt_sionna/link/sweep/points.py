"""What is swept: settings, the independent pieces, and the bench that computes one of them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from lwmt_sionna.baselines import told_arrived
from lwmt_sionna.link.csi.drops import DropFactory, LinkDrops
from lwmt_sionna.link.csi.policies import CsiPolicy
from lwmt_sionna.link.decoding import DECODINGS, BlockErrors, DecoderTable
from lwmt_sionna.link.phy.config import get_mcs
from lwmt_sionna.link.phy.runner import LinkRunner
from lwmt_sionna.link.sweep.summary import nmse_summary
from lwmt_sionna.runs.configuration import FILLED, Config, NonNegativeInt, PositiveInt
from lwmt_sionna.runs.digests import code_digest
from lwmt_sionna.typing import Array


@dataclasses.dataclass(frozen=True)
class Stopping:
    """How many slots a point gets: fresh bits and noise on the same channels.

    Attributes:
        num_slots: int, slots at least.
        max_slots: int, slots at most.
        num_errors: int, block errors after which a point has enough.
    """

    num_slots: int
    max_slots: int
    num_errors: int

    def enough(self, num_slots: int, num_errors: int) -> bool:
        """bool, whether a point with so many slots and block errors is finished."""
        return num_slots >= self.max_slots or (
            num_slots >= self.num_slots and num_errors >= self.num_errors
        )


@dataclasses.dataclass(frozen=True)
class SweepConfig(Config):
    """What is swept, and how long.

    Attributes:
        horizons: tuple of int, snapshots from the history to the slot; 0 is the last one of the
            history, for estimators.
        link_snr_db: tuple of float, link SNR [dB]: total transmit power per resource element times
            mean gain of an antenna, over noise power.
        mcs: tuple of int, indices of `MCS_TABLE`.
        num_slots: int, slots per drop: same channel, fresh bits and noise.
        max_slots: int or None, slots per drop at most, for points with few errors; `num_slots` when
            None.
        target_block_errors: int, block errors after which a point has enough. Slots are added until
            it has, from `num_slots` to `max_slots`.
        target_mcs: tuple of int or None, schemes that slots are added for; all when None.
        goodput_link_snr_db: tuple of float or None, link SNR at which the goodput of choosing among
            all schemes is told; all of `link_snr_db` when None. Elsewhere only the schemes of
            `target_mcs` are simulated.
        decoding: "chain", "information" or "sys". "chain" decodes every block. "information" runs
            everything but the decoder and tells block errors from what it would be told (see
            `MutualInformation`): one pass per modulation serves all schemes. "sys" tells them from
            SINR with Sionna SYS (see `SysAbstraction`).
        decoder_table: str or None, path of the decoder table; the shipped one when None.
        batch_size: int, drops per call of the compiled link; bounds the memory.
        seed: int, seed of bits and noise.
        compile: "xla", "graph" or "eager"; on PyTorch the link always runs eagerly.
    """

    horizons: Annotated[tuple[NonNegativeInt, ...], FILLED] = (1, 5)
    link_snr_db: Annotated[tuple[float, ...], FILLED] = (-6.0, -2.0, 2.0, 6.0, 10.0)
    mcs: Annotated[tuple[int, ...], FILLED] = (4, 13, 22)
    num_slots: PositiveInt = 1
    max_slots: PositiveInt | None = None
    target_block_errors: NonNegativeInt = 0
    target_mcs: tuple[int, ...] | None = None
    goodput_link_snr_db: Annotated[tuple[float, ...], FILLED] | None = None
    decoding: Literal["chain", "information", "sys"] = "chain"
    decoder_table: str | None = None
    batch_size: PositiveInt = 32
    seed: NonNegativeInt = 0
    compile: Literal["xla", "graph", "eager"] = "xla"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("horizons", "link_snr_db", "mcs"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(
                    f"{name}: expected a list of different values. Received: {name}={values}"
                )
        for mcs in self.mcs:
            get_mcs(mcs)
        if self.max_slots is not None and self.max_slots < self.num_slots:
            told = f"max_slots={self.max_slots}, num_slots={self.num_slots}"
            raise ValueError(f"`max_slots` is at least `num_slots`. Received: {told}")
        if self.target_mcs is not None and not set(self.target_mcs) <= set(self.mcs):
            raise ValueError(
                f"`target_mcs` must be among mcs={self.mcs}. Received: target_mcs={self.target_mcs}"
            )
        ratios = self.goodput_link_snr_db
        if ratios is not None and (
            not set(ratios) <= set(self.link_snr_db) or self.target_mcs is None
        ):
            raise ValueError(
                f"`goodput_link_snr_db` must be among link_snr_db={self.link_snr_db}, and leaves "
                "the schemes of `target_mcs` alone elsewhere. Received: "
                f"goodput_link_snr_db={ratios}, target_mcs={self.target_mcs}"
            )

    def stopping(self, mcs: int) -> Stopping:
        """When a scheme has slots enough: `Stopping`."""
        wanted = self.target_mcs is None or mcs in self.target_mcs
        most = self.max_slots if wanted and self.max_slots is not None else self.num_slots
        return Stopping(self.num_slots, most, self.target_block_errors)

    def schemes_at(self, link_snr_db: float) -> tuple[int, ...]:
        """tuple of int, schemes that are simulated at a link SNR."""
        every = self.goodput_link_snr_db is None or link_snr_db in self.goodput_link_snr_db
        return self.mcs if every or self.target_mcs is None else self.target_mcs

    def block_errors(self) -> BlockErrors:
        """The way of telling block errors."""
        table = DecoderTable(self.decoder_table)
        return DECODINGS[self.decoding](table, self.mcs, self.num_slots)


@dataclasses.dataclass(frozen=True)
class Task:
    """One piece of work: small, picklable, independent of all others.

    Attributes:
        regime: int, position of the `DropFactory`.
        horizon: int, snapshots from the history to the slot.
        policy: str, name of the policy.
        link_snr_db: float, link SNR [dB].
        mcs: int or None. With a scheme its blocks are decoded and their errors counted; without one
            everything is computed that no scheme is needed for.
    """

    regime: int
    horizon: int
    policy: str
    link_snr_db: float
    mcs: int | None = None


class Bench:
    """Computes tasks; channels, predictions and compiled links are kept between them.

    Args:
        factories: list of `DropFactory`, one per regime, or any objects with its `at`, `name`,
            `downlink`, `num_drops` and `digest`.
        policies: list of `CsiPolicy`.
    """

    def __init__(
        self,
        factories: Sequence[DropFactory],
        policies: Sequence[CsiPolicy],
        config: SweepConfig,
    ) -> None:
        self.factories = list(factories)
        self.policies = {policy.name: policy for policy in policies}
        names = [policy.name for policy in policies]
        if len(self.policies) != len(names):
            raise ValueError(f"Policies need different names. Received: {names}")
        self.config = config
        self.block_errors = config.block_errors()
        self._for_regime = {
            (regime, policy.name): policy.for_regime(factory)
            for regime, factory in enumerate(self.factories)
            for policy in policies
        }
        # Tasks come sorted: what the next one needs is nearly always what the last one had.
        self._drops = functools.lru_cache(maxsize=2)(lambda r, horizon: factories[r].at(horizon))
        self._estimate = functools.lru_cache(maxsize=2)(self._make_estimate)

    def tasks(self) -> list[Task]:
        """All tasks, those that share channels and predictions next to each other."""
        decoded = self.config.mcs if self.block_errors.decodes else ()
        return [
            Task(regime, horizon, policy, link_snr_db, mcs)
            for regime in range(len(self.factories))
            for horizon in self.config.horizons
            for policy in self.policies
            for mcs in (None, *decoded)
            for link_snr_db in self.config.link_snr_db
            if mcs is None or mcs in self.config.schemes_at(link_snr_db)
        ]

    def compute(self, task: Task) -> dict[str, Any]:
        """Result of a task.

        Returns:
            Dict. With a scheme: `failed`, bool `[num_drops, num_users, num_slots]`, and
            `num_bit_errors`, int. Without one: `quality`, dict of the policy's NMSE; `event`, bool
            `[num_drops, num_users]` or None; `rate`, float32 `[num_drops, num_users]` (Gaussian
            signalling) [bit/s/Hz]; `believed_snr_db`, float32 `[num_drops, num_users, 3]` for 2, 4
            and 6 bits per symbol; and what the way of telling block errors adds (see
            `BlockErrors.survey`).
        """
        drops = self._drops(task.regime, task.horizon)
        h_hat = self._estimate(task.regime, task.horizon, task.policy)
        runner = self._runner(task.regime)
        if task.mcs is not None:
            return self._count(runner, drops.slot, h_hat, task)
        believed = runner.believed_snr_db(h_hat, task.link_snr_db)
        rate = runner.spectral_efficiency(drops.slot, h_hat, task.link_snr_db)
        return {
            "quality": _csi_quality(h_hat, drops),
            "event": drops.event,
            "rate": rate.astype(np.float32),
            "believed_snr_db": believed.astype(np.float32),
            **self.block_errors.survey(runner, drops.slot, h_hat, task.link_snr_db),
        }

    def key(self, task: Task) -> dict[str, Any]:
        """Everything that the task's result depends on, JSON-compatible.

        Extending a sweep by points leaves the keys of the old ones as they are.
        """
        factory, config = self.factories[task.regime], self.config
        policy = self._for_regime[task.regime, task.policy]
        if task.mcs is None:
            told = [config.num_slots, *self.block_errors.key]
        else:
            told = [task.mcs, dataclasses.astuple(config.stopping(task.mcs))]
        return {
            "code": code_digest(__name__),
            "channels": factory.digest,
            "downlink": factory.downlink.to_dict(),
            "policy": [policy.name, policy.fingerprint],
            "horizon": task.horizon,
            "link_snr_db": task.link_snr_db,
            "seed": config.seed,
            "told": told,
        }

    def label(self, task: Task) -> str:
        """str, the task in words."""
        scheme = "" if task.mcs is None else f", MCS {task.mcs}"
        name = self.factories[task.regime].name
        return f"{name}, horizon {task.horizon}, {task.policy}, {task.link_snr_db:g} dB{scheme}"

    def _count(self, runner, slot, h_hat, task):
        """Block errors, slot by slot until there are enough of them."""
        stopping = self.config.stopping(task.mcs)
        failed, num_bit_errors = [], 0
        while not stopping.enough(len(failed), np.count_nonzero(failed)):
            errors = runner.count(slot, h_hat, task.mcs, task.link_snr_db, [len(failed)])[..., 0]
            failed.append(errors > 0)
            num_bit_errors += int(errors.sum())
        return {"failed": np.stack(failed, axis=-1), "num_bit_errors": num_bit_errors}

    def _runner(self, regime):
        """The `LinkRunner` of a regime; regimes of one link share theirs."""
        factory, config = self.factories[regime], self.config
        key = factory.downlink, min(config.batch_size, factory.num_drops)
        return _runner(*key, config.seed, config.compile)

    def _make_estimate(self, regime, horizon, policy):
        drops = self._drops(regime, horizon)
        asked = self._for_regime[regime, policy]
        told = told_arrived(asked, drops.arrived)
        h_hat = np.asarray(asked(drops.history, drops.horizon, target=drops.target, **told))
        if h_hat.shape != drops.target.shape:
            raise ValueError(
                f"Policy {policy!r} must return channels of shape {drops.target.shape}. "
                f"Received: shape={h_hat.shape}"
            )
        if not np.isfinite(h_hat).all():
            raise ValueError(f"Policy {policy!r} returned NaN or infinite values.")
        return h_hat.astype(np.complex64)


# Batches of one size share the compiled link, whatever the sweep.
_runner = functools.lru_cache(maxsize=8)(LinkRunner)


def _csi_quality(h_hat: Array, drops: LinkDrops) -> dict[str, float | None]:
    """NMSE of estimates, of all users and of those without events."""
    # The antennas of a user belong to one channel, scaled as one.
    by_user = (drops.num_drops, drops.num_users, -1, h_hat.shape[-1])
    h_hat, target = h_hat.reshape(by_user), drops.target.reshape(by_user)
    rms = drops.history_rms
    if rms is None:
        rms = np.ones(target.shape[:2])
    quality = nmse_summary(h_hat, target, rms)
    if drops.event is None:
        return quality
    quality["event_share"] = round(float(drops.event.mean()), 4)
    for suffix, chosen in (("_event_free", ~drops.event), ("_event", drops.event)):
        chosen = nmse_summary(h_hat[chosen], target[chosen], rms[chosen])
        for name in ("nmse_pooled_db", "nmse_median_db"):
            quality[name + suffix] = chosen[name]
    return quality
