"""What the package computes on fixed inputs: predictors, link, tracing, converter.

`test_golden.py` compares it with what an earlier version computed. Run as a program, it writes the
references anew, which only a change of what is computed justifies:

    python tests/golden/capture.py
"""

import argparse
import json
import pathlib
import tempfile

import keras
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).parent
PRESETS = ("universal", "small", "paths")
DATA = ROOT / "experiments" / "data" / "san_francisco_30kmh_5ms.h5"
PUBLISHED = ROOT / "tests" / "models" / "data" / "published_4x8x8.npz"
SNR_DB = 15.0
NUM_HISTORY, NUM_HORIZONS = 16, 5
NUM_MOVES = 8
# Of 32 antennas and 32 subcarriers every fourth is kept; the norms tell of the rest.
KEPT = np.s_[..., ::4, ::4]
DECODINGS = ("chain", "information", "sys")
FIGURES = (
    "bler",
    "goodput",
    "num_bit_errors",
    "num_block_errors",
    "nmse_median_db",
    "nmse_pooled_db",
    "offset_db",
    "recovered_goodput",
    "sum_rate",
)


def make_histories():
    """Noisy histories, complex64 `[2, 16, 32, 32]`."""
    from lwmt_sionna.data import (
        PlanarArray,
        add_noise,
        read_paths,
        subcarrier_frequencies,
        synthesize,
    )

    paths = read_paths(DATA).select([3, 40])
    frequencies = subcarrier_frequencies(32, 540e3)
    h = synthesize(paths, PlanarArray(1, 32), frequencies, snapshots=np.arange(NUM_HISTORY))
    return add_noise(h, SNR_DB, np.random.default_rng(7))


def thinned(prediction):
    """Part of a prediction, and its norms over antennas and subcarriers."""
    prediction = np.asarray(prediction)
    norms = np.linalg.norm(prediction, axis=(-2, -1))
    return {"part": prediction[KEPT], "norms": norms.astype(np.float32)}


def predict_preset(name, history):
    """Prediction of a shipped preset, complex64 `[batch, 5, 32, 32]`."""
    from lwmt_sionna.baselines import ModelPredictor

    return ModelPredictor(name, name)(history, NUM_HORIZONS)


def moves(name, history):
    """By how much of its norm each user's prediction moves with the last digit of the history."""
    from lwmt_sionna.baselines import ModelPredictor

    def norms(prediction):
        return np.linalg.norm(prediction.reshape(len(prediction), -1), axis=-1)

    predictor = ModelPredictor(name, name)
    expected = predictor(history, NUM_HORIZONS)
    rng = np.random.default_rng(1)
    found = []
    for _ in range(NUM_MOVES):
        digit = 1 + 1e-7 * rng.standard_normal(history.shape).astype(np.float32)
        found.append(norms(predictor(history * digit, NUM_HORIZONS) - expected))
    return (np.max(found, axis=0) / norms(expected)).astype(np.float32)


def predict_baselines(history):
    """Predictions of all training-free baselines as tuned, by name."""
    from lwmt_sionna.baselines import tuned_baselines

    predictors = tuned_baselines(SNR_DB)
    return {name: predictor(history, NUM_HORIZONS) for name, predictor in predictors.items()}


def decode():
    """Decoded bits of the downlink on random channels, uint8, packed eight by eight."""
    from lwmt_sionna.link import Downlink
    from lwmt_sionna.link.phy.line import compiled

    rng = np.random.default_rng(11)

    def normal(*shape):
        draws = rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
        return np.float32(np.sqrt(0.5)) * draws

    downlink = Downlink(mcs=13)
    h = normal(2, 4, 1, 32, 32)
    h_hat = (h + np.float32(0.3) * normal(*h.shape))[:, :, 0]
    bits = rng.integers(2, size=(2, 4, downlink.num_info_bits)).astype(np.float32)
    noise = normal(2, 4, 14, 32)
    bits, noise, slot = (keras.ops.convert_to_tensor(x) for x in (bits, noise, h.repeat(14, 2)))
    run = compiled(lambda: downlink(slot, h_hat, np.float32(0.35), bits=bits, noise=noise), "graph")
    return np.packbits(np.asarray(run()[1]).astype(np.uint8), axis=-1), int(bits.shape[-1])


