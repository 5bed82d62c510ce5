"""What every test gets: fixed seeds, quiet libraries, and a word on ray tracing."""

import contextlib
import importlib.metadata
import os
import random
import resource
import sys

# Libraries read these at import, and this file is imported first.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("MPLBACKEND", "Agg")
# Processes that share the cores do not each start a thread per core, and sums are added in the same
# order everywhere: the path fit turns other rounding into differences of 1e-4.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import hypothesis
import numpy as np
import pytest

from lwmt_sionna.rt.tracing.llvm import find_libllvm
from lwmt_sionna.runs.compilation import keep_compiled

# Before anything imports TensorFlow: what one worker has compiled, the others need not.
keep_compiled()

SEED = 42

# Examples are drawn anew from one seed, without a deadline: the machine may be slow, and the first
# call of a compiled function always is.
EAGER = os.environ["KERAS_BACKEND"] == "torch"  # and an example of a path fit takes a second
hypothesis.settings.register_profile(
    "lwmt", deadline=None, derandomize=True, max_examples=10 if EAGER else 100
)
hypothesis.settings.load_profile("lwmt")


def missing_for_ray_tracing():
    """Returns what ray tracing lacks here, or `None`. Imports neither Sionna RT nor Mitsuba."""
    try:
        importlib.metadata.version("sionna-rt")
    except importlib.metadata.PackageNotFoundError:
        return 'sionna-rt is not installed: pip install -e ".[rt]"'
    if find_libllvm() is None:
        return "no LLVM library: apt-get install libllvm19"
    return None


def ray_tracing_is_required():
    """Tells whether a missing ray tracer fails its tests in place of skipping them."""
    return any(os.environ.get(name) in ("1", "true") for name in ("LWMT_REQUIRE_RT", "CI"))


def check_ray_tracing():
    missing = missing_for_ray_tracing()
    if missing is None:
        return
    if ray_tracing_is_required():
        pytest.fail(f"ray tracing is required here, but {missing}", pytrace=False)
    pytest.skip(missing)


def pytest_runtest_setup(item):
    if item.get_closest_marker("rt") is not None:
        check_ray_tracing()


@pytest.fixture(scope="session")
def requires_rt():
    """Skips without ray tracing, or fails in CI. For fixtures; tests carry the marker `rt`."""
    check_ray_tracing()


@pytest.fixture(autouse=True)
def seeds():
    """Resets every random stream, so that a test gives the same result alone and in the suite."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - libraries under test draw from it
    # A test must not import TensorFlow only to seed it.
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(SEED)
    if "sionna.phy" in sys.modules:
        sys.modules["sionna.phy"].config.seed = SEED


@pytest.fixture
def rng():
    """A numpy generator of its own for each test."""
    return np.random.default_rng(SEED)


@pytest.fixture
def full_disk():
    """A context in which no file grows beyond some bytes: a full disk, without one."""

    @contextlib.contextmanager
    def limited(num_bytes):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def saved_figures(monkeypatch):
    """The figures of matplotlib that a test saves, for a look at what they show."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig

    def keep(self, *arguments, **options):
        figures.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


@pytest.fixture
def eagerly():
    """For a handful of sequences, and for models called once or twice, compiling does not pay."""
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


if os.environ["KERAS_BACKEND"] == "torch":
    import torch

    # Other backends give NumPy what a model returns; PyTorch wants to be asked to forget gradients.
    as_array = torch.Tensor.__array__
    torch.Tensor.__array__ = lambda self, *dtype, **options: as_array(
        self.detach(), *dtype, **options
    )
