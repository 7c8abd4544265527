"""A remote endpoint as a worker: the same surface as a process's link and supervisor, so that dispatch need not know.

A deployment whose manifest names it lets its tensors leave the device.
"""
