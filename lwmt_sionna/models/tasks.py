"""The tasks that come with the package: line of sight, best beams, positions."""

from typing import Any

import keras
import numpy as np
from keras import ops

from lwmt_sionna.layers.places import PlacesNearby
from lwmt_sionna.layers.readout import AngleReadout, Readout, beams_to_patches
from lwmt_sionna.models.normalization import unit_power
from lwmt_sionna.models.task_model import Backbone, TaskModel
from lwmt_sionna.ops.angle_delay import block_form, strongest_path
from lwmt_sionna.typing import Array, Tensor

__all__ = [
    "BeamPredictor",
    "LineOfSightClassifier",
    "Localizer",
    "place_features",
    "position_error",
]

# Power gain of the middle of a cell in decibels: levels count from there.
_REFERENCE_DB = -100.0
_METRES_PER_SECOND = 299_792_458.0


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class LineOfSightClassifier(TaskModel):
    """Tells whether the base station is in sight: one logit per sequence.

    Trained by labels in {0, 1}, `[batch, 1]`: `PathSequences.line_of_sight[:, -1:]`.

    Args:
        backbone: See `TaskModel`.
        reference_db: See `TaskModel`.
        **kwargs: Further arguments of `TaskModel`.

    Returns:
        `[batch, 1]`, above 0 for the line of sight.
    """

    def __init__(
        self, backbone: Backbone, reference_db: float | None = _REFERENCE_DB, **kwargs: Any
    ) -> None:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        metrics = [
            keras.metrics.BinaryAccuracy("accuracy", threshold=0.0),
            keras.metrics.AUC(from_logits=True, name="auc"),
        ]
        head = Readout(1, dtype="float32")
        super().__init__(backbone, head, loss, metrics, reference_db=reference_db, **kwargs)
        self._settings = {}


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class BeamPredictor(TaskModel):
    """Tells the best beam of a codebook, in the last snapshot and in those to come.

    The codebook may belong to another carrier and array than the channels do. Trained by indices of
    beams, `[batch, 1 + num_horizons]`: `lwmt_sionna.data.best_beams`. With `num_angles`, untrained
    it is the strongest direction: of the history now, and of what is predicted in the snapshots
    ahead, or of the history where nothing is. Powers in all beams are features then.

    Args:
        backbone: See `TaskModel`.
        num_beams: Beams of the codebook.
        num_horizons: Snapshots ahead that are answered for: the next ones, or those that labels and
            predictions are of.
        num_angles: Patches in angle of a line of antennas half a wavelength apart, where the beams
            are those of such a line, too, in the same place: what is learned of one direction then
            holds for all of them (`AngleReadout`). None leaves open what beams have to do with
            angles.
        **kwargs: Further arguments of `TaskModel`.

    Call arguments:
        h: See `TaskModel`; a dictionary may have `"predicted"`, channels in the `num_horizons`
            snapshots ahead as a `ChannelPredictor` foresees them, in the form of `"h"`.

    Returns:
        Logits, `[batch, 1 + num_horizons, num_beams]`.

    Example:

    The best of 64 beams now and five snapshots ahead, for 8 users and a line of 32 antennas:

    >>> beams = BeamPredictor(LWMTBackbone(depth=2, patch=(4, 4)), 64, num_horizons=1, num_angles=8)
    >>> ahead = ChannelPredictor.from_preset("universal")(h, num_horizons=5)
    >>> beams({"h": h, "predicted": ahead[:, -1:]}).shape
    TensorShape([8, 2, 64])
    """

    _INPUTS = (*TaskModel._INPUTS, "predicted")

    def __init__(
        self,
        backbone: Backbone,
        num_beams: int = 64,
        num_horizons: int = 5,
        num_angles: int | None = None,
        **kwargs: Any,
    ) -> None:
        if num_beams < 2 or num_horizons < 0:
            raise ValueError(
                "`num_beams` must be 2 or more, `num_horizons` 0 or more. Received: "
                f"num_beams={num_beams}, num_horizons={num_horizons}"
            )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = [
            keras.metrics.SparseCategoricalAccuracy("accuracy"),
            keras.metrics.SparseTopKCategoricalAccuracy(min(3, num_beams), name="top_3"),
        ]
        count: Any = num_horizons + 1
        if num_angles is None:
            head = Readout(num_beams, count, dtype="float32")
        else:
            head = AngleReadout(num_angles, num_beams, count, with_prior=True, dtype="float32")
        super().__init__(backbone, head, loss, metrics, **kwargs)
        self.num_beams, self.num_horizons, self.num_angles = num_beams, num_horizons, num_angles
        self._settings = {
            "num_beams": num_beams,
            "num_horizons": num_horizons,
            "num_angles": num_angles,
        }

    @property
    def _width(self):
        return super()._width + (self.head.answers.units if self.num_angles else 0)

    def _read(self, inputs, array, subcarriers=None):
        form, x, given, options = super()._read(inputs, array, subcarriers)
        if "predicted" in given:
            _, ahead, _, _ = super()._read(given["predicted"], array, subcarriers)
            expected = (x.shape[0], self.num_horizons, *x.shape[2:])
            if self.num_angles is None or tuple(ahead.shape) != expected:
                raise ValueError(
                    f"`predicted` needs `num_angles`, and shape {expected} as links, snapshots, "
                    f"antennas, subcarriers and parts. Received: num_angles={self.num_angles}, "
                    f"shape={tuple(ahead.shape)}"
                )
            options = {**options, "predicted": ahead}
        return form, x, given, options

    def features(self, x: Tensor, predicted: Tensor | None = None, **options: Any) -> Tensor:
        """See `TaskModel.features`; with `num_angles`, the powers of all beams come last.

        Args:
            x: See `TaskModel.features`.
            predicted: Channels in the snapshots ahead, in the form of `x`.
            **options: See `TaskModel.features`.
        """
        features = super().features(x, **options)
        # Of other patches, the head says so.
        if self.num_angles is None or self.num_angles != features.shape[1]:
            return features
        power = _power_in_beams(x, self.num_beams)
        now = ops.mean(power, axis=1, keepdims=True)
        if predicted is None:
            power = ops.repeat(now, self.num_horizons + 1, axis=1)
        else:
            power = ops.concatenate([now, _power_in_beams(predicted, self.num_beams)], axis=1)
        prior = beams_to_patches(power, self.num_angles)
        prior = ops.repeat(prior, features.shape[2], axis=2)
        return ops.concatenate([features, prior], axis=-1)


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class Localizer(TaskModel):
    """Tells where users of a base station are, from few whose place is known.

    The strongest path gives range and direction; a classifier that was taught in other cities tells
    whether it is the line of sight; users nearby tell the rest (`PlacesNearby`). Nothing is
    trained: `fit_head` takes known users at once. One localizer serves one base station with a line
    of antennas half a wavelength apart.

    Positions are `[batch, 2]` in metres: ahead of the line of antennas and along it, from the base
    station. For one that looks along x, as traced ones do by default, these are
    `(paths.position[:, -1] - paths.bs_position[paths.bs_index])[:, :2]`. Delays must be those
    of the paths, from the base station on, below the symbol's length.

    Args:
        sight: `LineOfSightClassifier`, such as `LineOfSightClassifier.from_preset("sight")`; or its
            serialised form.
        **kwargs: Further arguments of `TaskModel`.

    Call arguments:
        h: See `TaskModel`; a dictionary with `"subcarrier_spacing"`, without which no range is
            known.

    Returns:
        Positions in metres, `[batch, 2]`.
    """

    def __init__(self, sight: LineOfSightClassifier | dict[str, Any], **kwargs: Any) -> None:
        if isinstance(sight, dict):
            sight = keras.saving.deserialize_keras_object(sight)
        if not isinstance(sight, LineOfSightClassifier):
            raise ValueError(f"`sight` must be a LineOfSightClassifier. Received: sight={sight!r}")
        # Its head reads what its transform and reference give.
        seen = sight.get_config()
        names = ("reference_db", "array_shape", "num_delay", "first_delay")
        kwargs = {name: seen[name] for name in names} | kwargs
        shape = kwargs["array_shape"]
        if shape is not None and (shape[0], shape[2]) != (1, 1):
            raise ValueError(
                "A localizer needs a line of antennas, one row of one polarisation. Received: "
                f"array_shape={tuple(shape)}"
            )
        head = PlacesNearby(dtype="float32", name="places")
        super().__init__(sight.masked, head, position_error, **kwargs)
        self.sight = sight
        self._settings = {}

    def build(self, h_shape: Any = None) -> None:
        super().build(h_shape)
        if not self.sight.built:
            self.sight.build()

    def _solve(self, x, **options):
        # Who is known is no part of a compiled program: it may change.
        return self.head(self._run(self.features, x, **options))

    def features(self, x: Tensor, **options: Any) -> Tensor:
        """Range in metres and sine of the strongest path, and the probability of sight.

        Args:
            x: See `TaskModel.features`.
            **options: See `TaskModel.features`; `bandwidth` is needed.

        Returns:
            float32 `[batch, 3]`.
        """
        bandwidth = options.get("bandwidth")
        if bandwidth is None:
            raise ValueError(
                "A localizer needs `subcarrier_spacing`, in hertz: call it with a dictionary. "
                f"Received: {sorted(options)}"
            )
        if self.backbone.position_units is None:
            options = {"training": options.get("training")}
        seen = self.sight.head(super().features(x, **options))
        return place_features(strongest_path(unit_power(x)[0]), bandwidth, seen)

    def fit_head(
        self, features: Array, labels: Array, optimizer: Any = None, **options: Any
    ) -> Any:
        """Takes users whose place is known, in place of those before.

        Args:
            features: What `embed` returns, `[num_labels, 3]`.
            labels: Their positions, `[num_labels, 2]`.
            optimizer: Must be left out: nothing is trained in steps.
            **options: Must be left out.
        """
        if optimizer is not None or options:
            raise ValueError(
                f"Nothing is trained in steps. Received: {optimizer=}, options={sorted(options)}"
            )
        self.build()
        self.head.keep(features, labels)
        # What Keras compiled holds those that were known before.
        self.predict_function = self.test_function = None

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["backbone"]
        return {**config, "sight": keras.saving.serialize_keras_object(self.sight)}


