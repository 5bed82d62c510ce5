"""Every script and every configuration of the experiments, and how to load them."""

import functools
import importlib
import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "experiments").glob("*.py"))
CONFIGS = sorted((ROOT / "experiments" / "configs").rglob("*.toml"))
# By how a configuration's name begins, or by its folder: the module and the class that read it.
_CLASSES = {
    "attention": ("lwmt_sionna.training", "TrainConfig"),
    "data": ("lwmt_sionna.rt", "GenerationConfig"),
    "finetune": ("lwmt_sionna.training", "TrainConfig"),
    "link": ("lwmt_sionna.link", "LinkEvalConfig"),
    "prediction": ("lwmt_sionna.evaluation.grid", "GridConfig"),
    "predictor": ("lwmt_sionna.training", "TrainConfig"),
    "pretrain": ("lwmt_sionna.training", "PretrainConfig"),
    "pretraining/": ("lwmt_sionna.rt", "GenerationConfig"),
    "task": ("lwmt_sionna.training.task_studies", "TaskStudyConfig"),
    "teach": ("lwmt_sionna.training.teaching", "TeachConfig"),
    "training/": ("lwmt_sionna.link.phy.tr38901", "Tr38901Config"),
    "wide": ("lwmt_sionna.rt", "GenerationConfig"),
    "worlds": ("lwmt_sionna.link.sweep.worlds", "WorldsConfig"),
    "worlds/": ("lwmt_sionna.link.phy.tr38901", "Tr38901Config"),
}


@functools.cache
def script(name):
    """The module of a script."""
    path = ROOT / "experiments" / name
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_configs(path):
    """The configurations of a file, by the class that its name, or its folder's, stands for."""
    is_named = path.parent.name == "configs" or path.stem.startswith("data_")
    kind = path.stem.partition("_")[0] if is_named else f"{path.parent.name}/"
    module, name = _CLASSES[kind]
    return getattr(importlib.import_module(module), name).variants_from_toml(path)