def evaluate_point(decoding):
    """Figures of the rows of a record: one regime, few drops, a way to tell block errors."""
    from lwmt_sionna.link import LinkEvalConfig, evaluate_link

    config = LinkEvalConfig.from_toml(
        ROOT / "experiments" / "configs" / "link_ci.toml",
        overrides={
            "data": [str(DATA)],
            "policies": ["perfect", "hold", "local_ar"],
            "drops": {"num_drops": 8},
            "sweep": {"decoding": decoding, "batch_size": 8, "compile": "graph"},
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        record = evaluate_link(config, folder, progress=False)
    return {
        kind: [
            {name: row[name] for name in FIGURES if row.get(name) is not None}
            for row in record[kind]
        ]
        for kind in ("points", "goodput")
    }


def trace():
    """Channels traced along two tracks, complex64 `[2, 5, 8, 8]`, and the positions in metres."""
    from lwmt_sionna.data import PlanarArray, read_paths, subcarrier_frequencies, synthesize
    from lwmt_sionna.rt import GenerationConfig, TracingConfig, generate

    config = GenerationConfig(
        scene="simple_street_canyon",
        base_stations=((-20.0, 3.0, 15.0),),
        num_sequences=2,
        num_snapshots=5,
        max_distance=60.0,
        tracing=TracingConfig(samples_per_source=50_000),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "track.h5"
        generate(config, path, progress=False)
        paths = read_paths(path)
    h = synthesize(paths, PlanarArray(1, 8), subcarrier_frequencies(8, 2160e3))
    return h, paths.position


def convert_checkpoint():
    """Weights of a converted checkpoint, and what the model makes of a channel."""
    from lwmt_sionna import MaskedChannelModel
    from lwmt_sionna.convert import convert
    from lwmt_sionna.models.published import PublishedOptions

    with np.load(PUBLISHED, allow_pickle=False) as file:
        state = {n.removeprefix("state/"): file[n] for n in file.files if n.startswith("state/")}
        channel = file["channel"]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, preset = pathlib.Path(folder) / "checkpoint.npz", pathlib.Path(folder) / "out"
        np.savez(checkpoint, **state)
        convert(checkpoint, preset, PublishedOptions(num_heads=2, grid=(4, 8, 8)))
        model = MaskedChannelModel.from_preset(preset)
    weights = np.concatenate([np.ravel(np.asarray(w)) for w in model.get_weights()])
    output = model({"channel": channel.astype(model.backbone.compute_dtype)})
    return weights.astype(np.float32), np.asarray(output, np.float32)


def capture_predictions(preset=None):
    """All predictions, or those of a preset beside the ones that are there."""
    if preset is None:
        history, kept = make_histories(), {}
        found = {name: predict_preset(name, history) for name in PRESETS}
        found |= predict_baselines(history)
    else:
        with np.load(HERE / "predictions.npz", allow_pickle=False) as file:
            kept = dict(file)
        history, found = kept["history"], {preset: predict_preset(preset, kept["history"])}
    for name, prediction in found.items():
        for part, values in thinned(prediction).items():
            kept[f"{name}/{part}"] = values
        if name in PRESETS:
            kept[f"{name}/moves"] = moves(name, history)
    np.savez_compressed(HERE / "predictions.npz", **{"history": history, **kept})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", help="capture the predictions of this one alone")
    args = parser.parse_args()
    capture_predictions(args.preset)
    if args.preset is not None:
        return

    bits, num_bits = decode()
    rows = {decoding: evaluate_point(decoding) for decoding in DECODINGS}
    lines = json.dumps(rows).replace("}, {", "},\n{")
    (HERE / "link.json").write_text(lines + "\n")

    h, position = trace()
    weights, output = convert_checkpoint()
    np.savez_compressed(
        HERE / "others.npz",
        **{"link/bits": bits, "link/num_bits": num_bits},
        **{"track/h": h, "track/position": position},
        **{"converter/weights": weights, "converter/output": output},
    )


if __name__ == "__main__":
    main()
