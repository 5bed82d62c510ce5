"""How block errors are told, and where a decoder stops failing."""
