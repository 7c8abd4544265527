"""The demonstration: a camera, a gateway, and an accelerator that gets busy, hot and killed."""
