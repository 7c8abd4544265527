"""Memory of clients in which tensors lie: who may offer it, and who uses it."""
