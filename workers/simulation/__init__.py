"""The simulated accelerator, apart from the runtime: options, script of faults, heat, fake sensors."""
