"""Time and memory of sparse attention against dense attention and against gathering per query.

Every subject runs in a process of its own. Each baseline is timed in turns with this project's
kernel, one step each, so that both see the same machine: trust the ratios of a pair. Where there is
an accelerator, all of them compute on it, and memory is what they take there.

Example:
    python experiments/attention_benchmark.py --grids 5x32x32 10x32x32 --head-sizes 4 8
"""

import contextlib
import ctypes
import functools
import json
import math
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

GRIDS = ("5x16x16", "10x16x16", "5x32x32", "10x32x32", "20x32x32", "40x32x32")
OURS = "lwmt"
# Name -> the library that runs it, and bytes per score that a training step holds at a time.
BASELINES = {
    "dense": ("keras", 16),
    "mha": ("keras", 16),
    "gather": ("keras", 0),
    "torch_sdpa": ("torch", 0),
    "torch_gather": ("torch", 0),
}
LABELS = {
    OURS: "this project",
    "dense": "keras.ops.dot_product_attention",
    "mha": "keras.layers.MultiHeadAttention",
    "gather": "per-query gather, XLA",
    "torch_sdpa": "PyTorch fused dense",
    "torch_gather": "per-query gather, PyTorch",
}


def main(argv=None):
    from lwmt_sionna.runs import command_line

    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument("--grids", nargs="+", default=list(GRIDS), help="snapshots x angle x delay")
    parser.add_argument("--head-sizes", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--num-heads", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--baselines", nargs="*", choices=list(BASELINES), default=list(BASELINES))
    parser.add_argument("--modes", nargs="+", choices=["forward", "train"], default=None)
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each [5]")
    parser.add_argument("--backend", choices=["tensorflow", "jax"], default="tensorflow")
    parser.add_argument("--keras-python", default=sys.executable, help="interpreter of Keras")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--memory-gb", type=float, default=10.0, help="skip what needs more [10]")
    parser.add_argument("--step-seconds", type=float, default=30.0, help="give up on slower [30]")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/attention_benchmark.json")
    )
    command_line.add_options(parser, "workdir")
    parser.add_argument("--figure", type=pathlib.Path, help="defaults to the record's name, .png")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    try:
        grids = [tuple(int(size) for size in grid.split("x")) for grid in args.grids]
        grids = [(t, a, d) for t, a, d in grids]
    except ValueError:
        raise command_line.UsageError(
            f"A grid reads like 5x32x32. Received: --grids {args.grids}"
        ) from None

    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.digests import code_digest
    from lwmt_sionna.runs.parallel import progress_bar
    from lwmt_sionna.runs.store import RunFolder

    modes = ["forward", "train"] if args.modes is None else args.modes
    left_out = ("debug", "quiet", "out", "figure", "workdir", "keras_python", "torch_python")
    config = {k: v for k, v in vars(args).items() if k not in left_out} | {"modes": modes}
    # A time is kept as long as code, machine and settings are the same.
    names = ("num_heads", "batch", "baselines", "rounds", "backend", "memory_gb", "step_seconds")
    here = {name: config[name] for name in names} | {
        "code": code_digest("lwmt_sionna.ops.attention"),
        "machine": records.machine_info(),
        "versions": records.package_versions(),
    }
    cases = [(g, h, m) for g in grids for h in args.head_sizes for m in modes]
    points = []
    with RunFolder(command_line.workdir(args)) as folder:
        for grid, head_size, mode in progress_bar(cases, unit="case"):
            points += folder.store.compute(
                here | {"grid": grid, "head_size": head_size, "mode": mode},
                functools.partial(run_case, args, grid, head_size, mode),
            )
    record = records.write_record(
        args.out,
        name="attention_benchmark",
        config=config,
        points=points,
        seeds=[0],
        inputs={},
        started=started,
    )
    figure = args.out.with_suffix(".png") if args.figure is None else args.figure
    plot_attention_benchmark(record, figure)
    print_table(points)
    print(f"record: {args.out}\nfigure: {figure}")


