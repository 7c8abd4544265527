"""Dispatch: attempts on targets, the link to the workers, their processes."""
