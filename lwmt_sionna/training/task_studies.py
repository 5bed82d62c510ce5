"""What embeddings are worth with few labels: tasks, contestants, scores over numbers of labels.

Labels are drawn nested and from as many trajectories as possible; tests are windows of trajectories
that nothing is learned from, one of each, so that intervals over tests are intervals over
trajectories.
"""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import keras
import numpy as np

from lwmt_sionna.baselines.tasks import (
    SIGHT_FEATURES,
    Neighbors,
    Threshold,
    boost_classifier,
)
from lwmt_sionna.evaluation import to_db, verdict
from lwmt_sionna.layers import Readout, beams_to_patches
from lwmt_sionna.layers.places import PlacesNearby
from lwmt_sionna.models import (
    BeamPredictor,
    LineOfSightClassifier,
    LWMTBackbone,
    MaskedChannelModel,
    TaskModel,
)
from lwmt_sionna.models.presets import load_preset, preset_digest, preset_folder
from lwmt_sionna.models.tasks import place_features, position_error
from lwmt_sionna.runs import records
from lwmt_sionna.runs.configuration import FILLED, PositiveInt
from lwmt_sionna.runs.digests import code_digest
from lwmt_sionna.runs.parallel import progress_bar
from lwmt_sionna.runs.shipped import find
from lwmt_sionna.runs.store import RunFolder
from lwmt_sionna.training.task_windows import REFERENCE_DB, Windows, load_windows
from lwmt_sionna.training.teaching import HeadConfig, teach
from lwmt_sionna.typing import Array, PathLike

logger = logging.getLogger(__name__)

__all__ = [
    "METRICS",
    "TaskStudyConfig",
    "area_under_curve",
    "draw_labels",
    "embedding_map",
    "evaluate_tasks",
    "head_features",
]

TaskName: TypeAlias = Literal["line_of_sight", "beam", "position", "estimation"]

_TRAINED = "base"
_TAUGHT = "taught"
_SCRATCH = "scratch"
# The first contestant of each task is the pretrained one; the last ones learn nothing.
_CONTESTANTS: dict[str, tuple[str, ...]] = {
    "line_of_sight": (
        _TAUGHT, _TRAINED, _SCRATCH, "k_factor", "delay_spread", "boosting", "taught_alone",
    ),
    "beam": (_TRAINED, _SCRATCH, "neighbors", "angle", "predicted_angle"),
    "position": (_TAUGHT, _TRAINED, _SCRATCH, "geometry", "neighbors"),
    "estimation": (_TRAINED, _SCRATCH, "start", "linear", "pursuit", "lmmse"),
}  # fmt: skip
_UNTAUGHT = ("taught_alone", "angle", "predicted_angle", "start", "linear", "pursuit", "lmmse")
_CEILINGS, _OWN = ("lmmse",), ("taught_alone",)
# What contestants look at, see `load_windows`.
_LOOKS = {
    "line_of_sight": ("look", "embeddings"),
    "beam": ("look", "embeddings", "directions"),
    "position": ("look", "embeddings"),
    "estimation": ("estimates", "sums"),
}
_OF_HEADS = ("steps", "learning_rate", "weight_decay")
#: Figures of each task, and whether the larger one is the better one.
METRICS: dict[str, dict[str, bool]] = {
    "line_of_sight": {"auc": True, "accuracy": True},
    "beam": {"top_1": True, "loss_db": False, "top_1_ahead": True, "loss_ahead_db": False},
    "position": {"median_m": False, "q90_m": False},
    "estimation": {"nmse_median_db": False, "nmse_pooled_db": False},
}
_NUM_RESAMPLES, _LEVEL = 1000, 0.95
# A beam that collects less than this of the best one's power counts as much.
_LEAST_BEAM = 1e-6
_LEAST_HELD, _ROWS = 5, 500
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclasses.dataclass(frozen=True)
class TaskStudyConfig(HeadConfig):
    """What is compared; a tenth of the labels, or five or half of them, tell heads when to stop.

    Attributes:
        tasks: Some of `"line_of_sight"`, `"beam"`, `"position"` and `"estimation"`.
        num_labels: Numbers of labels. More than there are stand for all of them.
        seeds: Seeds of the draws of labels and of the heads.
        sight: Preset of a `LineOfSightClassifier` over the same backbone, taught in other cities;
            nobody was taught if empty.
    """

    tasks: Annotated[tuple[TaskName, ...], FILLED] = (
        "line_of_sight", "beam", "position", "estimation",
    )  # fmt: skip
    num_labels: Annotated[tuple[PositiveInt, ...], FILLED] = (10, 100, 1000, 10000)
    seeds: Annotated[tuple[int, ...], FILLED] = (1, 2, 3)
    sight: str = "sight"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.num_labels) < 4:
            raise ValueError(
                "num_labels: expected 4 or more, half of which tell when to stop. Received: "
                f"num_labels={list(self.num_labels)}"
            )


