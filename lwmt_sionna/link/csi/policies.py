"""CSI policies: what the base station believes about the channel of the slot it schedules."""

import ast
import copy
import functools
import hashlib
import importlib
import inspect
import pathlib
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from lwmt_sionna.baselines import (
    CLASSICAL,
    ModelPredictor,
    check_array,
    told_arrived,
    tuned_settings,
)
from lwmt_sionna.baselines.estimation import interpolate_pilots, pursue_paths
from lwmt_sionna.data.synthesis import complex_normal
from lwmt_sionna.evaluation import CEILINGS
from lwmt_sionna.link.csi.drops import DropFactory
from lwmt_sionna.models import ChannelEstimator, MaskedChannelModel
from lwmt_sionna.models.presets import (
    DEFAULT_PRESET,
    list_presets,
    load_preset,
    preset_digest,
    preset_folder,
)
from lwmt_sionna.runs import records
from lwmt_sionna.typing import Array, PathLike

#: Estimators from sparse sounding that are no network, by the names of their policies.
ESTIMATORS = {"linear": interpolate_pilots, "pursuit": pursue_paths}
#: Policies that know more than was measured.
LINK_CEILINGS = (*CEILINGS, "lmmse")
# What an estimator without a preset of its own stands on, and links that it estimates at once.
_PRETRAINED, _BATCH = "base", 16


class CsiPolicy:
    """From the measured past to the channel that the precoder is built on.

    A policy of one's own needs nothing more than `__call__`; `PredictedCsi` makes one of any
    predictor. One whose call has a keyword `arrived` is told of lost reports. Only perfect and
    noisy perfect CSI look at `target`. A link is one receive antenna of a user; with single-antenna
    users `num_links` is `num_users`.

    Args:
        name: str, name in tables, records and figures.

    Call arguments:
        history, horizon, target: see `LinkDrops`.
        arrived: see `LinkDrops`; handed over, where a report is missing, to calls that have this
            keyword.

    Returns:
        complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`.
    """

    #: Text that changes when the policy would answer differently; a resumed sweep compares it.
    fingerprint: str = ""
    #: Path of the file or folder that the policy was read from, if any; it is hashed.
    source: PathLike | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, history: Array, horizon: int, target: Array | None = None) -> Array:
        raise NotImplementedError

    def for_regime(self, factory: DropFactory) -> "CsiPolicy":
        """The policy for one regime, where it has to know something of it; itself otherwise."""
        return self


class PerfectCsi(CsiPolicy):
    """The true channel in the middle of the slot, the snapshot that predictors aim at.

    The precoder is constant over the slot: this is the ceiling of every policy that gives one
    channel per slot, not of one that would follow the channel from symbol to symbol.
    """

    def __init__(self, name: str = "perfect") -> None:
        super().__init__(name)

    def __call__(self, history: Array, horizon: int, target: Array | None = None) -> Array:
        return _required(target, self.name)


class NoisyPerfectCsi(CsiPolicy):
    """The true channel of the slot with the white noise of a history snapshot: CSI of age zero.

    Args:
        history_snr_db: float, SNR of the measurement [dB].
        seed: int, seed of the noise.
    """

    def __init__(self, history_snr_db: float, seed: int = 0, name: str = "noisy_perfect") -> None:
        super().__init__(name)
        self.history_snr_db = float(history_snr_db)
        self.seed = seed
        self.fingerprint = f"{self.history_snr_db} {seed}"

    def __call__(self, history: Array, horizon: int, target: Array | None = None) -> Array:
        target = _required(target, self.name)
        # The history has unit power with its noise in it.
        snr = 10 ** (self.history_snr_db / 10)
        power = np.mean(np.abs(history) ** 2, axis=(2, 3, 4)) / (1 + snr)
        rng = np.random.default_rng([self.seed, horizon])
        deviation = np.sqrt(power / 2)[..., None, None].astype(np.float32)
        return target + deviation * complex_normal(rng, target.shape)

    def for_regime(self, factory: DropFactory) -> "NoisyPerfectCsi":
        return NoisyPerfectCsi(factory.config.history_snr_db, self.seed, self.name)


