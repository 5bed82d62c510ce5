"""Scenes as they lie on the disk: names, XML files with radio materials, meshes. NumPy alone."""
