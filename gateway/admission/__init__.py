"""Admission: how much time a request has, and whether there is room for it."""