class CausalCsi(CsiPolicy):
    """The causal ceiling: what could be foreseen of the slot at best.

    All paths of the last measured snapshot are known exactly, the dead are kept on, the born are
    missing; see `lwmt_sionna.evaluation.causal_channel`.
    """

    def __init__(
        self, name: str = "causal", foreseen: Callable[[int], Array] | None = None
    ) -> None:
        super().__init__(name)
        self._foreseen = foreseen

    def for_regime(self, factory: DropFactory) -> "CausalCsi":
        if not hasattr(getattr(factory, "channels", None), "paths"):
            raise ValueError(
                f"Policy {self.name!r} needs the paths behind the channels; expected drops of "
                f"stored paths. Received: regime={factory.name}"
            )
        return CausalCsi(self.name, factory.causal)

    def __call__(self, history: Array, horizon: int, target: Array | None = None) -> Array:
        if self._foreseen is None:
            told = "belongs to a regime; expected that of `for_regime`"
            raise ValueError(f"Policy {self.name!r} {told}")
        return self._foreseen(horizon)


class PredictedCsi(CsiPolicy):
    """Any predictor as a policy.

    A predictor made for another array than that of a `DropFactory` is refused there. Presets and
    tuned baselines are made for each; others of a planar or dual-polarised array need a predictor
    that was given that `array_shape`.

    Args:
        predictor: callable `(history, num_horizons)` on complex64
            `[batch, num_snapshots, num_antennas, num_subcarriers]`, returning
            `[batch, num_horizons, num_antennas, num_subcarriers]`, as in `lwmt_sionna.baselines`.
            If it has a keyword `arrived`, it is told of lost reports.
        batch_size: int, sequences per call.
        num_horizons: int, horizons to predict at least, so that a sweep over horizons calls the
            predictor once per history.
        fingerprint: str, identifies weights and settings.
    """

    def __init__(
        self,
        predictor: Callable[..., Array],
        name: str,
        batch_size: int = 128,
        num_horizons: int = 1,
        fingerprint: str = "",
    ) -> None:
        super().__init__(name)
        self.predictor = predictor
        self.batch_size = batch_size
        self.num_horizons = num_horizons
        self.fingerprint = fingerprint
        self._last: tuple[Any, Array, Array] | None = None

    def for_regime(self, factory: DropFactory) -> "PredictedCsi":

        check_array(self.predictor, f"Policy {self.name!r}", factory.downlink.array.shape)
        return self

    def __call__(
        self,
        history: Array,
        horizon: int,
        target: Array | None = None,
        arrived: Array | None = None,
    ) -> Array:
        if horizon < 1:
            raise ValueError(
                f"Policy {self.name!r} looks ahead: expected horizons from 1 on. Received: "
                f"horizon={horizon}"
            )
        # The history is kept along: another one cannot come to lie at its address.
        told = b"" if arrived is None else np.asarray(arrived, bool).tobytes()
        key = (history.ctypes.data, history.shape, history.strides, told)
        if self._last is None or self._last[0] != key or self._last[2].shape[2] < horizon:
            forecast = self._predict(history, max(horizon, self.num_horizons), arrived)
            self._last = key, history, forecast
        return self._last[2][:, :, horizon - 1]

    def _predict(self, history, num_horizons, arrived):
        sequences = history.reshape((-1, *history.shape[2:]))
        told = told_arrived(self.predictor, arrived)
        told = {name: value.reshape(sequences.shape[:2]) for name, value in told.items()}
        chunks = []
        for first in range(0, len(sequences), self.batch_size):
            part = slice(first, first + self.batch_size)
            own = {name: value[part] for name, value in told.items()}
            chunks.append(self._predict_batch(sequences[part], num_horizons, own))
        forecast = np.concatenate(chunks)
        broken = ~np.isfinite(forecast).all(axis=(1, 2, 3))
        if broken.any():
            told = f"{np.count_nonzero(broken)} of {len(broken)} users"
            raise ValueError(f"Policy {self.name!r} returned NaN or infinite values for {told}.")
        return forecast.reshape((*history.shape[:2], *forecast.shape[1:]))

    def _predict_batch(self, chunk, num_horizons, told):
        try:
            predicted = np.asarray(self.predictor(chunk, num_horizons, **told))
        except ValueError as error:
            raise ValueError(
                f"Policy {self.name!r} cannot predict these channels: {_core(error)}"
            ) from error
        expected = (len(chunk), num_horizons, *chunk.shape[2:])
        if predicted.shape != expected or not np.iscomplexobj(predicted):
            raise ValueError(
                f"Policy {self.name!r} must return a prediction of shape {expected}, complex "
                f"channels. Received: shape={predicted.shape}, dtype={predicted.dtype}"
            )
        return predicted.astype(np.complex64)


