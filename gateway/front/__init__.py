"""Front doors: gRPC to nouns and back. Nothing else in the gateway sees a gRPC context."""
