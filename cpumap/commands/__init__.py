"""The commands: arguments in, one library call, answer out. `cpumap.cli` finds them by name."""