class _Case(NamedTuple):
    """A contestant with so many labels of a draw; it answers all tests."""

    task: str
    model: str
    num_labels: int
    seed: int


class TaskScores(NamedTuple):
    """What `evaluate_tasks` found.

    Attributes:
        points: One for each metric of each answer.
        comparisons: Of the pretrained contestant with others, over all seeds.
        embedding_map: See `embedding_map`.
        inputs: Files that were read, by name.
    """

    points: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    embedding_map: list[dict[str, Any]]
    inputs: dict[str, PathLike]


def evaluate_tasks(
    config: TaskStudyConfig, preset: PathLike, workdir: PathLike, progress: bool | None = None
) -> "TaskScores":
    """Judges all contestants in all tasks; what is finished is kept, windows and answers alike.

    Args:
        config: `TaskStudyConfig`.
        preset: Name or folder of a `MaskedChannelModel` preset, of patches of 4 x 4.
        workdir: Folder of finished work.
        progress: Whether to show bars; where somebody looks if `None`.

    Returns:
        `TaskScores`.
    """
    import sklearn  # noqa: F401 - what is missing is told before hours of work

    told, taught = {"preset": preset_digest(preset)}, {}
    is_taught = any(_TAUGHT in _contestants(config, task) for task in config.tasks)
    if is_taught:
        _check_backbone(config.sight, preset)
        taught = {"sight": preset_digest(config.sight)}
    names = {name for f in config.files for name in (f.data, f.beams) if name is not None}
    inputs: dict[str, PathLike] = {find(name).stem: find(name) for name in sorted(names)}
    bar = functools.partial(progress_bar, unit="piece", desc="windows", show=progress)
    with RunFolder(workdir) as folder:
        works = {work for task in config.tasks for work in _LOOKS[task]}
        windows = load_windows(config, preset, folder.store, bar, works)
        settings = {
            name: value
            for name, value in config.to_dict().items()
            if name not in ("tasks", "num_labels", "seeds", "files", "sight", *_OF_HEADS)
        }
        learned = {name: getattr(config, name) for name in _OF_HEADS}
        common = {
            "code": code_digest(__name__),
            "settings": settings,
            "data": {name: records.sha256(path) for name, path in inputs.items()},
            "files": [dataclasses.asdict(file) for file in config.files],
        }
        answers: dict[_Case, Array] = {}
        cases = list(_cases(config, windows))
        for case in progress_bar(cases, unit="answer", desc="tasks", show=progress):
            # Sums of pilots hold scale and motion as the preset has them, read or not.
            trained = case.model in (_TAUGHT, *_OWN, _TRAINED, _SCRATCH, "start")
            key = common | (told if trained else {}) | {"case": list(case)}
            key |= taught if case.model.startswith(_TAUGHT) else {}
            key |= {"heads": learned} if case.model in (_TAUGHT, _TRAINED, _SCRATCH) else {}
            compute = functools.partial(_answer, config, windows, *case)
            answers[case] = folder.store.compute(key, compute, " ".join(case[:2]))
        points = [p for case, value in answers.items() for p in _points(case, value, windows)]
        comparisons = list(_comparisons(config, answers, windows))
        places = embedding_map(windows) if "embeddings" in works else []
    if "beam" in config.tasks:
        inputs[f"preset_{config.predictor}"] = preset_folder(config.predictor)
    inputs["preset_base"] = preset_folder(preset)
    if is_taught:
        inputs["preset_sight"] = preset_folder(config.sight)
    return TaskScores(points, comparisons, places, inputs)


