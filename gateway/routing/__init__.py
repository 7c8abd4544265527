"""Routing: name to deployment, split to version, ranking of targets."""