class EstimatedCsi(CsiPolicy):
    """The whole channel of the last snapshot, estimated from sparse sounding.

    For later slots a preset predicts from what was estimated of all snapshots.

    Args:
        estimate: callable `(h, mask, factory)` on complex64 `[num_sequences, num_snapshots,
            num_antennas, num_subcarriers]`, zero where there is no pilot, bool `[num_snapshots,
            num_subcarriers]`, true there, and the `DropFactory` of the regime, returning whole
            channels in the shape of `h`.
        preset: str, preset of the predictor for later slots.
        fingerprint: str, identifies weights and settings of the estimator.
    """

    def __init__(
        self,
        estimate: Callable[[Array, Array, Any], Array],
        name: str,
        preset: str = DEFAULT_PRESET,
        fingerprint: str = "",
    ) -> None:
        super().__init__(name)
        self.estimate = estimate
        self.preset = preset
        self.fingerprint = f"{fingerprint} {preset_digest(preset)}"
        self._factory: DropFactory | None = None
        self._last: tuple[Array, Array] | None = None
        self._ahead: CsiPolicy | None = None

    def for_regime(self, factory: DropFactory) -> "EstimatedCsi":
        policy = copy.copy(self)
        policy._factory, policy._last, policy._ahead = factory, None, None
        return policy

    def __call__(self, history: Array, horizon: int, target: Array | None = None) -> Array:
        if self._factory is None:
            told = "belongs to a regime; expected that of `for_regime`"
            raise ValueError(f"Policy {self.name!r} {told}")
        if self._last is None or self._last[0] is not history:
            # All links are sounded alike, by all antennas.
            mask = np.isnan(history[0, 0, :, 0])
            h = np.where(mask[:, None], 0, history).reshape(-1, *history.shape[2:])
            h = np.asarray(self.estimate(h, mask, self._factory), np.complex64)
            self._last = history, h.reshape(history.shape)
        whole = self._last[1]
        if horizon == 0:
            return whole[:, :, -1]
        if self._ahead is None:
            predictor = _predictor(self.preset, _array_shape(self._factory))
            self._ahead = PredictedCsi(predictor, self.name)
        return self._ahead(whole, horizon)


class LmmseCsi(EstimatedCsi):
    """The linear MMSE estimate with the true statistics of every user: a ceiling.

    See `lwmt_sionna.baselines.estimation.path_lmmse`.
    """

    def __init__(self, name: str = "lmmse", preset: str = DEFAULT_PRESET) -> None:
        super().__init__(lambda h, mask, factory: factory.lmmse(h, mask), name, preset)

    def for_regime(self, factory: DropFactory) -> "EstimatedCsi":
        if not hasattr(getattr(factory, "channels", None), "paths"):
            raise ValueError(
                f"Policy {self.name!r} needs the paths behind the channels; expected drops of "
                f"stored paths. Received: regime={factory.name}"
            )
        return super().for_regime(factory)