def _check_backbone(sight, preset):
    """Refuses a head that was taught on other embeddings than it would be asked."""
    backbones = (
        load_preset(sight, LineOfSightClassifier).masked,
        load_preset(preset, MaskedChannelModel),
    )
    mine, theirs = (model.get_weights() for model in backbones)
    if [w.shape for w in mine] != [w.shape for w in theirs] or not all(
        map(np.array_equal, mine, theirs)
    ):
        raise ValueError(
            "`sight` must be a preset over the same backbone, or empty. Received: "
            f"sight={sight}, preset={preset}"
        )


def embedding_map(windows: Windows, most: int = 800) -> list[dict[str, Any]]:
    """Embeddings of windows in the plane, by t-SNE, and what is known of these windows.

    Args:
        windows: `Windows`.
        most: First windows at most.

    Returns:
        For each of them `x` and `y`, `sight`, `speed_kmh` and `distance_m` from its base station.

    Reference:
        van der Maaten and Hinton 2008, Visualizing data using t-SNE (JMLR 9).
    """
    from sklearn.manifold import TSNE

    first = np.flatnonzero(windows.is_first)
    chosen = np.random.default_rng(0).permutation(first)[:most]
    # Without the level: what the backbone says.
    pooled = windows.embeddings[chosen, ..., :-1].astype(np.float32).mean(axis=(1, 2))
    pooled = (pooled - pooled.mean(axis=0)) / (pooled.std(axis=0) + 1e-6)
    perplexity = min(30.0, max(1.0, len(chosen) / 4))
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(pooled)
    distance = np.linalg.norm(windows.position[chosen], axis=-1)
    return [
        {
            "x": _number(x), "y": _number(y), "sight": bool(sight),
            "speed_kmh": _number(speed), "distance_m": _number(metres),
        }
        for (x, y), sight, speed, metres in zip(
            places, windows.sight[chosen], windows.speed[chosen], distance, strict=True
        )
    ]  # fmt: skip


def draw_labels(trajectory: Array, seed: int) -> Array:
    """An order of windows whose every beginning has as many different trajectories as possible.

    The first `n` are the labels of a study with `n` labels: fewer are part of more.

    Args:
        trajectory: `[num_windows]`.
        seed: Seed of the draw.

    Returns:
        int64 `[num_windows]`: indices.
    """
    order = np.random.default_rng(seed).permutation(len(trajectory))
    seen: dict[Any, int] = {}
    rounds = []
    for name in trajectory[order].tolist():
        rounds.append(seen.get(name, 0))
        seen[name] = rounds[-1] + 1
    return order[np.argsort(rounds, kind="stable")]


def area_under_curve(scores: Array, labels: Array) -> float:
    """Probability that a window of the class has the larger score; NaN without one of both.

    Args:
        scores: float `[num_values]`.
        labels: bool `[num_values]`.
    """
    from scipy.stats import rankdata

    num_true = int(labels.sum())
    num_false = len(labels) - num_true
    if not num_true * num_false:
        return np.nan
    rank = rankdata(scores)[labels].sum()
    return float((rank - num_true * (num_true + 1) / 2) / (num_true * num_false))


def _contestants(config, task):
    """Names of the contestants of a task, the pretrained one first."""
    names = _CONTESTANTS[task]
    return names if config.sight else tuple(n for n in names if not n.startswith(_TAUGHT))


def _cases(config, windows):
    """Task, contestant, number of labels and seed of every answer."""
    for task in config.tasks:
        available = int(np.sum(_candidates(task, windows)))
        counts = list(dict.fromkeys(min(n, available) for n in sorted(config.num_labels)))
        for model in _contestants(config, task):
            if model in _UNTAUGHT:
                yield _Case(task, model, 0, 0)
            else:
                for count, seed in itertools.product(counts, config.seeds):
                    yield _Case(task, model, count, seed)


def _candidates(task, windows):
    """Windows that may be labels of a task."""
    only_first = task in ("beam", "estimation")
    return windows.is_training & (windows.is_first | (not only_first))


def _answer(config, windows, task, model, count, seed):
    candidates = np.flatnonzero(_candidates(task, windows))
    chosen = candidates[draw_labels(windows.trajectory[candidates], seed)[:count]]
    asked = np.flatnonzero(windows.is_test)
    work = _WORKS.get((task, model))
    if work is None:
        return _head(config, windows, task, model, chosen, asked, seed)
    return work(config, windows, chosen, asked, seed)


# --- heads --------------------------------------------------------------------------------------


