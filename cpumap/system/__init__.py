"""The operating system: files, signals, processes, shipped data and templates. Nothing here
knows what a CPU is.
"""
