"""Where model files come from: one file per kind of place, all behind ``source.Source``."""
