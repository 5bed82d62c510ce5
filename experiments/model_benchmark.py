"""What the model costs: latency per user, memory of training at full size, and energy routing.

- latency: one prediction of 1 to 64 users with a preset, on all cores;
- eager: processor time per user of a plain call of the model, and of a compiled one;
- training: one step of the published size (20 x 32 x 32 tokens, depth 12, width 32), with the peak
  memory of the whole process, compilation included;
- routing: time of the encoder and error of a preset on stored sequences when energy routing lets
  it see the strongest patches only, each timed in turns with the encoder that sees all.

Every case runs in a process of its own, in turns where times are compared.

Example:
    python experiments/model_benchmark.py --out experiments/results/model_benchmark.json
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

TASKS = ("latency", "eager", "training", "routing")


def main(argv=None):
    from lwmt_sionna.runs import command_line

    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    command_line.add_options(parser, "preset", "history_snr", history_snr=[15.0])
    command_line.add_options(parser, "limit", "workdir", limit=384)
    parser.add_argument("--users", nargs="+", type=int, default=[1, 4, 16, 64], help="batch sizes")
    parser.add_argument("--depth", type=int, default=12, help="blocks of the trained model [12]")
    parser.add_argument("--batch", type=int, default=4, help="sequences per training step [4]")
    parser.add_argument(
        "--block-loops", nargs="+", default=["unroll", "rematerialize"], help="see LWMTBackbone"
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        default=pathlib.Path("experiments/data/san_francisco_30kmh_5ms.h5"),
        help="sequences that are predicted",
    )
    parser.add_argument("--kept", nargs="+", type=int, default=[6, 5, 4], help="patches per axis")
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each [7]")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/model_benchmark.json")
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    if set(args.tasks) != {"training"} and not args.data.is_file():
        raise command_line.UsageError(f"No such file: --data {args.data}")

    from lwmt_sionna.models.presets import DEFAULT_PRESET, preset_folder
    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.digests import code_digest
    from lwmt_sionna.runs.parallel import progress_bar
    from lwmt_sionna.runs.store import RunFolder

    if args.preset is None:
        args.preset = [DEFAULT_PRESET]
    inputs = {f"preset_{pathlib.Path(name).name}": preset_folder(name) for name in args.preset}
    inputs[args.data.stem] = args.data
    # A time is kept as long as code, machine and what is read are the same.
    here = {
        "code": code_digest("lwmt_sionna.models.presets", "lwmt_sionna.data.synthesis"),
        "machine": records.machine_info(),
        "versions": records.package_versions(),
        "inputs": {name: records.sha256(path) for name, path in inputs.items()},
    }
    points = []
    with RunFolder(command_line.workdir(args)) as folder:
        for case in progress_bar(make_cases(args), unit="case"):
            points += folder.store.compute(here | case, lambda case=case: run_worker(case))
    left_out = ("debug", "quiet", "out", "workdir")
    records.write_record(
        args.out,
        name="model_benchmark",
        config={name: value for name, value in vars(args).items() if name not in left_out},
        points=points,
        seeds=[0],
        inputs=inputs,
        started=started,
    )
    print_table(points)
    print(f"record: {args.out}")


def make_cases(args):
    """What is measured, a dictionary for each process."""
    cases = []
    seen = {"data": str(args.data), "history_snr_db": args.history_snr[0]}
    if "latency" in args.tasks:
        cases += [
            {"task": "latency", "preset": preset, "users": users, "rounds": args.rounds} | seen
            for preset in args.preset
            for users in args.users
        ]
    if "eager" in args.tasks:
        cases += [
            {"task": "eager", "preset": preset, "users": 4, "rounds": args.rounds} | seen
            for preset in args.preset
        ]
    if "training" in args.tasks:
        cases += [
            {
                "task": "training",
                "block_loop": loop,
                "depth": args.depth,
                "batch": args.batch,
                "rounds": max(2, args.rounds // 2),
            }
            for loop in args.block_loops
        ]
    if "routing" in args.tasks:
        cases += [
            {
                "task": "routing",
                "preset": preset,
                "data": str(args.data),
                "limit": args.limit,
                "kept": args.kept,
                "history_snr_db": snr_db,
                "rounds": args.rounds,
            }
            for preset in args.preset
            for snr_db in args.history_snr
        ]
    return cases


def run_worker(case):
    """Points of one case, from a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(case)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{case['task']} failed with exit status {done.returncode}: {case}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(case):
    """Histories of stored users: what a prediction costs depends on the paths that are found."""
    import numpy as np

    from lwmt_sionna.data import (
        PlanarArray,
        add_noise,
        read_paths,
        subcarrier_frequencies,
        synthesize,
    )

    paths = read_paths(case["data"])
    paths = paths.select(np.arange(case["users"]) % len(paths.speed))
    frequencies = subcarrier_frequencies(32, 540e3)
    h = synthesize(paths, PlanarArray(1, 32), frequencies, snapshots=np.arange(16))
    return add_noise(h, case["history_snr_db"], np.random.default_rng(0))