def _head(config, windows, task, model, chosen, asked, seed):
    """The same head on embeddings or on patches, as it begins or as it was taught elsewhere."""
    keras.utils.set_random_seed(seed)
    # Nothing of this backbone is ever built: heads read what was computed before.
    backbone = LWMTBackbone(width=8, depth=1, num_heads=1)
    if task == "line_of_sight":
        solver, labels = LineOfSightClassifier(backbone), windows.sight[:, None]
    elif task == "beam":
        num_beams = windows.beam_power.shape[-1]
        solver = BeamPredictor(backbone, num_beams, 1, num_angles=windows.patches.shape[1])
        labels = windows.beam_power.argmax(axis=-1)
    else:
        labels = windows.position
        spread = np.maximum(labels[chosen].std(axis=0), 1.0)
        metres = keras.layers.Rescaling(spread, labels[chosen].mean(axis=0), dtype="float32")
        head = keras.Sequential([Readout(2, dtype="float32"), metres])
        solver = TaskModel(backbone, head, position_error)
    if model == _TAUGHT:
        solver.head.build((None, None, None, windows.embeddings.shape[-1]))
        solver.head.set_weights(_taught(config).head.get_weights())
    on = "patches" if model == _SCRATCH else "embeddings"
    features = functools.partial(head_features, windows, task, on=on)
    # Heads are small: what they learn from must not be converted step by step.
    chosen = np.random.default_rng(seed).permutation(chosen)
    num_held = max(min(_LEAST_HELD, len(chosen) // 2), len(chosen) // 10)
    held, taught = chosen[:num_held], chosen[num_held:]
    start = keras.ops.convert_to_numpy(solver.head(features(asked)))
    parts = ((features(rows), labels[rows]) for rows in (taught, held))
    before, after = teach(solver, *parts, config)
    # What a head knows beforehand counts as well as what it learns, answer by answer.
    answers = keras.ops.convert_to_numpy(solver.head(features(asked)))
    learned = (after < before)[..., None]
    answers = np.where(learned, answers, start)
    if task == "line_of_sight":
        return answers[:, 0]
    return answers.argmax(axis=-1) if task == "beam" else answers


@functools.lru_cache(maxsize=1)
def _taught(config):
    return LineOfSightClassifier.from_preset(config.sight)


def head_features(windows: Windows, task: str, rows: Array, on: str = "embeddings") -> Array:
    """What the head of a task sees of windows: as `TaskModel.embed` has it, or patches instead.

    Beams have what they are foreseen by beside, positions who serves.

    Args:
        windows: `Windows`.
        task: Name of the task.
        rows: Indices of windows; of first ones for beams.
        on: `"embeddings"` or `"patches"`.

    Returns:
        float32 `[num_rows, angle, delay, width]`.
    """
    features = getattr(windows, on)[rows].astype(np.float32)
    if task == "beam":
        # No level tells a beam: it counts from the mean of each window, in doublings of power.
        # Directions do, those of the history and as foreseen.
        level = 0.1 * (windows.level_db[rows, None, None] - REFERENCE_DB)
        features[..., -1] -= np.log2(10.0) * level
        power = keras.ops.convert_to_tensor(windows.angle_power[rows])
        prior = beams_to_patches(power, features.shape[1])
        prior = np.repeat(keras.ops.convert_to_numpy(prior), features.shape[2], axis=2)
        return np.concatenate([features, prior], axis=-1)
    if task == "position":
        stations = np.eye(windows.station.max() + 1, dtype=np.float32)[windows.station[rows]]
        stations = np.broadcast_to(
            stations[:, None, None], (*features.shape[:3], stations.shape[-1])
        )
        return np.concatenate([features, stations], axis=-1)
    return features


def _linear_head(field):
    """The linear head of an estimator; a tenth of the labels chooses how large it may be."""

    def answer(config, windows, chosen, asked, seed):
        sums = getattr(windows, field)
        chosen = np.random.default_rng(seed).permutation(chosen)
        num_held = max(2, len(chosen) // 10)
        held, taught = sums.select(chosen[:num_held]), sums.select(chosen[num_held:])
        losses = [np.log(held.errors(taught.solve(ridge))).mean() for ridge in _RIDGES]
        best = _RIDGES[int(np.argmin(losses))]
        return sums.select(asked).errors(sums.select(chosen).solve(best))

    return answer


# --- contestants without a backbone -------------------------------------------------------------


def _by_threshold(name):
    def answer(config, windows, chosen, asked, seed):
        feature = windows.by_hand[:, SIGHT_FEATURES.index(name)]
        return Threshold.fit(feature[chosen], windows.sight[chosen])(feature[asked])

    return answer


def _by_boosting(config, windows, chosen, asked, seed):
    features = windows.by_hand
    return boost_classifier(features[chosen], windows.sight[chosen], features[asked], seed)


def _by_neighbors(labels_of, with_level):
    def answer(config, windows, chosen, asked, seed):
        # Level and who serves: a beam needs neither.
        beside = (windows.level_db, windows.station) if with_level else (None, None)
        known, told = ([None if x is None else x[rows] for x in beside] for rows in (chosen, asked))
        labels = labels_of(windows)[chosen]
        groups = windows.trajectory[chosen]
        model = Neighbors(windows.profile[chosen], known[0], labels, groups, known[1])
        return model(windows.profile[asked], *told)

    return answer


def _logits(config, windows, rows):
    """What the head that was taught in other cities says of sight, `[num_rows, 1]`."""
    head = _taught(config).head
    parts = np.array_split(rows, -(-len(rows) // _ROWS))
    return np.concatenate(
        [
            keras.ops.convert_to_numpy(head(windows.embeddings[part].astype(np.float32)))
            for part in parts
        ]
    )


def _by_places(knows_sight):
    """A `Localizer` for each base station, with the sight as taught elsewhere, or without it."""

    def answer(config, windows, chosen, asked, seed):
        rows = np.concatenate([chosen, asked])
        logits = np.zeros((len(rows), 1), np.float32)
        if knows_sight:
            logits = _logits(config, windows, rows)
        bandwidth = config.num_subcarriers * config.subcarrier_spacing
        features = keras.ops.convert_to_numpy(
            place_features(windows.strongest[rows], bandwidth, logits)
        )
        known, seen = features[: len(chosen)], features[len(chosen) :]
        # Where nobody is known of a base station, the middle of all that are is as good as any.
        answers = np.tile(windows.position[chosen].mean(axis=0), (len(asked), 1))
        for station in np.unique(windows.station[chosen]):
            mine, theirs = (windows.station[rows] == station for rows in (chosen, asked))
            places = PlacesNearby()
            places.keep(known[mine], windows.position[chosen][mine])
            answers[theirs] = keras.ops.convert_to_numpy(places(seen[theirs]))
        return answers

    return answer


def _by_angle(config, windows, chosen, asked, seed):
    return np.repeat(windows.angle_power[asked, 0].argmax(axis=-1)[:, None], 2, axis=1)


def _by_predicted_angle(config, windows, chosen, asked, seed):
    return windows.angle_power[asked].argmax(axis=-1)


def _kept_estimate(name):
    return lambda config, windows, chosen, asked, seed: windows.estimates[name]


def _start(config, windows, chosen, asked, seed):
    return windows.pilots.error[asked]


# Heads are the rest.
_WORKS: dict[tuple[str, str], Callable[..., Array]] = {
    ("line_of_sight", "k_factor"): _by_threshold("k_factor_db"),
    ("line_of_sight", "delay_spread"): _by_threshold("delay_spread"),
    ("line_of_sight", "boosting"): _by_boosting,
    ("line_of_sight", "taught_alone"): lambda config, windows, chosen, asked, seed: _logits(
        config, windows, asked
    )[:, 0],
    ("beam", "angle"): _by_angle,
    ("beam", "predicted_angle"): _by_predicted_angle,
    ("beam", "neighbors"): _by_neighbors(lambda w: w.beam_power.argmax(axis=-1), False),
    ("position", _TAUGHT): _by_places(True),
    ("position", "geometry"): _by_places(False),
    ("position", "neighbors"): _by_neighbors(lambda w: w.position, True),
    ("estimation", _TRAINED): _linear_head("embedded_pilots"),
    ("estimation", _SCRATCH): _linear_head("pilots"),
    ("estimation", "start"): _start,
    **{("estimation", name): _kept_estimate(name) for name in ("linear", "pursuit", "lmmse")},
}


# --- scores -------------------------------------------------------------------------------------


def _figures(task, value, windows):
    """Functions from places of tests to a figure, by its name."""
    asked = np.flatnonzero(windows.is_test)
    if task == "line_of_sight":
        sight = windows.sight[asked]
        right = (value > 0) == sight
        return {
            "auc": lambda index: area_under_curve(value[index], sight[index]),
            "accuracy": lambda index: right[index].mean(),
        }
    if task == "beam":
        power = windows.beam_power[asked]
        best = power.max(axis=-1)
        found = np.take_along_axis(power, value[..., None].astype(int), axis=-1)[..., 0]
        right = value == power.argmax(axis=-1)
        loss = -to_db(np.maximum(found / best, _LEAST_BEAM))
        return {
            "top_1": lambda index: right[index, 0].mean(),
            "loss_db": lambda index: loss[index, 0].mean(),
            "top_1_ahead": lambda index: right[index, 1].mean(),
            "loss_ahead_db": lambda index: loss[index, 1].mean(),
        }
    if task == "position":
        error = np.linalg.norm(value - windows.position[asked], axis=-1)
        return {
            "median_m": lambda index: np.median(error[index]),
            "q90_m": lambda index: np.quantile(error[index], 0.9),
        }
    # Of channels of unit power each: who is far away counts as much.
    return {
        "nmse_median_db": lambda index: to_db(np.median(value[index])),
        "nmse_pooled_db": lambda index: to_db(value[index].mean()),
    }


def _interval(figure, count):
    """A figure of all tests, and the ends of its interval over resampled ones."""
    values = [figure(index) for index in _resamples(count)]
    tail = (1 - _LEVEL) / 2
    ends = np.nanquantile(values, [tail, 1 - tail]) if np.isfinite(values).any() else (np.nan,) * 2
    return [_number(x) for x in (figure(np.arange(count)), *ends)]


@functools.lru_cache(maxsize=2)
def _resamples(count):
    return np.random.default_rng(0).integers(count, size=(_NUM_RESAMPLES, count))


def _number(value):
    """A number of a record: four digits of it, and None for what is undefined."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _points(case, answer, windows):
    for metric, figure in _figures(case.task, answer, windows).items():
        value, low, high = _interval(figure, int(windows.is_test.sum()))
        yield {
            **case._asdict(),
            "metric": metric,
            "value": value,
            "low": low,
            "high": high,
            "num_test": int(windows.is_test.sum()),
            "scene": windows.scene,
        }


def _comparisons(
    config: TaskStudyConfig, answers: dict[_Case, Array], windows: Windows
) -> Iterator[dict[str, Any]]:
    """The pretrained contestant against the head from scratch with ten times the labels, and the
    best of all others with as many, ceilings apart.
    """
    found: dict[tuple[str, str, int], list[Array]] = {}
    for case, answer in answers.items():
        found.setdefault(case[:3], []).append(answer)
    for (task, model, count), values in found.items():
        if model != _contestants(config, task)[0]:
            continue
        for metric, larger in METRICS[task].items():
            mean = functools.partial(_mean_figure, task, metric, windows)
            more = (task, _SCRATCH, 10 * count)
            rivals = [("scratch_10x", more)] if more in found else []
            others = [
                (name, key)
                for name in _contestants(config, task)[1:]
                for key in ((task, name, count), (task, name, 0))
                if key in found and name not in (*_CEILINGS, *_OWN)
            ]
            everyone = np.arange(int(windows.is_test.sum()))
            others.sort(key=lambda pair: mean(found[pair[1]])(everyone), reverse=larger)
            for kind, (name, key) in [
                *zip(["ten_times_labels"], rivals),
                ("best_other", others[0]),
            ]:
                yield _compared(mean(values), mean(found[key]), len(everyone), larger) | {
                    "task": task,
                    "metric": metric,
                    "num_labels": count,
                    "against": kind,
                    "rival": name,
                }


def _mean_figure(task, metric, windows, values):
    """A figure, mean over seeds."""
    figures = [_figures(task, value, windows)[metric] for value in values]
    return lambda index: float(np.mean([figure(index) for figure in figures]))


def _compared(figure, rival, count, larger):
    difference, low, high = _interval(lambda index: figure(index) - rival(index), count)
    told = None if low is None else verdict(low, high, lower_is_better=not larger)
    return {"difference": difference, "low": low, "high": high, "verdict": told}
