"""What the base station knows of its users' channels: drops, soundings, policies."""
