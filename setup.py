"""What pyproject.toml cannot say: wheels hold files that a checkout has beside the package."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

# Found by `lwmt_sionna.runs.shipped`.
SHIPPED = (
    "experiments/configs/**/*.toml",
    "experiments/data/*.h5",
    "scenes/*/city.*",
    "scenes/*/scene.xml",
    "scenes/*/meshes/*.ply",
)


class BuildWithFiles(build_py):
    """Copies the files into the package, unless it is installed as a link to the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = pathlib.Path(self.build_lib, "lwmt_sionna", "shipped")
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        for pattern in SHIPPED:
            for file in pathlib.Path().glob(pattern):
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / file)


setup(cmdclass={"build_py": BuildWithFiles})
