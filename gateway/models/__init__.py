"""Models: manifests, files, versions on their way into traffic."""