# Programs are compiled once, whatever the regimes and the policies.
@functools.lru_cache(maxsize=2)
def _predictor(preset, array_shape):
    return ModelPredictor(preset, array_shape=array_shape)


@functools.lru_cache(maxsize=2)
def _estimator(preset, array_shape):
    model = load_preset(preset, array_shape=array_shape)
    if not isinstance(model, ChannelEstimator):
        backbone = load_preset(preset, MaskedChannelModel, array_shape=array_shape)
        model = ChannelEstimator(backbone, array_shape=array_shape)
    model.build()
    return model


def _estimate(preset, h, mask, factory):
    """What a `ChannelEstimator` makes of links; untrained it is its start, at a lower price."""
    model = _estimator(preset, _array_shape(factory))
    trained = any(np.any(weights) for weights in model.head.get_weights())
    scales = {
        "sampling_period": factory.sampling_period,
        "subcarrier_spacing": factory.channels.frequencies[1] - factory.channels.frequencies[0],
    }
    scales = {} if model.backbone.position_units is None else scales
    found = []
    for first in range(0, len(h), _BATCH):
        # Batches of one size share a program.
        rows = np.minimum(np.arange(first, first + _BATCH), len(h) - 1)
        inputs = {"h": h[rows], "mask": np.repeat(mask[None, :, None], _BATCH, axis=0)}
        inputs |= {name: np.full(_BATCH, value, np.float32) for name, value in scales.items()}
        answer = model(inputs) if trained else model.start(inputs)
        found.append(keras.ops.convert_to_numpy(answer))
    return np.concatenate(found)[: len(h)]


def _array_shape(factory):
    """The shape of a regime's array as presets take it: None for a line."""
    downlink = factory.downlink
    shape = downlink.array.shape
    return None if shape == (1, downlink.num_antennas, 1) else shape


class _MadeCsi(PredictedCsi):
    """A preset or baseline, made for the array and, if tuned, the history SNR of each regime.

    Of both, `make` makes the predictor, its name, its fingerprint and its source.
    """

    def __init__(
        self, make: Callable[..., Any], history_snr_db: float | None, array_shape: Any = None
    ) -> None:
        predictor, name, fingerprint, source = make(history_snr_db, array_shape)
        super().__init__(predictor, name, fingerprint=fingerprint)
        self.source, self._make, self._made_of = source, make, (history_snr_db, array_shape)

    def for_regime(self, factory):
        tuned = self._made_of[0] is not None
        # What takes no shape serves a line.
        own = (factory.config.history_snr_db if tuned else None, _array_shape(factory))
        policy = self
        if own != self._made_of:
            policy = _MadeCsi(self._make, *own)
            policy.name, policy.num_horizons = self.name, self.num_horizons
        return super(_MadeCsi, policy).for_regime(factory)


def _core(error):
    """What went wrong, without what Keras wraps around it."""
    wrapped = re.search(r"\x1b\[1m(.*?)\x1b\[0m", str(error), flags=re.DOTALL)
    return str(error) if wrapped is None else wrapped.group(1)


def _required(target, name):
    if target is None:
        raise ValueError(f"Policy {name!r} needs the true channel. Received: target=None")
    return target


def policy_names() -> tuple[str, ...]:
    """Names that `make_policy` knows; besides them `preset:NAME_OR_PATH` and `module:object`.

    The ceilings, every training-free baseline, `model` and the shipped presets of predictors; for
    sparse sounding, estimators. `estimator` is an untrained `ChannelEstimator`, and
    `estimator:NAME_OR_PATH` that of a preset.
    """
    presets = list_presets(with_weights=True, model="ChannelPredictor")
    return (*LINK_CEILINGS, *CLASSICAL, "model", *presets, *ESTIMATORS, "estimator")


