"""Engines of NVIDIA's TensorRT, apart from the backend: who builds and runs them, and where they are kept."""