def run_case(args, grid, head_size, mode):
    """Points of one grid, head size and mode: each baseline, paired with this project's kernel."""
    num_tokens = math.prod(grid)
    place = {
        "num_snapshots": grid[0],
        "num_angle": grid[1],
        "num_delay": grid[2],
        "num_tokens": num_tokens,
        "head_size": head_size,
        "num_heads": args.num_heads,
        "batch": args.batch,
        "backend": args.backend,
        "mode": mode,
    }
    points = []
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Worker(args, OURS, grid, head_size, mode))
        summary = ours.measure(args.rounds)
        points.append(place | {"subject": OURS, **summary})
        for name in args.baselines:
            library, bytes_per_score = BASELINES[name]
            scores = args.batch * args.num_heads * num_tokens**2
            if bytes_per_score * scores > args.memory_gb * 1e9:
                continue
            with Worker(args, name, grid, head_size, mode) as other:
                if other.failure is None and other.first_s < args.step_seconds + 60:
                    pairs = [(ours.step(), other.step()) for _ in range(args.rounds)]
                    pair = {
                        **other.summary([second for _, second in pairs]),
                        "ours_wall_ms": statistics.median(first[0] for first, _ in pairs),
                        "ours_cpu_ms": statistics.median(first[1] for first, _ in pairs),
                        "wall_ratio": statistics.median(b[0] / a[0] for a, b in pairs),
                        "cpu_ratio": statistics.median(b[1] / a[1] for a, b in pairs),
                    }
                    points.append(place | {"subject": name, **pair})
                elif library == "keras":
                    raise RuntimeError(f"{name} failed at {grid}: {other.failure}")
    return points


