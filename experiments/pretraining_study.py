"""What each mask of the curriculum is worth, or, at equal time, curriculum, masks and attention.

By default every contestant is pretrained with the same data, model, seed and number of steps: one
mask left out at a time, and random masking alone. With `--seconds` they get the same processor time
instead: curriculum, random masks alone, dense attention and neighbours drawn at random, held
against interpolation, a fit of paths and shipped presets; and with `--gigabytes` the longest
history is looked for that a training step can take in so much memory. Errors are those of the
hidden tokens, on held-out tracks of the training scenes, on scenes never trained on and, at equal
time, on new random clusters. A killed study goes on where it stopped; the record is written after
every contestant.

Example:
    python experiments/pretraining_study.py --config experiments/configs/pretrain_small.toml \\
        --held-out experiments/data/*.h5 --out experiments/results/pretraining.json
    python experiments/pretraining_study.py --config experiments/configs/pretrain_tiny.toml \\
        --seconds 300 --gigabytes 8 --preset base --held-out experiments/data/*.h5 --limit 32 \\
        --out experiments/results/pretraining_equal_time.json
"""

import dataclasses
import functools
import math
import multiprocessing
import pathlib
import time

from lwmt_sionna.runs import command_line

# Timed steps of each contestant.
ROUNDS = 5
# How close the longest history is told: the next one tried is longer by no more than this.
CLOSE = 1.1


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a PretrainConfig"
    )
    parser.add_argument(
        "--held-out", nargs="*", default=[], help="HDF5 files of scenes that nothing is trained on"
    )
    command_line.add_options(parser, "limit", limit=128)
    command_line.add_options(parser, "preset", preset=[])
    parser.add_argument("--contestants", nargs="+", help="some of them; all by default")
    parser.add_argument("--seconds", type=float, help="processor time of each, in place of steps")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds of the trainings [configured]")
    parser.add_argument("--gigabytes", type=float, help="memory of the longest history")
    parser.add_argument("--workdir", type=pathlib.Path, help="trainings [runs/pretraining_study]")
    parser.add_argument("--out", type=pathlib.Path, help="record to write [WORKDIR/record.json]")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.models.presets import preset_folder
    from lwmt_sionna.runs import records
    from lwmt_sionna.training import PretrainConfig
    from lwmt_sionna.training.studies import (
        CONDITIONS,
        ablations,
        equal_time_contestants,
        run_tasks,
    )

    config = PretrainConfig.from_toml(args.config)
    workdir = args.workdir or pathlib.Path("runs/pretraining_study")
    contestants = equal_time_contestants(config) if args.seconds else ablations(config)
    if args.contestants:
        unknown = sorted(set(args.contestants) - set(contestants))
        if unknown:
            raise command_line.UsageError(
                f"expected some of {', '.join(contestants)}. Received: {', '.join(unknown)}"
            )
        contestants = {n: c for n, c in contestants.items() if n in args.contestants}
    conditions, extra = CONDITIONS, {}
    if args.seconds:
        conditions = {name: CONDITIONS[name] for name in config.curriculum.masks}
        contestants, extra["times"] = at_equal_time(contestants, args.seconds, workdir)
    seeds = args.seeds or [config.seed]
    study = Study(args, config, conditions)
    tasks = {
        name if seed == config.seed else f"{name}_seed{seed}": functools.partial(
            study.train, name, dataclasses.replace(changed, seed=seed)
        )
        for seed in seeds
        for name, changed in contestants.items()
    }
    if args.seconds:
        tasks |= {f"preset_{name}": functools.partial(study.judge, name) for name in args.preset}
        tasks |= {
            name: functools.partial(study.fill, name) for name in ("interpolation", "path_fit")
        }
    if args.gigabytes:
        tasks |= {
            f"longest_{kind}": functools.partial(longest_history, config, kind, args.gigabytes)
            for kind in ("ssta", "dense", "random")
        }

    def write(points):
        records.write_record(
            args.out or workdir / "record.json",
            name="pretraining_equal_time" if args.seconds else "pretraining",
            config=config.to_dict(),
            points=[p for p in points if "condition" in p],
            seeds=seeds,
            inputs={
                **{f"preset_{name}": preset_folder(name) for name in args.preset},
                **{pathlib.Path(n).stem: n for n in (*config.source.data, *args.held_out)},
            },
            started=started,
            extra={
                "conditions": {name: c.to_dict() for name, c in conditions.items()},
                **extra,
                **({"longest": [p for p in points if "attention" in p]} if args.gigabytes else {}),
            },
        )

    points = [p for p in run_tasks(tasks, workdir, write) if "condition" in p]
    for name in dict.fromkeys(p["contestant"] for p in points):
        row = [
            sum(p["nmse_pooled_db"] for p in mine) / len(mine)
            for condition in conditions
            for mine in [
                [p for p in points if (p["contestant"], p["condition"]) == (name, condition)]
            ]
        ]
        print(f"{name:<24}" + " ".join(f"{c} {v:.2f}" for c, v in zip(conditions, row)))


