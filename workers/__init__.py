"""Worker processes: one per accelerator, each driving one backend."""
