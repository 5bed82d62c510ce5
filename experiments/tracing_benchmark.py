"""What tracing costs, how exact it is, and what the solver adds to the geometry.

Measures, in one record: the cost of a snapshot against a loop that moves one receiver and traces it
again; the error against four million rays; snapshots evolved between traced ones; memory; how well
a solve repeats; births and deaths of paths that geometry does not explain; and the correlation over
time against what the directions of arrival say.

Example:
    python experiments/tracing_benchmark.py --out experiments/results/tracing_benchmark.json
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lwmt_sionna.data import read_paths, write_paths
from lwmt_sionna.runs import command_line, records
from lwmt_sionna.runs.digests import code_digest
from lwmt_sionna.runs.parallel import progress_bar
from lwmt_sionna.runs.store import RunFolder

NAME = "tracing_benchmark"
# Okabe and Ito's palette, as in the other figures of the project.
GREY, ORANGE, BLUE = "#999999", "#D55E00", "#0072B2"
WAYS = (
    ("Sionna RT's default path table", "Sionna RT's own path table", ORANGE),
    ("large path table", "large path table", GREY),
    ("pooled candidates", "pooled candidates (default)", BLUE),
)
LEVELS = (-20, -30, -40)


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """What is measured.

    Attributes:
        scenes: Pairs of a scene and a base station; costs are measured in the first.
        num_tracks: Tracks in the first scene for costs and errors.
        num_artefact_tracks: Tracks of each scene for births and deaths, and for memory.
        num_loop: Positions that the loop visits.
        num_reference: Snapshots of each track that are compared with the reference.
        large_scene: Another scene and base station, for memory alone.
        reference_samples: Rays of the reference.
        loop_samples: Rays of the loop, which are Sionna RT's own default.
        artefact_samples: Rays where births and deaths are counted.
        retrace_wavelengths: Distance between traced snapshots of the hybrid.
        speed_kmh: Speed of the users.
        sampling_period: Time between snapshots in seconds.
        num_snapshots: Snapshots of each track.
        carrier_frequency: Hertz.
        seed: Seed of the tracks.
    """

    scenes: tuple = (
        ("munich", (8.5, 21.0, 27.0)),
        ("etoile", (-51.5, 152.1, 20.7)),
    )
    num_tracks: int = 24
    num_artefact_tracks: int = 12
    num_loop: int = 12
    num_reference: int = 5
    large_scene: tuple = ("san_francisco", (70.1, -59.7, 38.75))
    reference_samples: int = 4_000_000
    loop_samples: int = 1_000_000
    artefact_samples: int = 200_000
    retrace_wavelengths: float = 2.5
    speed_kmh: float = 30.0
    sampling_period: float = 2.5e-3
    num_snapshots: int = 21
    carrier_frequency: float = 3.5e9
    seed: int = 1


class Bench:
    """One scene and its tracks, traced in several ways."""

    def __init__(self, config, scene, station, num_tracks=None):
        from lwmt_sionna.rt import Clock, Ring, Tracks, load_scene, sample_straight_tracks

        self.config, self.scene, self.station = config, scene, station
        self.loaded = load_scene(scene, config.carrier_frequency)
        drawn = sample_straight_tracks(
            self.loaded,
            np.random.default_rng(config.seed),
            num_tracks=config.num_tracks if num_tracks is None else num_tracks,
            clock=Clock(config.num_snapshots, config.sampling_period),
            speed=config.speed_kmh / 3.6,
            ring=Ring(station),
        )
        self.tracks = Tracks(drawn.position, config.sampling_period)

    def trace(self, tracks=None, **settings):
        """`PathSequences` of the tracks, and the seconds and processor seconds it took."""
        from lwmt_sionna.rt import TracingConfig, trace_tracks

        tracks = self.tracks if tracks is None else tracks
        orientation = (0.0, 0.0, 0.0)
        config = TracingConfig(**settings)
        start = clocks()
        traced = trace_tracks(self.loaded, self.station, orientation, tracks, config)
        return self.wrap(traced, tracks), clocks() - start

    def trace_all_candidates(self, samples):
        """Every position shoots, and every position of a track tests what any of them found."""
        from lwmt_sionna.rt import TracingConfig, trace_positions

        count, length = self.tracks.position.shape[:2]
        flat = trace_positions(
            self.loaded,
            self.station,
            (0.0, 0.0, 0.0),
            self.tracks.position.reshape(-1, 3),
            self.tracks.velocity.reshape(-1, 3),
            TracingConfig(samples_per_source=samples),
            shooters=np.arange(count * length),
            listens=np.kron(np.eye(count, dtype=bool), np.ones((length, length), dtype=bool)),
        )
        traced = {name: v.reshape(count, length, *v.shape[1:]) for name, v in flat.items()}
        return self.wrap(traced, self.tracks)

    def timed(self, **settings):
        """The median time of three traces, after a first one has compiled the kernels."""
        self.trace(**settings)
        runs = [self.trace(**settings) for _ in range(3)]
        return runs[-1][0], np.median([took for _, took in runs], axis=0)

    def loop(self, samples, count):
        """What a user writes after Sionna's tutorials: move the one receiver, trace, and again."""
        from lwmt_sionna.rt import TracingConfig
        from lwmt_sionna.rt.tracing.engine import sionna_rt

        scene, config = self.loaded.scene, TracingConfig()
        for name in [*scene.receivers, *scene.transmitters]:
            scene.remove(name)
        array = sionna_rt.PlanarArray(
            num_rows=1, num_cols=1, pattern=config.user_pattern, polarization="V"
        )
        scene.tx_array = scene.rx_array = array
        scene.add(sionna_rt.Transmitter("tx", position=list(self.station)))
        receiver = sionna_rt.Receiver("rx", position=[0.0, 0.0, 0.0])
        scene.add(receiver)
        solver = sionna_rt.PathSolver()
        places = self.tracks.position.reshape(-1, 3)[:: self.tracks.position[..., 0].size // count]
        seconds = []
        # The first position compiles the kernels.
        for place in [places[0], *places]:
            start = clocks()
            receiver.position = [float(c) for c in place]
            solver(
                scene,
                max_depth=config.max_depth,
                samples_per_src=samples,
                diffraction=config.diffraction,
                refraction=config.refraction,
            ).cir(normalize_delays=False, out_type="numpy")
            seconds.append(clocks() - start)
        for name in [*scene.receivers, *scene.transmitters]:
            scene.remove(name)
        return np.median(seconds[1:], axis=0)

    def wrap(self, traced, tracks):
        from lwmt_sionna.data import PathSequences

        count = len(tracks.position)
        return PathSequences(
            **traced,
            position=tracks.position,
            velocity=tracks.velocity,
            speed=tracks.speed,
            trajectory_id=np.arange(count),
            bs_index=np.zeros(count, int),
            bs_position=self.station,
            bs_orientation=(0.0, 0.0, 0.0),
            sampling_period=tracks.sampling_period,
            carrier_frequency=self.config.carrier_frequency,
            scene=self.scene,
        )


def clocks():
    """Seconds passed, and seconds of all processors spent: what others compute slows the first."""
    return np.array([time.perf_counter(), time.process_time()])


def costs(seconds, loop):
    (wall, cpu), (wall_ratio, cpu_ratio) = 1e3 * seconds, loop / seconds
    return {
        "ms_per_snapshot": float(wall),
        "cpu_ms_per_snapshot": float(cpu),
        "times_cheaper_than_loop": float(wall_ratio),
        "times_cheaper_than_loop_cpu": float(cpu_ratio),
    }


def channel(paths, **settings):
    """Channels of a horizontal line of 32 antennas over 17 MHz."""
    from lwmt_sionna.data import PlanarArray, subcarrier_frequencies, synthesize

    return synthesize(paths, PlanarArray(), subcarrier_frequencies(32, 540e3), **settings)


def errors(paths, reference, snapshots=None, prefix="error"):
    """Squared errors of the channels of all snapshots that are not empty, in decibels."""
    h, truth = channel(paths, snapshots=snapshots), channel(reference, snapshots=snapshots)
    power = np.sum(np.abs(truth) ** 2, axis=(2, 3))
    error = np.sum(np.abs(h - truth) ** 2, axis=(2, 3))[power > 0]
    relative = to_db(error / power[power > 0])
    return {
        f"{prefix}_median_db": float(np.median(relative)),
        f"{prefix}_q90_db": float(np.quantile(relative, 0.9)),
        f"{prefix}_max_db": float(relative.max()),
        f"{prefix}_pooled_db": float(to_db(error.sum() / power.sum())),
    }


def to_db(ratio):
    return 10 * np.log10(np.maximum(ratio, 1e-12))


def measure_cost(config):
    """Cost per snapshot of several ways, and their errors against the reference."""
    from lwmt_sionna.rt import TracingConfig, Tracks

    bench = Bench(config, *config.scenes[0])
    default = TracingConfig().samples_per_source
    common = {"part": "cost", "scene": bench.scene}
    loop = bench.loop(config.loop_samples, config.num_loop)
    chosen = np.linspace(0, config.num_snapshots - 1, config.num_reference).round().astype(int)
    # Every one of few positions shoots its own rays, as Sionna RT does by itself.
    few = Tracks(bench.tracks.position[:, chosen], config.sampling_period)
    reference, _ = bench.trace(
        few, samples_per_source=config.reference_samples, candidate_spacing=0.0
    )
    # The loop shoots for every position too: these are the paths that it finds.
    looped, _ = bench.trace(few, samples_per_source=config.loop_samples, candidate_spacing=0.0)
    yield {
        **common,
        "way": "loop",
        "samples": config.loop_samples,
        **costs(loop, loop),
        "num_compared": int(reference.valid.any(-1).sum()),
        **errors(looped, reference),
    }
    ways = {}
    for way, samples, settings in (
        ("every snapshot shoots", default, {"candidate_spacing": 0.0}),
        ("pooled candidates", default, {}),
        ("pooled candidates", config.loop_samples, {}),
        (
            "hybrid", default,
            {"candidate_spacing": 0.0, "retrace_wavelengths": config.retrace_wavelengths},
        ),
        (
            "hybrid, pooled candidates", default,
            {"retrace_wavelengths": config.retrace_wavelengths},
        ),
    ):  # fmt: skip
        paths, seconds = bench.timed(samples_per_source=samples, **settings)
        cost = seconds / paths.valid[..., 0].size
        ways[way, samples] = paths, cost
        point = {
            **common,
            "way": way,
            "samples": samples,
            "is_default": not settings and samples == default,
            **costs(cost, loop),
            "paths_per_snapshot": float(paths.valid.sum(-1).mean()),
            **errors(_pick(paths, chosen), reference),
        }
        if "hybrid" in way:
            base = "pooled candidates" if "pooled" in way else "every snapshot shoots"
            whole, base_cost = ways[base, samples]
            evolved = np.nonzero(~paths.traced[0])[0]
            seams = paths.seam_error[~np.isnan(paths.seam_error)]
            point |= {
                "times_cheaper_than_traced": float(base_cost[0] / cost[0]),
                "times_cheaper_than_traced_cpu": float(base_cost[1] / cost[1]),
                "traced_share": float(paths.traced.mean()),
                **errors(paths, whole, evolved, "evolution_error"),
                "seam_error_median_db": float(to_db(np.median(seams))),
            }
        yield point


def _pick(paths, snapshots):
    """The sequences at some of their snapshots."""
    per_path = {n: v[:, snapshots] for n, v in paths.arrays.items() if v.ndim > 1}
    return dataclasses.replace(paths, **per_path)


def measure_repeatability(config):
    """A solve against the same one again: in this process, and in another with one thread."""
    bench = Bench(config, *config.scenes[0])
    first, second = bench.trace()[0], bench.trace()[0]
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "paths.h5"
        in_process("--paths-to", file, "--num-tracks", config.num_tracks)
        third = read_paths(file)
    for where, again in (("same process", second), ("another process, one thread", third)):
        yield {
            "part": "repeatability",
            "scene": bench.scene,
            "where": where,
            **errors(again, first),
            "num_paths": int(again.valid.sum()),
            "num_paths_first": int(first.valid.sum()),
        }


def write_one_thread(config, path):
    from lwmt_sionna.rt.tracing.engine import drjit

    drjit.set_thread_count(1)
    write_paths(path, Bench(config, *config.scenes[0]).trace()[0])


def measure_artefacts(config, scene, station):
    """Births and deaths by the solver, before and after, and the correlation over time."""
    from lwmt_sionna.data.events import unexplained_events
    from lwmt_sionna.rt.tracing import solver

    bench = Bench(config, scene, station, config.num_artefact_tracks)
    samples = {"samples_per_source": config.artefact_samples}
    truth = bench.trace_all_candidates(config.artefact_samples)
    table = solver.PATH_TABLE_SIZE
    for way, settings, size in (
        ("Sionna RT's default path table", {"candidate_spacing": 0.0}, 1_000_000),
        ("large path table", {"candidate_spacing": 0.0}, table),
        ("pooled candidates", {}, table),
    ):
        solver.PATH_TABLE_SIZE = size
        try:
            paths, _ = bench.trace(**samples, **settings)
        finally:
            solver.PATH_TABLE_SIZE = table
        events = {
            f"share_{-level}db": unexplained_events(paths, truth, level)
            for level in (-20, -30, -40)
        }
        yield {
            "part": "artefacts",
            "scene": scene,
            "way": way,
            "samples": config.artefact_samples,
            "num_steps": int(events["share_20db"].size),
            **{name: float(value.mean()) for name, value in events.items()},
            "paths_missed_share": 1.0 - int(paths.valid.sum()) / int(truth.valid.sum()),
        }
    yield from measure_correlation(bench, paths)


def measure_correlation(bench, paths):
    """Correlation with the first snapshot against that of plane waves from where paths arrive."""
    from lwmt_sionna.data import event_mask
    from lwmt_sionna.data.paths import SPEED_OF_LIGHT

    lags = [lag for lag in (1, 2, 4, 8) if lag < paths.num_snapshots]
    arrival = np.stack(
        [
            np.sin(paths.theta_r) * np.cos(paths.phi_r),
            np.sin(paths.theta_r) * np.sin(paths.phi_r),
            np.cos(paths.theta_r),
        ],
        axis=-1,
    )
    shift = np.einsum("stpx,stx->stp", arrival, paths.velocity)
    shift *= paths.carrier_frequency / SPEED_OF_LIGHT
    first = dataclasses.replace(paths, doppler=np.where(paths.valid, shift, 0.0))
    analytic = channel(first, snapshots=[0], times=np.arange(9) * paths.sampling_period)[:, 0]
    traced = channel(paths)
    for lag in lags:
        quiet = ~event_mask(paths, 0, lag, threshold_db=-30.0)
        here, there = _correlation(traced[quiet], lag), _correlation(analytic[quiet], lag)
        yield {
            "part": "correlation",
            "scene": bench.scene,
            "lag_ms": 1e3 * lag * paths.sampling_period,
            "num_sequences": int(quiet.sum()),
            "traced_mean": float(np.mean(np.abs(here))),
            "analytic_mean": float(np.mean(np.abs(there))),
            "difference_median": float(np.median(np.abs(here - there))),
            "difference_max": float(np.abs(here - there).max()),
        }


def _correlation(h, lag):
    first, later = (h[:, t].reshape(len(h), -1) for t in (0, lag))
    inner = np.sum(later * first.conj(), axis=1)
    return inner / (np.linalg.norm(first, axis=1) * np.linalg.norm(later, axis=1))


def measure_memory(config):
    """Largest resident memory of a process that traces, in processes of their own."""
    default, shooting = "pooled candidates", "every snapshot shoots"
    for scene, way in (
        (config.scenes[0][0], default),
        (config.scenes[0][0], shooting),
        (config.large_scene[0], default),
    ):
        said = in_process("--memory-of", scene, way)
        yield {"part": "memory", "scene": scene, "way": way, **json.loads(said)}


def in_process(*arguments):
    """Runs this script in a process of its own; returns the last line that it prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.rpartition("\n")[0].rpartition("\n")[2]


def print_memory(config, scene, way):
    stations = dict([*config.scenes, config.large_scene])
    bench = Bench(config, scene, stations[scene], config.num_artefact_tracks)
    loaded = peak_memory()
    settings = {} if way == "pooled candidates" else {"candidate_spacing": 0.0}
    for _ in range(2):
        bench.trace(**settings)
    measured = {"loaded_gb": loaded, "peak_gb": peak_memory()}
    print(json.dumps({"num_positions": bench.tracks.position[..., 0].size, **measured}))


def peak_memory():
    """Largest resident memory of this process so far in gigabytes."""
    # getrusage would start at what the parent had.
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


def plot_tracing_benchmark(record, path):
    """Draws cost per snapshot of every way of tracing, and births and deaths by the solver.

    Args:
        record: dict or path, a record of `experiments/tracing_benchmark.py`.
        path: Path of the figure; the extension chooses the format.

    Raises:
        ValueError: If the record has no points of costs or of artefacts.
    """
    record = record if isinstance(record, dict) else records.read_record(record)
    parts = {}
    for point in record["points"]:
        parts.setdefault(point["part"], []).append(point)
    for name in ("cost", "artefacts"):
        if name not in parts:
            raise ValueError(
                f"The record has no points of the part {name!r}. Received: name="
                f"{record.get('name')!r}, parts={sorted(parts)}"
            )
    scenes = list(dict.fromkeys(point["scene"] for point in parts["artefacts"]))
    style = {"font.size": 8.5, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, 1 + len(scenes), width_ratios=(2.0, *[1.0] * len(scenes)))
        draw_costs(axes[0], parts["cost"])
        for panel, scene in zip(axes[1:], scenes, strict=True):
            panel.sharey(axes[1])
            draw_artefacts(panel, [p for p in parts["artefacts"] if p["scene"] == scene])
            panel.set_title(scene, fontsize=9)
        axes[1].set_ylabel("steps with a path born or dead\nthat geometry does not explain [%]")
        figure.legend(
            *axes[1].get_legend_handles_labels(), loc="outside lower right", ncols=3, frameon=False
        )
        with records.atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)


def draw_costs(axes, points):
    cost = np.array([point["cpu_ms_per_snapshot"] for point in points])
    place = np.arange(len(points))[::-1]
    color = [
        ORANGE if p["way"] == "loop" else BLUE if p.get("is_default") else GREY for p in points
    ]
    axes.barh(place, cost, color=color, height=0.7)
    labels = []
    for at, point in zip(place, points, strict=True):
        name = "loop of one receiver" if point["way"] == "loop" else point["way"]
        rays = f"{point['samples'] / 1e6:g}e6 rays"
        labels.append(f"{name}{' (default)' if point.get('is_default') else ''}, {rays}")
        axes.annotate(
            f"{point['cpu_ms_per_snapshot']:,.0f} ms, {point['error_median_db']:.0f} dB",
            (point["cpu_ms_per_snapshot"], at),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(place, labels)
    axes.set(xscale="log", xlim=(min(1.0, cost.min()), 20 * cost.max()))
    axes.set_xlabel("processor time per snapshot [ms]; behind it the median error")
    axes.set_title(points[0]["scene"], fontsize=9)


def draw_artefacts(axes, points):
    place = np.arange(len(LEVELS))
    for index, (way, label, color) in enumerate(WAYS):
        [point] = [point for point in points if point["way"] == way]
        share = [100 * point[f"share_{-level}db"] for level in LEVELS]
        # A sliver shows where the share is zero.
        shown = np.maximum(share, 0.4)
        axes.bar(place + 0.27 * (index - 1), shown, 0.25, color=color, label=label)
    axes.set_xticks(place, [f"{level}" for level in LEVELS])
    axes.set_xlabel("path at least [dB]")


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs") / f"{NAME}.json", help="record"
    )
    parser.add_argument("--figure", type=pathlib.Path, help="figure [the record's name, .png]")
    parser.add_argument(
        "--redraw", action="store_true", help="draw the record --out again, measure nothing"
    )
    parser.add_argument("--num-tracks", type=int, help="in place of 24: a smaller, rougher run")
    command_line.add_options(parser, "workdir")
    # What the script starts in processes of their own.
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--paths-to", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    config = BenchmarkConfig()
    if args.num_tracks is not None:
        few = min(args.num_tracks, config.num_artefact_tracks)
        config = dataclasses.replace(config, num_tracks=args.num_tracks, num_artefact_tracks=few)
    if args.memory_of is not None:
        print_memory(config, *args.memory_of)
        return
    if args.paths_to is not None:
        write_one_thread(config, args.paths_to)
        return
    figure = args.out.with_suffix(".png") if args.figure is None else args.figure
    if args.redraw:
        plot_tracing_benchmark(args.out, figure)
        return
    started = time.time()
    points = []
    parts = {"cost": measure_cost, "repeatability": measure_repeatability}
    parts |= {
        f"artefacts in {scene}": functools.partial(measure_artefacts, scene=scene, station=station)
        for scene, station in config.scenes
    }
    parts["memory"] = measure_memory
    # What was measured is kept as long as code, machine and settings are the same.
    here = {
        "config": dataclasses.asdict(config),
        "code": code_digest("lwmt_sionna.rt", "lwmt_sionna.data.synthesis"),
        "machine": records.machine_info(),
        "versions": records.package_versions(),
    }
    with RunFolder(command_line.workdir(args)) as folder:
        for part in progress_bar(parts, unit="part", show=False if args.quiet else None):
            points += folder.store.compute(
                here | {"part": part}, lambda part=part: list(parts[part](config))
            )
    records.write_record(
        args.out,
        name=NAME,
        config=config,
        points=points,
        seeds={"tracks": config.seed},
        inputs={},
        started=started,
    )
    plot_tracing_benchmark(args.out, figure)
    for point in points:
        print(
            ", ".join(
                f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in point.items()
            )
        )


if __name__ == "__main__":
    command_line.run(main)