class Worker:
    """A process that runs one subject, a step at a time."""

    def __init__(self, args, subject, grid, head_size, mode):
        library = "keras" if subject == OURS else BASELINES[subject][0]
        python = args.keras_python if library == "keras" else args.torch_python
        self.folder = tempfile.TemporaryDirectory()
        task = {
            "subject": subject,
            "grid": grid,
            "head_size": head_size,
            "num_heads": args.num_heads,
            "batch": args.batch,
            "mode": mode,
        }
        if subject == "torch_gather":
            import numpy as np

            from lwmt_sionna.ops import Neighborhood

            indices, mask = Neighborhood.published().table(grid)
            task["table"] = str(pathlib.Path(self.folder.name) / "table.npz")
            np.savez(task["table"], indices=indices, mask=mask)
        repository = pathlib.Path(__file__).resolve().parents[1]
        environment = {
            **os.environ,
            "KERAS_BACKEND": args.backend if library == "keras" else "torch",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # two subjects share an accelerator
            "PYTHONPATH": os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")]),
        }
        self.process = subprocess.Popen(
            [python, __file__, "--worker", json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not args.debug else None,
            text=True,
            env=environment,
        )
        first = self._read()
        self.failure = first.get("failure")
        self.first_s = first.get("first_s", math.inf)
        self.accelerator = first.get("accelerator")

    def _read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failure": "the process ended"}

    def step(self):
        """Wall and CPU milliseconds of a step."""
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        answer = self._read()
        return answer["wall_ms"], answer["cpu_ms"]

    def measure(self, rounds):
        if self.failure is not None:
            raise RuntimeError(f"This project's kernel failed: {self.failure}")
        return self.summary([self.step() for _ in range(rounds)])

    def summary(self, steps):
        self.process.stdin.write("memory\n")
        self.process.stdin.flush()
        return {
            "wall_ms": statistics.median(wall for wall, _ in steps),
            "wall_min_ms": min(wall for wall, _ in steps),
            "cpu_ms": statistics.median(cpu for _, cpu in steps),
            "first_call_s": self.first_s,
            "accelerator": self.accelerator,
            **self._read(),
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.folder.cleanup()


def work(task):
    """What a worker process does: answers `step` and `memory` until its input ends."""
    from lwmt_sionna.runs.records import machine_info

    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries may print

    def answer(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        build = build_torch if task["subject"].startswith("torch") else build_keras
        step = build(task)
        accelerator = (machine_info()["accelerators"] or [None])[0]
        idle = memory_mb()
        begin = time.perf_counter()
        step()
        first = time.perf_counter() - begin
    except Exception as error:
        answer(failure=f"{type(error).__name__}: {error}"[:300])
        return
    # What compiling took is given back, so that the peak is that of the steps.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    answer(first_s=first, accelerator=accelerator)
    for line in sys.stdin:
        if line.strip() == "memory":
            there = accelerator_memory_mb()
            answer(memory_mb=memory_mb("VmHWM") - idle if there is None else there)
            continue
        before = resource.getrusage(resource.RUSAGE_SELF)
        begin = time.perf_counter()
        step()
        wall = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        answer(wall_ms=1e3 * wall, cpu_ms=1e3 * cpu)


def memory_mb(field="VmRSS"):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1e3
    raise RuntimeError(f"no {field} in /proc/self/status")


def accelerator_memory_mb():
    """Most memory that was taken of an accelerator, or None without one."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.max_memory_allocated() / 1e6
    if "jax" in sys.modules:
        told = sys.modules["jax"].local_devices()[0].memory_stats()
        return told and told["peak_bytes_in_use"] / 1e6
    return None


def build_keras(task):
    """One compiled step of a subject in Keras, on TensorFlow or JAX."""
    import keras
    import numpy as np
    from keras import ops

    from lwmt_sionna.ops import Neighborhood, sparse_attention

    subject, grid = task["subject"], tuple(task["grid"])
    heads = (task["batch"], task["num_heads"], math.prod(grid), task["head_size"])
    rng = np.random.default_rng(0)
    if subject == "mha":
        width = task["num_heads"] * task["head_size"]
        layer = keras.layers.MultiHeadAttention(task["num_heads"], task["head_size"])
        inputs = [rng.standard_normal((task["batch"], heads[2], width), dtype=np.float32)]
        layer.build(inputs[0].shape, inputs[0].shape)
        weights = [np.array(w) for w in layer.weights]

        def attend(x, *weights):
            (output, _) = layer.stateless_call(list(weights), [], x, x)
            return output

        inputs += weights
    elif subject == "dense":
        # `dot_product_attention` has the heads behind the tokens.
        inputs = list(rng.standard_normal((3, *(heads[i] for i in (0, 2, 1, 3))), dtype=np.float32))
        attend = ops.dot_product_attention
    else:
        inputs = list(rng.standard_normal((3, *heads), dtype=np.float32))
        kernel = "auto" if subject == OURS else "gather"

        def attend(query, key, value):
            return sparse_attention(
                query, key, value, Neighborhood.published(), grid, kernel=kernel
            )

    if keras.backend.backend() == "jax":
        import jax

        def loss(*tensors):
            return ops.sum(ops.square(attend(*tensors)))

        if task["mode"] == "forward":
            run = jax.jit(attend)
        else:
            run = jax.jit(jax.grad(loss, argnums=tuple(range(len(inputs)))))
        inputs = [jax.device_put(tensor) for tensor in inputs]
        return lambda: jax.block_until_ready(run(*inputs))

    import tensorflow as tf

    inputs = [tf.constant(tensor) for tensor in inputs]

    @tf.function(jit_compile=True)
    def run(*tensors):
        if task["mode"] == "forward":
            return attend(*tensors)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = tf.reduce_sum(tf.square(attend(*tensors)))
        return tape.gradient(loss, tensors)

    # Reading one number of a result waits for it.
    return lambda: tf.nest.flatten(run(*inputs))[0][0, 0, 0].numpy()


def build_torch(task):
    """One step of a subject in PyTorch."""
    import torch

    there = torch.cuda.is_available()
    torch.set_default_device("cuda" if there else "cpu")
    shape = (task["batch"], task["num_heads"], math.prod(task["grid"]), task["head_size"])
    torch.manual_seed(0)
    train = task["mode"] == "train"
    query, key, value = (torch.randn(shape, requires_grad=train) for _ in range(3))
    if task["subject"] == "torch_gather":
        import numpy as np

        with np.load(task["table"]) as table:
            indices = torch.asarray(table["indices"].astype(np.int64), device=query.device)
            mask = torch.asarray(table["mask"], device=query.device)

    def attend():
        if task["subject"] == "torch_sdpa":
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)
        # As published: keys and values of each query are gathered, then multiplied.
        scores = torch.einsum("bhnd,bhnkd->bhnk", query, key[:, :, indices])
        scores = (scores * shape[-1] ** -0.5).masked_fill(~mask, -torch.inf)
        return torch.einsum("bhnk,bhnkd->bhnd", scores.softmax(-1), value[:, :, indices])

    def step():
        if train:
            for tensor in (query, key, value):
                tensor.grad = None
            attend().square().sum().backward()
        else:
            with torch.no_grad():
                attend()
        if there:
            torch.cuda.synchronize()

    return step


def growth_exponent(points):
    """Slope of log time over log tokens."""
    import numpy as np

    if len({p["num_tokens"] for p in points}) < 2:
        return math.nan
    tokens = np.log([p["num_tokens"] for p in points])
    return float(np.polyfit(tokens, np.log([p["wall_ms"] for p in points]), 1)[0])


def print_table(points):
    for mode in dict.fromkeys(p["mode"] for p in points):
        for head_size in dict.fromkeys(p["head_size"] for p in points):
            chosen = [p for p in points if (p["mode"], p["head_size"]) == (mode, head_size)]
            print(f"\n{mode}, head size {head_size}: ms | MB | times slower than this project")
            for subject in dict.fromkeys(p["subject"] for p in chosen):
                cells = ""
                mine = [p for p in chosen if p["subject"] == subject]
                for p in mine:
                    grid = f"{p['num_snapshots']}x{p['num_angle']}x{p['num_delay']}"
                    ratio = f" | {p['wall_ratio']:.1f}" if "wall_ratio" in p else ""
                    cells += f"  {grid}: {p['wall_ms']:.0f} | {p['memory_mb']:.0f}{ratio}"
                print(f"{LABELS[subject]:<34}{cells}")
                if subject == OURS:
                    print(f"{'':<34}  growth exponent {growth_exponent(mine):.2f}")


def plot_attention_benchmark(record, path):
    """Training (or else forward) time and memory over tokens, one column per head size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = record["points"]
    mode = "train" if any(p["mode"] == "train" for p in points) else "forward"
    points = [p for p in points if p["mode"] == mode]
    sizes = sorted({p["head_size"] for p in points})
    tokens = sorted({p["num_tokens"] for p in points})
    figure, axes = plt.subplots(
        2, len(sizes), figsize=(1 + 3.4 * len(sizes), 6.4), sharex=True, sharey="row", squeeze=False
    )
    for column, size in enumerate(sizes):
        for row, (field, label) in enumerate(
            (("wall_ms", f"{mode} step [ms]"), ("memory_mb", "memory above idle [MB]"))
        ):
            axis = axes[row, column]
            for subject, name in LABELS.items():
                mine = sorted(
                    (p["num_tokens"], max(p[field], 1.0))
                    for p in points
                    if p["subject"] == subject and p["head_size"] == size
                )
                if mine:
                    style = {"color": "black", "linewidth": 2} if subject == OURS else {}
                    axis.loglog(*zip(*mine, strict=True), marker="o", label=name, **style)
            axis.grid(alpha=0.3)
            axis.set_xticks(tokens, [f"{n:,}" for n in tokens], rotation=45, fontsize="small")
            axis.minorticks_off()
            if column == 0:
                axis.set_ylabel(label)
            if row == 0:
                axis.set_title(f"head size {size}")
            else:
                axis.set_xlabel("tokens")
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
    else:
        from lwmt_sionna.runs import command_line

        command_line.run(main)
