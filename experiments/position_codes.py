"""Which position code, and which way of hiding tokens, helps masked channel modelling.

Equal models are trained on the same views of the same channels; only the position code and what a
hidden token becomes differ. Judged is the reconstruction of hidden tokens on held-out tracks: as
trained, with every other snapshot only (another sampling period), and on another grid of antennas
and subcarriers, where the code allows it. Finished trainings are kept: a run that was killed,
or is asked for more, goes on.

Example:
    python experiments/position_codes.py --data data/etoile.h5 data/munich.h5
"""

import functools
import itertools
import pathlib
import time

from lwmt_sionna.runs import command_line

POSITIONS = ("factored", "rotary_grid", "rotary_grid_physical", "learned", "rotary")
MASKINGS = ("embedding", "zero")
_PATCH = (2, 2)


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument("--data", nargs="+", metavar="FILE", required=True, help="HDF5 files")
    parser.add_argument("--positions", nargs="+", choices=POSITIONS, default=list(POSITIONS))
    parser.add_argument("--maskings", nargs="+", choices=MASKINGS, default=list(MASKINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=500, help="training steps [500]")
    command_line.add_options(parser, "workdir")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/position_codes.json")
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    for path in args.data:
        if not pathlib.Path(path).is_file():
            raise command_line.UsageError(f"No such file: --data {path}")

    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.digests import code_digest
    from lwmt_sionna.runs.parallel import progress_bar
    from lwmt_sionna.runs.store import RunFolder

    settings = {"steps": args.steps, "batch": 16, "num_snapshots": 8, "size": 16, "width": 32}
    inputs = {pathlib.Path(path).stem: path for path in args.data}
    common = settings | {
        "data": [records.sha256(path) for path in args.data],
        "code": code_digest("lwmt_sionna.models", "lwmt_sionna.masking", "lwmt_sionna.data"),
    }
    # They are made when the first training is missing.
    load = functools.cache(lambda: _load(args.data, settings))
    views = functools.cache(lambda: _views(load(), settings))
    cases = list(itertools.product(args.seeds, args.positions, args.maskings))
    points = []
    with RunFolder(command_line.workdir(args)) as folder:
        for seed, position, masking in progress_bar(cases, unit="training"):
            case = {"position": position, "masking": masking, "seed": seed}
            scores = folder.store.compute(
                common | case,
                lambda case=case: _train(load(), views(), settings, **case),
            )
            points.append(case | scores)
    records.write_record(
        args.out,
        name="position_codes",
        config=settings,
        points=points,
        seeds=args.seeds,
        inputs=inputs,
        started=started,
    )
    _print_table(points)


def _load(paths, settings):
    """Training and test channels, and test channels of another grid."""
    import numpy as np

    from lwmt_sionna.data import (
        PlanarArray,
        read_paths,
        split_by_trajectory,
        subcarrier_frequencies,
        synthesize,
        vanishing_mask,
    )

    grids = {"train": [], "test": [], "strided": [], "other_grid": []}
    count, size = settings["num_snapshots"], settings["size"]
    band = size * 1.08e6
    for path in paths:
        sequences = read_paths(path)
        sequences = sequences.select(~vanishing_mask(sequences))
        parts = split_by_trajectory(sequences, 0.1, seed=1)
        for name, part, num, step in (
            ("train", parts[0], size, 1),
            ("test", parts[1], size, 1),
            ("strided", parts[1], size, 2),
            ("other_grid", parts[1], size + 8, 1),
        ):
            h = synthesize(
                part,
                PlanarArray(1, num),
                subcarrier_frequencies(num, band / num),
                snapshots=step * np.arange(count),
            )
            rms = np.sqrt(np.mean(np.abs(h) ** 2, axis=(1, 2, 3), keepdims=True))
            h = np.ascontiguousarray((h / rms).astype(np.complex64))
            grids[name].append(h.view(np.float32).reshape(*h.shape, 2))
    periods = {sequences.sampling_period}
    return {n: np.concatenate(h) for n, h in grids.items()} | {
        "period": periods.pop(),
        "bandwidth": band,
    }


def _views(data, settings):
    """What the models get to see, the same for all: batches for training and for every test."""
    import numpy as np

    from lwmt_sionna.masking import Curriculum
    from lwmt_sionna.runs.parallel import progress_bar

    curriculum = Curriculum(impairments={"noise": {"history_snr_db": [5.0, 25.0]}})
    size, steps = settings["batch"], settings["steps"]

    def view(h, draw, progress):
        seen = curriculum.view(h, draw, progress, _PATCH)
        return {name: np.asarray(seen[name]) for name in ("observed", "hidden", "target")}

    rng = np.random.default_rng(1)
    views = {"train": []}
    for step in progress_bar(range(steps), unit="view", desc="views"):
        rows = rng.integers(len(data["train"]), size=size)
        views["train"].append(view(data["train"][rows], step, step / steps))
    for name in ("test", "strided", "other_grid"):
        starts = range(0, len(data[name]) - size + 1, size)
        views[name] = [view(data[name][b : b + size], steps + b, 1.0) for b in starts]
    return views


def _train(data, views, settings, position, masking, seed):
    """Trains one model and returns its reconstruction errors in decibels."""
    import keras
    import numpy as np

    from lwmt_sionna import LWMTBackbone, MaskedChannelModel, Neighborhood

    keras.utils.set_random_seed(seed)
    physical = position == "rotary_grid_physical"
    size, patch = settings["size"], _PATCH
    places = (settings["num_snapshots"], size // patch[0], size // patch[1])
    backbone = LWMTBackbone(
        width=settings["width"],
        depth=3,
        num_heads=4,
        patch=patch,
        neighborhood=Neighborhood(window=2, corridor=(1, 1), time_offsets=(-3, -2, -1, 1, 2, 3)),
        position=position.removesuffix("_physical"),
        position_grid=places if position == "learned" else None,
        position_units=(data["period"], 2 / size, 1 / data["bandwidth"]) if physical else None,
        masking=masking,
    )
    model = MaskedChannelModel(backbone, local_scale=True, local_motion=True)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, settings["steps"], warmup_target=2e-3, warmup_steps=settings["steps"] // 20
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-2, global_clipnorm=1.0),
        jit_compile=True,
    )

    def inputs_of(seen, period=1):
        inputs = {"channel": seen["observed"], "mask": seen["hidden"]}
        if physical:
            count = len(seen["observed"])
            inputs["sampling_period"] = np.full(count, period * data["period"], np.float32)
            inputs["bandwidth"] = np.full(count, data["bandwidth"], np.float32)
        return inputs

    for seen in views["train"]:
        model.train_on_batch(inputs_of(seen), seen["target"])
    scores = {"num_parameters": model.count_params()}
    for name, period in (("test", 1), ("strided", 2), ("other_grid", 1)):
        if name == "other_grid" and position == "learned":
            continue
        model.make_predict_function(force=True)  # one program per grid, of known shape
        errors = [
            _error_db(np.asarray(model.predict_on_batch(inputs_of(seen, period))), seen, _PATCH)
            for seen in views[name]
        ]
        scores[f"{name}_db"] = float(np.mean(np.concatenate(errors)))
    return scores


