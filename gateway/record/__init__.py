"""Record: what happened to each request, once, after its answer is on its way."""
