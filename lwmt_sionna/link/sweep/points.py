"""The independent pieces of a sweep, and what is needed to compute one."""

import dataclasses
import functools
import hashlib
import pathlib

import numpy as np

from lwmt_sionna.link.decoding.tables import DecoderTable, SysAbstraction
from lwmt_sionna.link.phy.mcs import get_mcs
from lwmt_sionna.link.phy.runner import LinkRunner
from lwmt_sionna.link.sweep.statistics import nmse_summary
from lwmt_sionna.runs import records

__all__ = ["Task", "Workbench"]

# What may change while finished results stay valid: what presents them, and other rooms.
_NO_PART_IN_RESULTS = (
    "cli.py",
    "doctor.py",
    "plots.py",
    "rt/",
    "work.py",
    *(f"link/sweep/{name}.py" for name in ("adaptation", "execute", "figures", "summary", "table")),
)


@dataclasses.dataclass(frozen=True)
class Task:
    """One piece of work: small, picklable, independent of all others.

    Args:
        regime: int, position of the `DropFactory`.
        horizon: int, snapshots from the history to the slot.
        policy: str, name of the policy.
        snr_db: float, link SNR [dB].
        mcs: int or None. With a scheme its blocks are decoded and their errors counted; without one
            everything is computed that no scheme is needed for.
    """

    regime: int
    horizon: int
    policy: str
    snr_db: float
    mcs: int | None = None


class Workbench:
    """Computes tasks; channels, predictions and compiled links are kept between them.

    Args:
        factories: list of `DropFactory`, one per regime, or any objects with its `at`, `name`,
            `downlink`, `num_drops` and `digest`.
        policies: list of `CsiPolicy`.
        config: `SweepConfig`.
    """

    def __init__(self, factories, policies, config):
        self.factories = list(factories)
        self.policies = {policy.name: policy for policy in policies}
        names = [policy.name for policy in policies]
        if len(self.policies) != len(names):
            raise ValueError(f"Policies need different names. Received: {names}")
        self.config = config
        self._for_regime = {
            (regime, policy.name): policy.for_regime(factory)
            for regime, factory in enumerate(self.factories)
            for policy in policies
        }
        self._runners = {}
        # Tasks come sorted: what the next one needs is nearly always what the last one had.
        self._drops = functools.lru_cache(maxsize=2)(self._make_drops)
        self._estimate = functools.lru_cache(maxsize=2)(self._make_estimate)

    def compute(self, task):
        """Result of a task.

        Args:
            task: `Task`.

        Returns:
            Dict. With a scheme: `failed`, bool `[num_drops, num_users, num_slots]`, and
            `num_bit_errors`, int. Without one: `quality`, dict of the policy's NMSE; `event`, bool
            `[num_drops, num_users]` or None; `rate`, float32 `[num_drops, num_users]` (Gaussian
            signalling) [bit/s/Hz]; `believed_snr_db`, float32 `[num_drops, num_users, 3]` for 2, 4
            and 6 bits per symbol; and where blocks are not decoded, `information`, float32
            `[num_drops, num_users, num_slots, 3]` (NaN for modulations that no scheme of the sweep
            has), or `failure`, float32
            `[num_schemes, num_drops, num_users, num_slots]`.
        """
        drops = self._drops(task.regime, task.horizon)
        h_hat = self._estimate(task.regime, task.horizon, task.policy)
        runner = self.runner(task.regime)
        if task.mcs is not None:
            return _count(runner, drops, h_hat, task, self.config)
        believed = runner.believed_snr_db(h_hat, task.snr_db)
        result = {
            "quality": csi_quality(h_hat, drops),
            "event": drops.event,
            "rate": runner.spectral_efficiency(drops.slot, h_hat, task.snr_db).astype(np.float32),
            "believed_snr_db": np.stack(list(believed.values()), axis=-1).astype(np.float32),
        }
        slots = range(self.config.num_slots)
        if self.config.decoding == "information":
            told = np.full((drops.num_drops, drops.num_users, len(slots), len(believed)), np.nan)
            used = {get_mcs(mcs).num_bits_per_symbol for mcs in self.config.mcs}
            for column, bits in enumerate(believed):
                if bits in used:
                    told[..., column] = runner.information(
                        drops.slot, h_hat, bits, task.snr_db, slots
                    )
            result["information"] = told.astype(np.float32)
        elif self.config.decoding == "sys":
            sinr = runner.sinr(drops.slot, h_hat, task.snr_db, slots)
            result["failure"] = _sys_failure(sinr, self.config)
        return result

    def runner(self, regime):
        """The `LinkRunner` of a regime; regimes of one link share theirs."""
        factory = self.factories[regime]
        config = self.config
        # Batches of one size share the compiled link.
        key = factory.downlink, min(config.batch_size, factory.num_drops)
        if key not in self._runners:
            self._runners[key] = LinkRunner(*key, config.seed, config.compile)
        return self._runners[key]

    def digest(self, task):
        """Text that changes with anything that the task's result depends on.

        Args:
            task: `Task`.

        Returns:
            str of 64 hexadecimal digits.
        """
        factory = self.factories[task.regime]
        policy = self._for_regime[task.regime, task.policy]
        config = self.config
        parts = [
            _code_digest(),
            factory.digest,
            repr(factory.downlink),
            policy.name,
            policy.fingerprint,
            task.horizon,
            task.snr_db,
            task.mcs,
            config.seed,
            config.num_slots,
        ]
        # Extending a sweep by points must not disturb the old ones: only what a result depends on.
        if task.mcs is not None:
            parts += [config.slots_of(task.mcs), config.target_block_errors]
        else:
            bits = sorted({get_mcs(mcs).num_bits_per_symbol for mcs in config.mcs})
            parts += [config.decoding]
            own = {"information": [bits], "sys": [config.mcs, _table_digest(config)]}
            parts += own.get(config.decoding, [])
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _make_drops(self, regime, horizon):
        return self.factories[regime].at(horizon)

    def _make_estimate(self, regime, horizon, policy):
        drops = self._drops(regime, horizon)
        h_hat = np.asarray(self.policies[policy](drops.history, drops.horizon, target=drops.target))
        if h_hat.shape != drops.target.shape:
            raise ValueError(
                f"Policy {policy!r} must return channels of shape {drops.target.shape}. "
                f"Received: shape={h_hat.shape}"
            )
        return h_hat.astype(np.complex64)


