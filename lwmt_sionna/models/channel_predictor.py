"""Channel prediction: noisy history in, future out."""

import dataclasses
from typing import Any

import keras
from keras import ops

from lwmt_sionna.layers.angle_delay import AngleDelayTransform
from lwmt_sionna.models.backbone import LWMTBackbone, get_backbone
from lwmt_sionna.models.channel_model import ChannelModel, as_links, bandwidth_of, pool_embeddings
from lwmt_sionna.models.normalization import Frame
from lwmt_sionna.models.physics import Forecasts, Pairs, Physics
from lwmt_sionna.models.refiner import Refiner
from lwmt_sionna.ops.alignment import fill_reports, hold_reports, reports_arrived, restore
from lwmt_sionna.ops.compiled import piece
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["ChannelPredictor"]


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class ChannelPredictor(ChannelModel):
    r"""Predicts the channels of the next snapshots from a noisy history.

    Physics comes first, learning on top. In the angle-delay domain every bin is denoised with its
    neighbours and continued by several linear predictions (`lwmt_sionna.ops.linear_prediction`):
    long memories for what has been there all the time, short ones for what has just changed; paths
    that can be resolved are continued by their own motion first (`num_paths`). The
    last snapshots and these forecasts become the tokens of an `LWMTBackbone`, which decides for
    every bin and horizon how much of each forecast to keep, and adds what they miss:

    $$\hat X = X_E + \sum_e g_e X_e + s\, r$$

    with forecasts $X_e$, gates $g_e$ and residual $r$ from the network, and $s$ the local
    amplitude. Untrained, gates and residual are zero and the last forecast $X_E$ remains. With a
    `backtest` that is a mix of all experts, patch by patch, which their errors in snapshots held
    out of the history tell, and the others are by what the experts differ from it: untrained, it
    is a predictor that holds wherever one of the experts does.
    Lost reports are filled before all else; `aligned`, it also takes out of the history one phase
    and one delay of each snapshot, which are no motion either.
    Normalisation and transforms are inside: inputs and outputs are channels as they are, and a
    complex factor of the history is one of the prediction.

    Args:
        backbone: `LWMTBackbone`, or its serialised form.
        num_horizons: Number of snapshots to predict.
        experts: Pairs of window and order, one per linear prediction: coefficients are estimated
            from the last `window` snapshots (all of them, if there are fewer). The last expert is
            the starting point, if there is no backtest.
        context: Number of the most recent snapshots that the network sees; linear prediction uses
            the whole history.
        denoise_radius: See `lwmt_sionna.ops.linear_prediction.denoise`.
        num_paths: Largest number of moving paths that the history is resolved into first (see
            `lwmt_sionna.ops.path_fit`); linear prediction then works on what they leave, and their
            continuation is the starting point, if there is no backtest. 0 for linear prediction
            alone.
        whole_experts: Pairs of window and order of linear predictions of the whole history, for
            where the paths are wrong; only with `num_paths`.
        least_squares: The same by least squares: see `Physics`.
        backtest: Number of snapshots that are held out to tell how good which expert is; 0 for no
            backtest. See `Physics`.
        array_shape: Number of rows, columns and polarisations of the array; a linear array if left
            out.
        num_delay: Delay bins to work on, for wide bands whose paths lie in few of them; what lies
            in the others is predicted as zero. Defaults to all.
        first_delay: First of those bins, below 0 for bins before delay 0.
        local_motion: Whether the network sees every patch turned back by its phase and Doppler
            shift: see `MaskedChannelModel`.
        aligned: Whether phases and delays of snapshots are found and undone, too, before anything
            is forecast: see `lwmt_sionna.ops.alignment`.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        history: Noisy channels of the past, the most recent last, in one of three forms:
            complex `[batch, time, num_ant, num_subcarriers]`; real `[batch, time, num_ant,
            num_subcarriers, 2]`; or Sionna's complex `[batch, num_rx, num_rx_ant, num_tx,
            num_tx_ant, time, num_subcarriers]`. Links are predicted one by one. A link whose
            history holds NaN or infinity gets NaN, and the others are not touched; a history of
            zeros gets zeros.
        num_horizons: Number of snapshots to predict. Defaults to all that the model is made for.
        array: Which end of Sionna's links has the array: `"tx"` (downlink) or `"rx"` (uplink).
        subcarriers: Indices of the effective subcarriers, such as Sionna's
            `ResourceGrid.effective_subcarrier_ind`, if the grid has null ones. The history may hold
            all subcarriers or the effective ones. Nulls inside of the band are interpolated;
            those outside get the prediction of the nearest effective subcarrier.
        sampling_period: Time between snapshots in seconds; for physical positions of the backbone,
            whose steps the snapshots and delay bins are without it.
        subcarrier_spacing: In hertz; for physical positions of the backbone.
        arrived: Which reports are known to have arrived, bool `[batch, time]`: the others are
            filled, whatever stands there. Those that are not the one before, number by number, and
            those of zeros, if it is left out.
        training: Whether dropout is active.

    Returns:
        Predicted channels in the form of `history`, with the horizons in place of `time`. They have
        the precision of the input; inside, all is float32.

    Raises:
        ValueError: If the history has none of the forms or is too short, its antennas are not those
            of the array, `arrived` does not fit it, or more horizons are asked for than the model
            is made for.

    Example:

    >>> predictor = ChannelPredictor.from_preset("universal")
    >>> h = keras.random.normal((8, 16, 32, 32, 2))
    >>> predictor(h).shape
    TensorShape([8, 5, 32, 32, 2])
    """

    def __init__(  # noqa: PLR0913 - the configuration of a model
        self,
        backbone: LWMTBackbone | dict[str, Any],
        num_horizons: int = 5,
        experts: Pairs = Physics.experts,
        context: int = 4,
        denoise_radius: int = 2,
        num_paths: int = 0,
        array_shape: tuple[int, int, int] | None = None,
        num_delay: int | None = None,
        first_delay: int = 0,
        local_motion: bool = False,
        whole_experts: Pairs = (),
        backtest: int = 0,
        aligned: bool = False,
        least_squares: Pairs = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aligned = bool(aligned)
        self.transform = AngleDelayTransform(
            array_shape, num_delay, first_delay, name="transform", dtype="float32"
        )
        self.physics = Physics(
            num_horizons,
            experts,
            context,
            denoise_radius,
            num_paths,
            whole_experts,
            least_squares,
            backtest,
            self.transform.array_shape,
            self.transform.first_delay,
        )
        self.refiner = Refiner(
            get_backbone(backbone),
            self.physics,
            local_motion,
            name="refiner",
            dtype=self.dtype_policy,
            autocast=False,
        )

    def build(self, history_shape: Shape) -> None:
        self.refiner.build()
        self.built = True

    def call(
        self,
        history: Tensor,
        num_horizons: int | None = None,
        array: str = "tx",
        subcarriers: tuple[int, ...] | None = None,
        sampling_period: Tensor | None = None,
        subcarrier_spacing: Tensor | None = None,
        arrived: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        num_horizons = self._asked(num_horizons)
        form, x = self._links(history, array, subcarriers)
        if arrived is not None:
            # Of a user's links, all or none arrive.
            arrived = _told(arrived, (form.shape[0], form.num_snapshots))
            arrived = ops.repeat(arrived, form.links_per_user, axis=0)
        future = self._run(
            self._predict,
            x,
            sampling_period=sampling_period,
            bandwidth=bandwidth_of(x, subcarrier_spacing),
            arrived=arrived,
            training=training,
        )
        return form.restore(future[:, :num_horizons])

    def frame(self, x: Tensor, arrived: Tensor | None = None) -> tuple[Frame, Tensor, Tensor]:
        """`Frame` of a history `[batch, time, num_ant, num_subcarriers, 2]`; the history in it,
        lost reports filled, without nuisances where the predictor is `aligned`; then which reports
        arrived, as told or found."""
        if arrived is None:
            arrived = reports_arrived(x)
        else:
            x = hold_reports(x, arrived)
        repair = restore if self.aligned else fill_reports
        x = repair(x, arrived, self.transform.array_shape)
        return *Frame.of(x, self.transform), arrived

    def _predict(self, x, arrived=None, **options):
        frame, past, arrived = self.frame(x, arrived)
        features = self.physics(past, x.shape[3], arrived)
        return frame.back(_refined(self.refiner, features, options), x.shape[3])

    def embed(
        self,
        history: Tensor,
        per: str = "token",
        array: str = "tx",
        subcarriers: tuple[int, ...] | None = None,
        sampling_period: Tensor | None = None,
        subcarrier_spacing: Tensor | None = None,
    ) -> Tensor:
        """Embeddings of the last `context` snapshots and of the horizons.

        Args:
            history: See the call arguments.
            per: `"token"`, `"snapshot"` or `"sequence"`.
            array: See the call arguments.
            subcarriers: See the call arguments.
            sampling_period: See the call arguments.
            subcarrier_spacing: See the call arguments.

        Returns:
            `[batch, num_tokens, width]`, `[batch, context + num_horizons, width]` or `[batch,
            width]`; for Sionna's form with the axes of the links in place of `batch`: see
            `ChannelEncoder`.
        """
        form, x = self._links(history, array, subcarriers)
        if not self.built:
            self.build(x.shape)
        embeddings = self._run(
            self._embed,
            x,
            sampling_period=sampling_period,
            bandwidth=bandwidth_of(x, subcarrier_spacing),
        )
        num_snapshots = self.context + self.num_horizons
        class_token = self.backbone.neighborhood.class_token
        return form.split_links(pool_embeddings(embeddings, num_snapshots, per, class_token))

    def _embed(self, x, **options):
        _, past, arrived = self.frame(x)
        return self.refiner.embed(self.physics(past, x.shape[3], arrived), **options)

    def features(
        self, x: Tensor, num_subcarriers: int | None = None, arrived: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What `Physics` makes of a history in its `Frame`, as a dictionary."""
        return self.physics(x, num_subcarriers, arrived)._asdict()

    def refine(self, features: dict[str, Tensor], training: bool | None = None) -> Tensor:
        """What the network adds to the starting point: see `Refiner`."""
        return self.refiner(Forecasts(**features), training=training)

    def _links(self, history, array, subcarriers):
        return as_links(
            history,
            array=array,
            subcarriers=subcarriers,
            array_shape=self.transform.array_shape,
            shortest=self.physics.shortest,
        )

    def _asked(self, num_horizons):
        num_horizons = self.num_horizons if num_horizons is None else num_horizons
        if num_horizons not in range(1, self.num_horizons + 1):
            raise ValueError(
                f"The predictor is made for 1 to {self.num_horizons} horizons. Received: "
                f"num_horizons={num_horizons!r}"
            )
        return int(num_horizons)

    # Weights are saved by these names and in this order, those of presets of all versions.
    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The parts of the model."""
        refiner = self.refiner
        features = (refiner.observed_features, refiner.forecast_features, refiner.level_features)
        return [refiner.backbone, self.transform, *features, refiner.head]

    backbone = property(lambda self: self.refiner.backbone)
    forecast_features = property(lambda self: self.refiner.forecast_features)
    head = property(lambda self: self.refiner.head)
    level_features = property(lambda self: self.refiner.level_features)
    observed_features = property(lambda self: self.refiner.observed_features)

    @property
    def num_horizons(self) -> int:
        """Number of snapshots to predict."""
        return self.physics.num_horizons

    @property
    def context(self) -> int:
        """Number of the most recent snapshots that the network sees."""
        return self.physics.context

    def compute_output_shape(self, history_shape: Shape) -> Shape:
        shape = list(history_shape)
        shape[5 if len(shape) == 7 else 1] = self.num_horizons
        return tuple(shape)

    def compute_output_spec(
        self, history: Tensor, num_horizons: int | None = None, **kwargs: Any
    ) -> keras.KerasTensor:
        shape = list(self.compute_output_shape(history.shape))
        shape[5 if len(shape) == 7 else 1] = self._asked(num_horizons)
        return keras.KerasTensor(shape, dtype=history.dtype)

    def get_config(self) -> dict[str, Any]:
        transform = self.transform.get_config()
        names = ("array_shape", "num_delay", "first_delay")
        physics = {
            name: [list(pair) for pair in value] if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self.physics).items()
            if name not in names
        }
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "local_motion": self.refiner.local_motion,
            "aligned": self.aligned,
            **physics,
            **{name: transform[name] for name in names},
        }


def _told(arrived, shape):
    """What arrived as bool, of the shape that the history's batch and snapshots have."""
    arrived = ops.cast(arrived, "bool")
    fits = len(arrived.shape) == 2 and all(
        None in sizes or sizes[0] == sizes[1] for sizes in zip(arrived.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`arrived` must be bool [batch, time] = {shape}. Received: "
            f"arrived.shape={tuple(arrived.shape)}"
        )
    return arrived


@piece
def _refined(refiner, features, options):
    return features.start + refiner(features, **options)
