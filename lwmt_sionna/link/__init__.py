"""The link: what predicted channel knowledge is worth in block errors and goodput.

Imports go one way: `phy` (the blocks of the downlink, the only part that imports `sionna.phy`) is
below `csi` (what the base station knows) and `decoding` (how block errors are told), and `sweep`
(points, tables and figures) above these. All of it runs on Sionna 1.2 with TensorFlow and on Sionna
2.2 with PyTorch; what differs stands in `phy/line.py`. Names are loaded when first used, so that
policies, drops and statistics can be used where Sionna is not installed.
"""

import importlib
from typing import Any

from lwmt_sionna.runs.shipped import how_to_install_sionna

_EXPORTS = {
    "AdaptationConfig": "sweep.adaptation",
    "CirGenerator": "phy.cir",
    "CsiPolicy": "csi.policies",
    "DecoderTable": "decoding",
    "Downlink": "phy.downlink",
    "DownlinkConfig": "phy.config",
    "DropConfig": "csi.drops",
    "DropFactory": "csi.drops",
    "LinkDrops": "csi.drops",
    "LinkEvalConfig": "sweep.run",
    "LinkRunner": "phy.runner",
    "MCS_TABLE": "phy.config",
    "Mcs": "phy.config",
    "SoundingConfig": "csi.sounding",
    "SweepConfig": "sweep.points",
    "SysAbstraction": "decoding",
    "Tr38901Config": "phy.tr38901",
    "World": "sweep.worlds",
    "WorldsConfig": "sweep.worlds",
    "cir_dataset": "phy.cir",
    "comb_pilot_pattern": "phy.downlink",
    "draw_channels": "phy.tr38901",
    "draw_figures": "sweep.figures",
    "evaluate_link": "sweep.run",
    "format_table": "sweep.table",
    "generate_channels": "phy.tr38901",
    "get_mcs": "phy.config",
    "make_policy": "csi.policies",
    "make_sim_ber_model": "phy.runner",
    "policy_names": "csi.policies",
    "run_sweep": "sweep.run",
    "sound": "csi.sounding",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _EXPORTS[name]
    try:
        value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("sionna", "tensorflow", "torch"):
            raise
        raise ImportError(
            f"The link needs Sionna: {how_to_install_sionna()}. Missing: {error.name}"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