def at_equal_time(contestants, seconds, workdir):
    """Contestants with as many steps as take the time, and what a step takes of each."""
    from lwmt_sionna.runs.store import Store
    from lwmt_sionna.training.studies import measure_steps

    store = Store(workdir / "times")
    key = {name: config.to_dict() for name, config in contestants.items()}
    spent = store.compute(key, lambda: measure_steps(contestants, ROUNDS))
    changed, told = {}, []
    for name, config in contestants.items():
        steps = max(1, round(seconds / spent[name]))
        settings = dataclasses.replace(config.optimization, steps=steps)
        changed[name] = dataclasses.replace(config, optimization=settings)
        told.append(
            {"contestant": name, "step_s": spent[name], "steps": steps, "budget_s": seconds}
        )
    return changed, told


class Study:
    """Trains and judges contestants on the same views."""

    def __init__(self, args, config, conditions):
        from lwmt_sionna.data import read_paths, vanishing_mask
        from lwmt_sionna.training import load_scenes
        from lwmt_sionna.training.studies import thin_out

        source = config.source
        self.args, self.config, self.conditions = args, config, conditions
        self.scenes, held_out = load_scenes(source.data, source.validation_share, source.split_seed)
        test_sets = {f"{paths.scene}, held-out tracks": paths for paths in held_out}
        for name in args.held_out:
            paths = read_paths(name)
            kept = paths.select(~vanishing_mask(paths))
            test_sets[f"{pathlib.Path(name).stem}, held-out scene"] = kept
        if args.seconds:
            test_sets["new clusters"] = self._clusters()
        self.test_sets = thin_out(test_sets, args.limit, source.split_seed)
        self.bandwidth = (source.bandwidth[0] * source.bandwidth[1]) ** 0.5
        self._views = {}

    def _clusters(self):
        """Clusters that no training draws: their seed is no number of a pool."""
        import numpy as np

        from lwmt_sionna.data import draw_clusters

        source = self.config.source
        rng = np.random.default_rng([source.split_seed, 3])
        length, period = source.grids[0][0], sorted(source.sampling_period)
        period = period[len(period) // 2]
        return draw_clusters(self.args.limit, length, period, rng, self.config.clusters)

    def train(self, name, config, folder):
        """Points of a contestant that is trained."""
        from lwmt_sionna.training import train

        began = time.process_time()
        verbose = 0 if self.args.quiet else "auto"
        model, outcome = train(config, folder, data=self.scenes, verbose=verbose)
        spent = time.process_time() - began
        history = outcome["history"]
        told = {"seed": config.seed, "train_loss": history[-1]["loss"]}
        told |= {"train_cpu_s": round(spent, 1)}
        self._save(model, config, folder, history)
        return self._judged(name, model, told)

    def _save(self, model, config, folder, history):
        """A preset that knows how it was trained."""
        from lwmt_sionna.runs import records

        training = {
            "config": config.to_dict(),
            "history": history,
            "versions": records.package_versions(),
            "machine": records.machine_info(),
        }
        model.save_to_preset(folder / "preset", metadata={"training": training})

    def judge(self, preset, _folder):
        """Points of a preset that was trained elsewhere."""
        from lwmt_sionna.models import MaskedChannelModel

        return self._judged(preset, MaskedChannelModel.from_preset(preset), {"seed": None})

    def _judged(self, name, model, told):
        from lwmt_sionna.training.studies import reconstruction_study_points

        patch = tuple(self.config.model.patch)
        if tuple(model.backbone.patch) != patch:
            raise command_line.UsageError(
                f"{name}: the views are made of patches of another size; expected patch={patch}. "
                f"Received: patch={model.backbone.patch}"
            )
        points = reconstruction_study_points(
            model,
            self.test_sets,
            self.config.source.grids[0],
            self.bandwidth,
            self.conditions,
            self._views,
        )
        return [{"contestant": name, **told, **point} for point in points]

    def fill(self, name, _folder):
        """Points of what has no network."""
        from lwmt_sionna.baselines.reconstruction import PathFilling, interpolate_view
        from lwmt_sionna.training.studies import draw_views, guess_points

        patch = tuple(self.config.model.patch)
        fill = interpolate_view if name == "interpolation" else PathFilling()
        began, points = time.process_time(), []
        for test_set, paths in self.test_sets.items():
            if test_set not in self._views:
                self._views[test_set] = draw_views(
                    paths, self.config.source.grids[0], self.bandwidth, self.conditions, patch
                )
            found = guess_points(lambda view: fill(view, patch), self._views[test_set], patch)
            points += [{"contestant": name, "test_set": test_set, **point} for point in found]
        return [{"cpu_s": round(time.process_time() - began, 1), **point} for point in points]


def longest_history(config, kind, gigabytes, _folder):
    """The largest number of snapshots whose training step stays below so much memory."""
    model = dataclasses.replace(config.model, attention=kind)
    config = dataclasses.replace(config, model=model).to_dict()
    # Four times the configured history to begin with.
    fits, fails, count = {}, math.inf, 4 * config["source"]["grids"][0][0]
    while True:
        peak = peak_gigabytes(config, count, gigabytes)
        if peak is None:
            fails = count
        else:
            fits[count] = peak
        if not fits:
            count //= 2
            continue
        low = max(fits)
        if fails <= max(CLOSE * low, low + 1):
            told = {"attention": kind, "snapshots": low, "peak_gb": fits[low]}
            return [told | {"fails": fails, "limit_gb": gigabytes}]
        # Along the line through the last two, which memory follows or rises above.
        guess = 2 * low
        if len(fits) > 1:
            before = sorted(fits)[-2]
            slope = (fits[low] - fits[before]) / (low - before)
            guess = low + (0.97 * gigabytes - fits[low]) / max(slope, 1e-6)
        top = 4 * low if fails == math.inf else min(fails - 1, (low + fails) // 2)
        count = int(min(max(guess, CLOSE * low, low + 1), top))


def peak_gigabytes(config, num_snapshots, most):
    """Peak of the resident memory of a process that takes one step; None beyond the most."""
    process = multiprocessing.get_context("spawn").Process(
        target=take_step, args=(config, num_snapshots), daemon=True
    )
    process.start()
    peak = 0.0
    while process.is_alive():
        peak = max(peak, resident_gigabytes(process.pid))
        if peak > most:
            process.kill()
        process.join(0.05)
    if peak > most:
        return None
    if process.exitcode != 0:
        raise RuntimeError(f"A step on {num_snapshots} snapshots failed: see above")
    return peak


def resident_gigabytes(pid):
    """Most memory that a process has had so far; 0 once it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max(
        (int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM")), default=0.0
    )


def take_step(config, num_snapshots):
    """One training step of a sequence, forward and backward."""
    import numpy as np

    from lwmt_sionna.training import PretrainConfig
    from lwmt_sionna.training.optimization import DataParallel

    grid = (num_snapshots, *config["source"]["grids"][0][1:])
    config["source"]["grids"] = [grid]
    config["optimization"]["batch_size"] = 1
    config = PretrainConfig.from_dict(config)
    task = config.prepare(config.build(), DataParallel(1))
    h = np.random.default_rng(0).standard_normal((1, *grid, 2), np.float32)
    scales = {"sampling_period": 2.5e-3, "bandwidth": 2e7, "progress": 1.0}
    inputs = {"h": h} | {name: np.full(1, value, np.float32) for name, value in scales.items()}
    task.models[grid].train_on_batch(inputs, np.zeros(1, np.float32))


if __name__ == "__main__":
    command_line.run(main)