def make_policy(
    spec: str,
    *,
    preset: str = DEFAULT_PRESET,
    history_snr_db: float = 15.0,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    num_horizons: int = 1,
) -> CsiPolicy:
    """Builds a policy from its name.

    Args:
        spec: str, one of `policy_names()`, `preset:NAME_OR_PATH` for a further model, or
            `module:object` for one's own. The object may be a `CsiPolicy`, a predictor
            `(history, num_horizons) -> prediction`, a class of either that needs no arguments, or
            a Keras model that predicts like `ChannelPredictor`.
        preset: str, preset of the policy `model`, and of what predicts from estimates.
        history_snr_db: float, SNR of the history [dB], for `noisy_perfect` and for baselines, which
            have the settings tuned at the nearest SNR (see `lwmt_sionna.baselines.tuned_settings`).
        seed: int, seed of the noise of `noisy_perfect`.
        settings: dict or None, arguments of the baseline's constructor in place of all tuned ones.
            Without an `array_shape` among them it is that of the drops.
        num_horizons: int, horizons that predictors are asked for at least (see `PredictedCsi`).

    Raises:
        ValueError: there is no such policy, or the object is none.
    """
    policy = _find_policy(spec, preset, history_snr_db, seed, settings)
    if isinstance(policy, PredictedCsi):
        policy.num_horizons = num_horizons
    return policy


def _find_policy(spec, preset, history_snr_db, seed, settings):
    if spec == "perfect":
        return PerfectCsi()
    if spec == "causal":
        return CausalCsi()
    if spec == "noisy_perfect":
        return NoisyPerfectCsi(history_snr_db, seed)
    if spec == "lmmse":
        return LmmseCsi(preset=preset)
    if spec in ESTIMATORS:
        estimate = ESTIMATORS[spec]
        return EstimatedCsi(lambda h, mask, _: estimate(h, mask), spec, preset)
    if spec.partition(":")[0] == "estimator":
        return _estimated(spec, preset)
    if spec == "model":
        return _MadeCsi(functools.partial(_preset, preset, spec), None)
    if spec in CLASSICAL:
        tuned_at = history_snr_db if settings is None else None
        return _MadeCsi(functools.partial(_baseline, spec, settings), tuned_at)
    kind, _, rest = spec.partition(":")
    if not rest:
        if spec in policy_names():
            return _MadeCsi(functools.partial(_preset, spec, spec), None)
        raise ValueError(
            f"Unknown policy. Known: {', '.join(policy_names())}, preset:NAME_OR_PATH, "
            f"module:object. Received: policy={spec!r}"
        )
    if kind == "preset":
        return _MadeCsi(functools.partial(_preset, rest, spec), None)
    return _from_object(spec, kind, rest)


def _estimated(spec, preset):
    own = spec.partition(":")[2] or _PRETRAINED
    estimate = functools.partial(_estimate, own)
    policy = EstimatedCsi(estimate, spec, preset, preset_digest(own))
    policy.source = preset_folder(own)
    return policy


def _baseline(name, settings, history_snr_db, array_shape):
    cls = CLASSICAL[name]
    # Settings fit together: those given stand alone.
    settings = tuned_settings(name, history_snr_db) if settings is None else settings
    if array_shape is not None and "array_shape" in inspect.signature(cls).parameters:
        settings = {"array_shape": array_shape, **settings}
    try:
        arguments = inspect.signature(cls).bind(**settings)
        predictor = cls(**settings)
    except TypeError as error:
        raise ValueError(f"Policy {name!r} does not take these settings: {error}") from error
    arguments.apply_defaults()
    given = [value for value in settings.values() if isinstance(value, str | pathlib.Path)]
    files = [value for value in given if pathlib.Path(value).exists()]
    # Where a file lies does not matter, what it holds does.
    arguments = {
        key: records.sha256(value) if value in files else value
        for key, value in sorted(arguments.arguments.items())
    }
    return predictor, name, repr(list(arguments.items())), files[0] if files else None


