"""Monte-Carlo over policies, coding schemes and SNR, resumable point by point."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from lwmt_sionna import records
from lwmt_sionna.link.mcs import get_mcs
from lwmt_sionna.link.runner import LinkRunner
from lwmt_sionna.link.statistics import cluster_bootstrap, nmse_summary, paired_bootstrap
from lwmt_sionna.link.store import PointStore

__all__ = ["SweepConfig", "run_sweep"]

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
        batch_size: int, drops per call of the compiled link; bounds the memory.
        seed: int, seed of bits and noise.
        compile: "xla", "graph" or "eager".
    """

    horizons: tuple = (1, 5)
    snr_db: tuple = (-6.0, -2.0, 2.0, 6.0, 10.0)
    mcs: tuple = (4, 13, 22)
    num_slots: int = 1
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
        if self.compile not in ("xla", "graph", "eager"):
            raise ValueError(
                f'`compile` is "xla", "graph" or "eager". Received: compile={self.compile!r}'
            )


def run_sweep(factories, policies, config=None, store=None, progress=None):
    """Runs every policy over every regime, horizon, scheme and SNR.

    All policies meet the same drops, bits and noise and the same receiver: only the precoder's
    CSI differs.

    Args:
        factories: list of `DropFactory`, one per regime, or any objects with its `at`, `name`,
            `downlink`, `num_drops` and `digest`.
        policies: list of `CsiPolicy`.
        config: `SweepConfig`.
        store: `PointStore` or None; points found in it are not computed again.
        progress: bool or None, show a progress bar; None shows one on a terminal.

    Returns:
        List of dict, the points in order of regime, horizon, policy, scheme and SNR. Each holds
        counts and rates: `num_drops`, `num_blocks`, `num_block_errors`, `num_bits`,
        `num_bit_errors`, `bler` with `bler_low` and `bler_high` (95 %, over drops), `ber`, `rate`
        and `goodput` [bit/s/Hz and user], `sum_rate` (mean over drops of the users' summed
        `log2(1 + SINR)` [bit/s/Hz]), the NMSE of the policy, the difference of its BLER to that of
        the policy `hold` with its paired interval, and NMSE and BLER of the users without events
        where events are known.
    """
    config = SweepConfig() if config is None else config
    store = PointStore() if store is None else store
    names = [policy.name for policy in policies]
    if len(set(names)) != len(names):
        raise ValueError(f"Policies need different names. Received: {names}")
    runners = {}
    points = []
    total = len(factories) * len(config.horizons) * len(names) * len(config.mcs)
    with tqdm(
        total=total * len(config.snr_db),
        desc="link",
        unit="point",
        disable=None if progress is None else not progress,
    ) as bar:
        for factory in factories:
            # Drops of one shape share the compiled link.
            key = (factory.downlink, min(config.batch_size, factory.num_drops))
            if key not in runners:
                runners[key] = LinkRunner(
                    factory.downlink, config.num_slots, key[1], config.seed, config.compile
                )
            for horizon in config.horizons:
                points += _sweep_cell(factory, horizon, policies, config, runners[key], store, bar)
    return points


def _sweep_cell(factory, horizon, policies, config, runner, store, bar):
    """Points of one regime at one horizon."""
    grid = [
        (policy, mcs, snr) for policy in policies for mcs in config.mcs for snr in config.snr_db
    ]
    digests = {
        (policy.name, mcs, snr): _digest(factory, horizon, policy, mcs, snr, config)
        for policy, mcs, snr in grid
    }
    drops = None
    for policy in policies:
        missing = [
            (mcs, snr)
            for mcs in config.mcs
            for snr in config.snr_db
            if digests[policy.name, mcs, snr] not in store
        ]
        bar.update(len(config.mcs) * len(config.snr_db) - len(missing))
        if not missing:
            continue
        bar.set_postfix_str(f"{factory.name}, horizon {horizon}, {policy.name}")
        if drops is None:
            drops = factory.at(horizon)
        h_hat = _estimate(policy, drops)
        common = {
            "regime": factory.name,
            "speed_kmh": getattr(factory, "speed_kmh", None),
            "sampling_period": getattr(factory, "sampling_period", None),
            "normalized_doppler": getattr(factory, "normalized_doppler", None),
            "scene": getattr(factory, "scene", None),
            "horizon": horizon,
            "policy": policy.name,
            **_csi_quality(h_hat, drops),
        }
        rates = {}
        for mcs, snr in missing:
            errors = runner.count(drops.slot, h_hat, mcs, snr)
            if snr not in rates:
                rates[snr] = runner.spectral_efficiency(drops.slot, h_hat, snr)
            point = {
                **common,
                "snr_db": snr,
                **_summarise(errors, runner.downlink(mcs), drops.event),
                **_summarise_rates(rates[snr], drops.event),
            }
            failed = np.count_nonzero(errors, axis=(1, 2)).tolist()
            store.add(digests[policy.name, mcs, snr], point, failed)
            bar.update()
    return [
        {
            **store.get(digests[policy.name, mcs, snr])[0],
            **_against_reference(store, digests, policy.name, mcs, snr),
        }
        for policy, mcs, snr in grid
    ]