@functools.cache
def _code_digest():
    """Text that changes with the code, committed or not, that results come from."""
    root = pathlib.Path(__file__).resolve().parents[2]
    versions = records.package_versions()
    # It is named once Keras is imported, which not every policy does.
    versions.pop("backend")
    digest = hashlib.sha256(repr(sorted(versions.items())).encode())
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(_NO_PART_IN_RESULTS):
            digest.update(f"{name}\0{records.sha256(path)}\n".encode())
    return digest.hexdigest()


def _count(runner, drops, h_hat, task, config):
    """Block errors, slot by slot until there are enough of them."""
    failed, num_bit_errors = [], 0
    for slot in range(config.slots_of(task.mcs)):
        errors = runner.count(drops.slot, h_hat, task.mcs, task.snr_db, [slot])[..., 0]
        failed.append(errors > 0)
        num_bit_errors += int(errors.sum())
        enough = np.count_nonzero(failed) >= config.target_block_errors
        if slot + 1 >= config.num_slots and enough:
            break
    return {"failed": np.stack(failed, axis=-1), "num_bit_errors": num_bit_errors}


def _table_digest(config):
    return None if config.decoder_table is None else records.sha256(config.decoder_table)


def _sys_failure(sinr, config):
    """float32 `[num_schemes, num_drops, num_users, num_slots]` from SINR."""
    abstraction = SysAbstraction(DecoderTable(config.decoder_table))
    num_slots = sinr.shape[2]
    return np.stack(
        [
            np.stack([abstraction.failure(sinr[:, :, s], mcs) for s in range(num_slots)], axis=-1)
            for mcs in config.mcs
        ]
    ).astype(np.float32)


def csi_quality(h_hat, drops):
    """NMSE of estimates, of all users and of those without events.

    Args:
        h_hat: complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`.
        drops: `LinkDrops`.

    Returns:
        Dict of float or None.
    """
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