def latency(case):
    """Wall time of one prediction, histories to futures as NumPy arrays."""
    from lwmt_sionna.baselines import ModelPredictor

    h = measured(case)
    predictor = ModelPredictor(case["preset"], batch_size=64)
    idle = memory_mb("VmRSS")
    first_s, times = time_calls(lambda: predictor(h, 5), case["rounds"])
    wall = statistics.median(times)
    return [
        {
            "task": "latency",
            "preset": case["preset"],
            "users": case["users"],
            "wall_ms": 1e3 * wall,
            "wall_min_ms": 1e3 * min(times),
            "wall_ms_per_user": 1e3 * wall / case["users"],
            "first_call_s": first_s,
            "memory_mb": memory_mb("VmHWM") - idle,
        }
    ]


def eager(case):
    """Processor time per user of `predictor(history)`, and of `predict_on_batch`, in turns."""
    import keras
    import numpy as np

    from lwmt_sionna.models import ChannelPredictor

    h = measured(case)
    history = np.stack([h.real, h.imag], axis=-1)
    predictor = ChannelPredictor.from_preset(case["preset"])
    predictor.compile(jit_compile=keras.backend.backend() != "torch")
    calls = {"eager": predictor, "compiled": predictor.predict_on_batch}
    seconds = {name: [] for name in calls}
    for _ in range(1 + case["rounds"]):
        for name, call in calls.items():
            begin = time.process_time()
            keras.ops.convert_to_numpy(call(history))
            seconds[name].append(time.process_time() - begin)
    point = {name: case[name] for name in ("task", "preset", "users")}
    point["backend"] = keras.backend.backend()
    for name, times in seconds.items():
        point[f"{name}_first_call_s"] = times[0]
        point[f"{name}_ms_per_user"] = 1e3 * statistics.median(times[1:]) / case["users"]
    return [point]


def training(case):
    """One step of masked channel modelling at the published size."""
    import keras
    import numpy as np

    from lwmt_sionna.models import LWMTBackbone, MaskedChannelModel

    rng = np.random.default_rng(0)
    batch = case["batch"]
    backbone = LWMTBackbone(
        width=32, depth=case["depth"], num_heads=8, block_loop=case["block_loop"]
    )
    model = MaskedChannelModel(backbone)
    model.compile(optimizer=keras.optimizers.AdamW(1e-3, clipnorm=1.0), jit_compile=True)
    channel = rng.standard_normal((batch, 20, 32, 32, 2), dtype=np.float32)
    inputs = {"channel": channel, "mask": rng.random((batch, 20 * 32 * 32)) < 0.5}
    idle = memory_mb("VmRSS")
    losses = []
    first_s, times = time_calls(
        lambda: losses.append(float(model.train_on_batch(inputs, channel))), case["rounds"]
    )
    if not np.all(np.isfinite(losses)):
        raise RuntimeError(f"The loss is not finite: {losses}")
    return [
        {
            "task": "training",
            "block_loop": case["block_loop"],
            "depth": case["depth"],
            "batch": batch,
            "num_tokens": 20 * 32 * 32,
            "wall_ms": 1e3 * statistics.median(times),
            "first_call_s": first_s,
            "peak_memory_mb": memory_mb("VmHWM"),
            "idle_memory_mb": idle,
            "first_loss": losses[0],
            "last_loss": losses[-1],
        }
    ]


