"""What a prediction costs on TensorFlow, PyTorch and JAX: processor time per user, and first calls.

Every preset predicts the same measured histories by every backend, compiled as users compile it:
TensorFlow by XLA, JAX by `jax.jit`, PyTorch by `torch.compile` and not at all (eagerly). Each way
runs in a process of its own, on one thread, and all of a preset are timed in turns, so that they
see the same machine: trust the ratios. Processor time is what other work moves least; that of a
first call holds all that its compilers take, which find nothing kept from before.

Example:
    python experiments/backend_timing.py --python-torch .venv-sionna2/bin/python \\
        --python-jax .venv-jax/bin/python --out experiments/results/backend_timing.json
"""

import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
WAYS = {
    "tensorflow": ("compiled",),
    "torch": ("compiled", "eager"),
    "jax": ("compiled",),
}
PRESETS = ("universal", "paths", "small")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # in this process, which then knows what it took
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "LWMT_COMPILED": "",
    "TF_XLA_FLAGS": "",  # that of this process names what it keeps
}


def main(argv=None):
    from lwmt_sionna.runs import command_line

    started = time.time()
    parser = command_line.build_parser(__doc__)
    for backend, default in (("tensorflow", sys.executable), ("torch", None), ("jax", None)):
        parser.add_argument(
            f"--python-{backend}",
            type=pathlib.Path,
            default=default,
            help=f"interpreter with {backend} [{'this one' if default else 'leave it out'}]",
        )
    command_line.add_options(parser, "preset", "history_snr", history_snr=[15.0])
    parser.add_argument("--users", type=int, default=16, help="histories of one call [16]")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each [5]")
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        default=pathlib.Path("experiments/data/san_francisco_30kmh_5ms.h5"),
        help="sequences that are predicted",
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/backend_timing.json")
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    interpreters = {name: getattr(args, f"python_{name}") for name in WAYS}
    for name, python in interpreters.items():
        if python is not None and not pathlib.Path(python).is_file():
            raise command_line.UsageError(f"No such file: --python-{name} {python}")
    if not args.data.is_file():
        raise command_line.UsageError(f"No such file: --data {args.data}")

    from lwmt_sionna.models.presets import preset_folder
    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.parallel import progress_bar

    presets = args.preset or list(PRESETS)
    seen = {"data": str(args.data), "history_snr_db": args.history_snr[0], "users": args.users}
    points = []
    for preset in progress_bar(presets, unit="preset"):
        cases = [
            {"preset": preset, "backend": name, "way": way} | seen
            for name, ways in WAYS.items()
            for way in ways
            if interpreters[name] is not None
        ]
        points += time_in_turns(interpreters, cases, args.rounds)
    records.write_record(
        args.out,
        name="backend_timing",
        config={"presets": presets, "rounds": args.rounds} | seen,
        points=points,
        seeds=[0],
        inputs={args.data.stem: args.data}
        | {f"preset_{pathlib.Path(name).name}": preset_folder(name) for name in presets},
        started=started,
    )
    for p in points:
        print(
            f"{p['preset']} on {p['backend']}, {p['way']}: {p['ms_per_user']:.0f} ms per user, "
            f"{p['times_tensorflow']:.2f} x, first call {p['first_call_s']:.0f} s"
        )
    print(f"record: {args.out}")


def time_in_turns(interpreters, cases, rounds):
    """The points of the ways of one preset: a call of each, as often as there are rounds."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(interpreters[c["backend"]], c)) for c in cases]
        turns = [[worker.answer() for worker in workers] for _ in range(rounds)]
    costs = list(zip(*turns, strict=True))
    known = next((c for w, c in zip(workers, costs) if w.case["backend"] == "tensorflow"), None)
    points = []
    for worker, spent in zip(workers, costs, strict=True):
        ratios = [one / other for one, other in zip(spent, known or ())]
        points.append(
            {name: worker.case[name] for name in ("preset", "backend", "way", "users")}
            | worker.first
            | {
                "ms_per_user": 1e3 * statistics.median(spent) / worker.case["users"],
                "times_tensorflow": statistics.median(ratios) if ratios else None,
            }
        )
    return points


class Worker:
    """A process that runs one case, a call at a time, without any cache of compilers."""

    def __init__(self, python, case):
        self.case = case
        self.folder = tempfile.TemporaryDirectory()
        own = {"KERAS_BACKEND": case["backend"], "TORCHINDUCTOR_CACHE_DIR": self.folder.name}
        self.process = subprocess.Popen(
            [str(python), __file__, "--worker", json.dumps(case)],
            env=os.environ | ONE_THREAD | own | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first = self.answer()  # before the next one starts

    def answer(self):
        """What the process says of its next call."""
        self.process.stdin.write("call\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"A case failed with status {self.process.wait()}: {self.case}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.folder.cleanup()


def make_call(case):
    """A function of a history that predicts as users do."""
    from lwmt_sionna import ChannelPredictor

    predictor = ChannelPredictor.from_preset(case["preset"])
    if case["backend"] != "torch":
        return predictor  # whose plain calls are programs
    import torch

    torch.set_num_threads(1)
    program = torch.compile(predictor) if case["way"] == "compiled" else predictor

    def call(history):
        with torch.no_grad():
            return program(history)

    return call


def processor_s():
    """Processor time of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def work(case):
    """What a worker does: answers every line of its input with what a call takes."""
    import keras
    from model_benchmark import measured

    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries may print
    h = keras.ops.convert_to_tensor(measured(case))
    call = None
    for _ in sys.stdin:
        begin = time.perf_counter(), processor_s()
        first = call is None
        call = call or make_call(case)
        keras.ops.convert_to_numpy(call(h))
        wall, spent = time.perf_counter() - begin[0], processor_s() - begin[1]
        told = spent
        if first:
            version = str(sys.modules[case["backend"]].__version__)
            told = {"version": version, "first_call_s": spent, "first_call_wall_s": wall}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
    else:
        from lwmt_sionna.runs import command_line

        command_line.run(main)
