"""An explicit CPU taken to another QEMU or machine type, and what will differ there. What really
differs is measured in `proof`.
"""
