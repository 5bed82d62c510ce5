"""What the configurations of all cities share."""

import dataclasses
from typing import ClassVar

import numpy as np

from lwmt_sionna.rt.city_parts import City
from lwmt_sionna.rt.scene_files import MATERIALS

__all__ = ["CityConfig"]

# Pairs that are extents along x and y; all other pairs are ranges.
_SIZES = ("blocks", "block_size", "lot_size", "size", "street_widths")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CityConfig:
    """What all cities share.

    Attributes:
        kind: Key of `lwmt_sionna.rt.cities.CITIES`.
        seed: Seed of everything random.
        facades: Materials to draw a building's from, keys of `scene_files.MATERIALS`.
        ground: Material of streets and squares.
        margin: Open ground beyond the outermost buildings in metres.
    """

    KIND: ClassVar[str] = ""

    kind: str = ""
    seed: int = 1
    facades: tuple = ("brick", "concrete", "glass", "marble")
    ground: str = "concrete"
    margin: float = 15.0

    def __post_init__(self):
        if self.kind not in ("", self.KIND):
            raise ValueError(f"kind must be {self.KIND!r}. Received: kind={self.kind!r}")
        object.__setattr__(self, "kind", self.KIND)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "facades":
                object.__setattr__(self, field.name, tuple(value))
                if isinstance(value, str) or not value or not set(value) <= set(MATERIALS):
                    raise ValueError(
                        f"facades must be some of {', '.join(sorted(MATERIALS))}. Received: "
                        f"facades={value}"
                    )
            elif field.name in ("ground", "lawn"):
                if value not in MATERIALS:
                    raise ValueError(
                        f"{field.name} must be one of {', '.join(sorted(MATERIALS))}. Received: "
                        f"{field.name}={value!r}"
                    )
            elif isinstance(field.default, tuple):
                object.__setattr__(self, field.name, _pair(field.name, value))
            elif isinstance(field.default, int | float):
                whole = isinstance(field.default, int)
                if not isinstance(value, int if whole else int | float) or value < 0:
                    raise ValueError(
                        f"{field.name} must be a {'whole ' * whole}number of at least 0. "
                        f"Received: {field.name}={value!r}"
                    )

    def layout(self):
        """Lays the city out.

        Returns:
            `lwmt_sionna.rt.city_parts.City`.
        """
        city = City()
        self._lay_out(city, np.random.default_rng(self.seed))
        return city

    def _lay_out(self, city, rng):
        raise NotImplementedError

    def _facade(self, rng):
        return self.facades[rng.integers(len(self.facades))]


def _pair(name, value):
    is_range = name not in _SIZES
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    if (
        not is_pair
        or not all(isinstance(v, int | float) and v > 0 for v in value)
        or (is_range and value[0] > value[1])
    ):
        wanted = "(lowest, highest)" if is_range else "(along x, along y)"
        raise ValueError(f"{name} must be two positive numbers {wanted}. Received: {name}={value}")
    return tuple(value)
