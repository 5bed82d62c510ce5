"""The link: what predicted channel knowledge is worth in block errors and goodput.

The only room that imports `sionna.phy`. Names are loaded when first used, so that policies, drops
and statistics can be used where Sionna is not installed.
"""

import importlib

_EXPORTS = {
    "AdaptationConfig": "adaptation",
    "CirGenerator": "cir",
    "CsiPolicy": "policies",
    "DecoderTable": "abstraction",
    "Downlink": "downlink",
    "DownlinkConfig": "config",
    "DropConfig": "drops",
    "DropFactory": "drops",
    "LinkDrops": "drops",
    "LinkEvalConfig": "evaluation",
    "LinkRunner": "runner",
    "MCS_TABLE": "mcs",
    "Mcs": "mcs",
    "PointStore": "store",
    "SoundingConfig": "uplink",
    "SweepConfig": "sweep",
    "SysAbstraction": "abstraction",
    "cir_dataset": "cir",
    "cluster_bootstrap": "statistics",
    "comb_pilot_pattern": "downlink",
    "draw_figures": "figures",
    "evaluate_link": "evaluation",
    "format_table": "table",
    "get_mcs": "mcs",
    "make_policy": "policies",
    "make_sim_ber_model": "sim_ber",
    "policy_names": "policies",
    "run_sweep": "sweep",
    "sound": "uplink",
}

_NEEDS_SIONNA = ("downlink", "evaluation", "runner", "sim_ber", "sweep")

__all__ = sorted(_EXPORTS)


def __getattr__(name):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _EXPORTS[name]
    try:
        value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if module in _NEEDS_SIONNA and error.name in ("sionna", "tensorflow"):
            raise ImportError(
                f'The link needs Sionna: pip install "lwmt-sionna[tf]". Missing: {error.name}'
            ) from error
        raise
    globals()[name] = value
    return value


def __dir__():
    return __all__
