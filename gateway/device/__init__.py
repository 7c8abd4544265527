"""The device: what it has and how it is."""