def _against_reference(store, digests, policy, mcs, snr):
    """Difference to holding the last snapshot, on the same drops, bits and noise."""
    reference = digests.get((REFERENCE_POLICY, mcs, snr))
    if reference is None or policy == REFERENCE_POLICY:
        return {}
    point, failed = store.get(digests[policy, mcs, snr])
    blocks = np.full(len(failed), point["num_blocks"] // len(failed))
    values = paired_bootstrap(failed, store.get(reference)[1], blocks)
    names = ("", "_low", "_high")
    return {f"bler_minus_{REFERENCE_POLICY}{name}": v for name, v in zip(names, values)}


def _estimate(policy, drops):
    h_hat = np.asarray(policy(drops.history, drops.horizon, target=drops.target))
    if h_hat.shape != drops.target.shape:
        raise ValueError(
            f"Policy {policy.name!r} must return channels of shape {drops.target.shape}. "
            f"Received: shape={h_hat.shape}"
        )
    return h_hat.astype(np.complex64)


def _csi_quality(h_hat, drops):
    # The antennas of a user belong to one channel, scaled as one.
    by_user = (drops.num_drops, drops.num_users, -1, h_hat.shape[-1])
    h_hat, target = h_hat.reshape(by_user), drops.target.reshape(by_user)
    rms = drops.history_rms
    if rms is None:
        rms = np.ones(target.shape[:2])
    quality = nmse_summary(h_hat, target, rms)
    if drops.event is None:
        return quality
    free = ~drops.event
    quality["event_share"] = round(float(drops.event.mean()), 4)
    for suffix, chosen in (("_event_free", free), ("_event", drops.event)):
        chosen = nmse_summary(h_hat[chosen], target[chosen], rms[chosen])
        for name in ("nmse_pooled_db", "nmse_median_db"):
            quality[name + suffix] = chosen[name]
    return quality


def _summarise(errors, downlink, event):
    """Counts of one point from bit errors `[num_drops, num_users, num_slots]`."""
    failed = errors > 0
    blocks = np.full(len(errors), errors[0].size)
    bler = float(failed.mean())
    low, high = cluster_bootstrap(failed.sum(axis=(1, 2)), blocks)
    num_bits = errors.size * downlink.num_info_bits
    summary = {
        "mcs": downlink.mcs.index,
        "mcs_name": downlink.mcs.name,
        "num_drops": len(errors),
        "num_blocks": errors.size,
        "num_block_errors": int(failed.sum()),
        "num_bits": num_bits,
        "num_bit_errors": int(errors.sum()),
        "bler": bler,
        "bler_low": low,
        "bler_high": high,
        "ber": float(errors.sum() / num_bits),
        "rate": downlink.rate,
        "goodput": downlink.rate * (1 - bler),
    }
    if event is not None:
        free = failed[~event]
        summary["num_blocks_event_free"] = free.size
        summary["num_block_errors_event_free"] = int(free.sum())
        summary["bler_event_free"] = float(free.mean()) if free.size else None
    return summary


def _summarise_rates(rates, event):
    summary = {
        "sum_rate": float(rates.sum(axis=1).mean()),
        "user_rate_median": float(np.median(rates)),
        "user_rate_q05": float(np.quantile(rates, 0.05)),
    }
    if event is not None and not event.all():
        summary["user_rate_mean_event_free"] = float(rates[~event].mean())
    return summary


def _digest(factory, horizon, policy, mcs, snr_db, config):
    # Extending a sweep by points must not disturb the old ones: only what a count depends on.
    settings = replace(
        config, horizons=(horizon,), mcs=(mcs,), snr_db=(snr_db,), batch_size=1, compile="xla"
    )
    parts = (
        records.git_state()["commit"],
        factory.digest,
        factory.name,
        repr(factory.downlink),
        policy.name,
        policy.fingerprint,
        repr(settings),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()
