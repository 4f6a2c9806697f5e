"""Whether a CPU can be run, and why not; what can be enabled. Nothing here changes a document."""
