"""Heat, load and memory of the device: sensors are read at the edge, what they mean is decided by pure functions."""
