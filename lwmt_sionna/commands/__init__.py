"""Commands of the program `lwmt` (see `lwmt_sionna.__main__`), each a `main(argv)` of its own."""