def _preset(preset, name, history_snr_db, array_shape):
    folder = preset_folder(preset)
    predictor = ModelPredictor(preset, name=name, array_shape=array_shape)
    return predictor, name, preset_digest(folder), folder


def _from_object(spec, module_name, object_name):
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A package that the user's module itself lacks is another matter than a mistyped name.
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise ValueError(
            f"No module of that name can be imported (is its folder on PYTHONPATH?). "
            f"Received: policy={spec!r}"
        ) from error
    target = module
    for part in object_name.split("."):
        if not hasattr(target, part):
            raise ValueError(f"The module {module_name} has no {object_name!r}: policy={spec!r}")
        target = getattr(target, part)
    if inspect.isclass(target):
        try:
            inspect.signature(target).bind()
        except (TypeError, ValueError) as error:
            raise _no_policy(spec, f"the class {object_name}: {error}") from error
        target = target()
    fingerprint = [_own_code(module)]
    source = getattr(target, "source", None)
    if source is not None:
        fingerprint.append(records.sha256(source))
    if isinstance(target, CsiPolicy):
        policy = copy.copy(target)
        policy.fingerprint = " ".join([*fingerprint, target.fingerprint])
        return policy
    predictor = target
    if hasattr(target, "trainable_variables"):
        predictor = ModelPredictor(target)
        weights = hashlib.sha256()
        for variable in target.weights:
            weights.update(np.ascontiguousarray(variable))
        fingerprint.append(weights.hexdigest())
    _check_call(predictor, spec)
    policy = PredictedCsi(predictor, spec, fingerprint=" ".join(fingerprint))
    policy.source = source
    return policy


def _check_call(predictor, spec):
    if not callable(predictor):
        raise _no_policy(spec, f"{predictor!r:.80} of type {type(predictor).__name__}")
    try:
        signature = inspect.signature(predictor)
    except (TypeError, ValueError):
        # Compiled functions may have none: what they take turns out when they are called.
        return
    try:
        signature.bind(None, 1)
    except TypeError as error:
        raise _no_policy(spec, f"a callable that takes {signature}") from error


def _no_policy(spec, what):
    return ValueError(
        "A policy is a callable (history, num_horizons) -> prediction on complex arrays [batch, "
        "time, antenna, subcarrier], a Keras model that predicts like ChannelPredictor, a "
        f"CsiPolicy, or a class of one of them that needs no arguments. Received: policy={spec!r}, "
        f"{what}"
    )


def _own_code(module):
    """Digest of the source of a module and of what it imports from the folder it lies in."""
    file = pathlib.Path(getattr(module, "__file__", None) or "")
    if file.suffix != ".py":
        return ""
    root = file.parents[module.__name__.count(".") + (file.name == "__init__.py")]
    found, waiting = {}, [file]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file() or root / "lwmt_sionna" in path.parents:
            continue
        content = path.read_bytes()
        found[path] = hashlib.sha256(content).hexdigest()
        for node in ast.walk(_parsed(content)):
            for parts in _imported(node, path.parent, root):
                waiting += [parts.with_suffix(".py"), parts / "__init__.py"]
    listed = sorted((path.relative_to(root).as_posix(), digest) for path, digest in found.items())
    return hashlib.sha256(repr(listed).encode()).hexdigest()


def _parsed(source):
    try:
        return ast.parse(source)
    except SyntaxError:
        # A file that no import has read.
        return ast.Module([], [])


def _imported(node, folder, root):
    """Where modules would lie, without their endings, that an import statement may load."""
    if isinstance(node, ast.Import):
        return [root.joinpath(*alias.name.split(".")) for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = root if node.level == 0 else [folder, *folder.parents][node.level - 1]
    base = base.joinpath(*(node.module or "").split("."))
    return [base, *(base / alias.name for alias in node.names)]
