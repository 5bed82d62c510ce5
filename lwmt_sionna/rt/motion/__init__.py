"""Users and objects that move: tracks, routes, drives, trips from files. NumPy alone.

What they need of the scene, its ground and its walls, they ask of a `Terrain`.
"""