def _error_db(found, seen, patch):
    """Error on the hidden tokens over their power, decibels per sequence."""
    import numpy as np

    from lwmt_sionna.ops.patches import patchify

    hidden = np.asarray(seen["hidden"])[..., None]
    target = np.asarray(patchify(seen["target"], patch)) * hidden
    error = np.asarray(patchify(found, patch)) * hidden - target
    rows = hidden.any(axis=(1, 2))
    ratio = np.sum(error**2, axis=(1, 2))[rows] / np.sum(target**2, axis=(1, 2))[rows]
    return 10 * np.log10(ratio)


def _print_table(points):
    import numpy as np

    print(f"{'position':22s}{'hidden token':14s}{'as trained':>12s}{'strided':>12s}{'grid':>12s}")
    for position, masking in dict.fromkeys((p["position"], p["masking"]) for p in points):
        mine = [p for p in points if (p["position"], p["masking"]) == (position, masking)]
        cells = []
        for name in ("test_db", "strided_db", "other_grid_db"):
            values = [p[name] for p in mine if name in p]
            cells.append(f"{np.mean(values):.2f} dB" if values else "-")
        print(f"{position:22s}{masking:14s}" + "".join(f"{cell:>12s}" for cell in cells))


if __name__ == "__main__":
    command_line.run(main)