def routing(case):
    """Encoder time and error with the strongest patches only."""
    import numpy as np

    from lwmt_sionna.baselines import ModelPredictor
    from lwmt_sionna.data import (
        PlanarArray,
        add_noise,
        read_paths,
        subcarrier_frequencies,
        synthesize,
        vanishing_mask,
    )
    from lwmt_sionna.evaluation import normalized_error, summarize_errors
    from lwmt_sionna.models import ChannelPredictor
    from lwmt_sionna.ops import EnergyRouting

    paths = read_paths(case["data"])
    paths = paths.select(np.arange(len(paths.speed)) < case["limit"])
    paths = paths.select(~vanishing_mask(paths))
    h = synthesize(paths, PlanarArray(1, 32), subcarrier_frequencies(32, 540e3))
    past, future = h[:, :16], h[:, 16:21]
    history = add_noise(past, case["history_snr_db"], np.random.default_rng(0))
    scale = np.sqrt(np.mean(np.abs(past) ** 2, axis=(1, 2, 3), dtype=np.float64))

    plain = ChannelPredictor.from_preset(case["preset"])
    shape = (plain.context + plain.num_horizons, 32, 32)
    grid = plain.backbone.grid(shape)
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((16, int(np.prod(grid)), plain.backbone.width), dtype=np.float32)
    energy = rng.random((16, int(np.prod(grid))), dtype=np.float32)
    # Without the network the predictor is its physics, which bounds what routing can lose.
    variants = {
        "all": None,
        "none": None,
        **{f"{n} x {n}": EnergyRouting(n, n) for n in case["kept"]},
    }
    encoders, points = {}, []
    for name, choice in variants.items():
        model = ChannelPredictor.from_preset(case["preset"])
        model.backbone.routing = choice
        if name == "none":
            model.head.set_weights([0 * weight for weight in model.head.get_weights()])
        predicted = ModelPredictor(model, batch_size=64)(history, 5)
        point = {"task": "routing", "preset": case["preset"], "kept": name}
        point["num_patches"] = grid[1] * grid[2]
        for horizon in (1, 5):
            error, power = normalized_error(
                predicted[:, horizon - 1], future[:, horizon - 1], scale
            )
            summary = summarize_errors(error, power)
            point |= {f"{key}_h{horizon}": value for key, value in summary.items()}
            decibels = 10 * np.log10(error / power)
            point[f"nmse_mean_of_db_h{horizon}"] = float(np.mean(decibels))
        points.append(point)
        if name == "none":
            continue
        encoders[name] = encode = compiled_encoder(model.backbone, shape)
        encode(tokens, energy)
    # In turns, so that all see the same machine.
    seconds = {name: [] for name in encoders}
    for _ in range(case["rounds"]):
        for name, encoder in encoders.items():
            begin = time.perf_counter()
            encoder(tokens, energy)
            seconds[name].append(time.perf_counter() - begin)
    for point in points:
        if point["kept"] == "none":
            continue
        mine = seconds[point["kept"]]
        point["encoder_ms_per_user"] = 1e3 * statistics.median(mine) / 16
        point["speedup"] = statistics.median(
            all_s / own_s for all_s, own_s in zip(seconds["all"], mine, strict=True)
        )
    return points


def compiled_encoder(backbone, shape):
    """Function of tokens and their energy that runs the blocks, compiled."""
    import keras

    from lwmt_sionna.ops import EnergyRouting

    routed = isinstance(backbone.routing, EnergyRouting)

    class Encoder(keras.Model):
        def call(self, inputs):
            tokens, energy = inputs
            return backbone.encode(tokens, shape, energy=energy if routed else None)

    encoder = Encoder()
    encoder.compile(jit_compile=keras.backend.backend() != "torch")
    return lambda *inputs: encoder.predict_on_batch(list(inputs))


def time_calls(call, rounds):
    """Seconds of the first call, and of the following ones."""
    begin = time.perf_counter()
    call()
    first = time.perf_counter() - begin
    call()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return first, times


def memory_mb(field):
    """A figure of /proc/self/status in MB: VmRSS is held now, VmHWM was held at most."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1e3
    raise RuntimeError(f"no {field} in /proc/self/status")


def print_table(points):
    for p in points:
        if p["task"] == "latency":
            print(
                f"latency of {p['preset']}, {p['users']:>3} users: "
                f"{p['wall_ms_per_user']:6.1f} ms per user, {p['memory_mb']:.0f} MB above idle, "
                f"first call {p['first_call_s']:.0f} s"
            )
        elif p["task"] == "eager":
            print(
                f"processor time of {p['preset']} per user: {p['eager_ms_per_user']:.1f} ms "
                f"eagerly (first call {p['eager_first_call_s']:.0f} s), "
                f"{p['compiled_ms_per_user']:.1f} ms compiled"
            )
        elif p["task"] == "training":
            print(
                f"training, {p['num_tokens']} tokens x {p['batch']}, depth {p['depth']}, "
                f"{p['block_loop']}: {p['wall_ms'] / 1e3:.1f} s per step, peak "
                f"{p['peak_memory_mb'] / 1e3:.2f} GB, first call {p['first_call_s']:.0f} s"
            )
        else:
            errors = ", ".join(
                f"h={h} {p[f'nmse_median_db_h{h}']:.2f} / {p[f'nmse_mean_of_db_h{h}']:.2f}"
                for h in (1, 5)
            )
            cost = (
                f", encoder {p['encoder_ms_per_user']:.2f} ms per user, {p['speedup']:.1f} x"
                if "speedup" in p
                else ""
            )
            who = f"routing of {p['preset']}, patches kept {p['kept']}"
            print(f"{who}: NMSE median / mean dB {errors}{cost}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        case = json.loads(sys.argv[2])
        answer = sys.stdout
        sys.stdout = sys.stderr  # libraries may print
        found = {"latency": latency, "eager": eager, "training": training, "routing": routing}[
            case["task"]
        ](case)
        answer.write(json.dumps(found) + "\n")
    else:
        from lwmt_sionna.runs import command_line

        command_line.run(main)
