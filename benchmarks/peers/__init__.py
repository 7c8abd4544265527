"""Edgeway against other inference servers: one client, the same models, the same run."""
