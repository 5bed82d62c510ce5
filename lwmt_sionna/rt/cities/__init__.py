"""Cities built from a few parameters and a seed. NumPy alone."""

from lwmt_sionna.rt.cities.kinds import CITIES, build_city, city_config

__all__ = ["CITIES", "build_city", "city_config"]
