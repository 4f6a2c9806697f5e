"""The frozen values that flow through cpumap. No I/O and no third-party import: what makes and
reads them is elsewhere.
"""