def place_features(strongest: Tensor, bandwidth: Tensor, sight: Tensor) -> Tensor:
    """Features of a `Localizer`.

    Args:
        strongest: See `strongest_path`, `[batch, 2]`.
        bandwidth: In hertz, a number or `[batch]`.
        sight: Logits of the line of sight, `[batch, 1]`.

    Returns:
        float32 `[batch, 3]`.
    """
    distance = strongest[:, 0] * (_METRES_PER_SECOND / ops.cast(bandwidth, "float32"))
    return ops.stack([distance, strongest[:, 1], ops.sigmoid(sight[:, 0])], axis=-1)


def _power_in_beams(x, num_beams):
    """Power of a line of antennas in the beams of `dft_codebook`, `[batch, time, num_beams]`."""
    turns = np.outer(np.arange(x.shape[2]), np.arange(num_beams) / num_beams - 0.5)
    matrix = ops.convert_to_tensor(block_form(np.exp(-2j * np.pi * turns)), dtype="float32")
    x = unit_power(x)[0]
    rows = ops.reshape(ops.swapaxes(x, 2, 3), (-1, x.shape[1], x.shape[3], 2 * x.shape[2]))
    seen = ops.reshape(ops.matmul(rows, matrix), (-1, *rows.shape[1:3], num_beams, 2))
    return ops.sum(ops.square(seen), axis=(2, 4))


@keras.saving.register_keras_serializable(package="lwmt_sionna")
def position_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Distance in metres between true and estimated positions `[batch, num_dims]`: `[batch]`."""
    squares = ops.square(y_pred - ops.cast(y_true, y_pred.dtype))
    # A micrometre at the truth, where a square root has no slope.
    return ops.sqrt(ops.sum(squares, axis=-1) + 1e-12)
