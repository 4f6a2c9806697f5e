"""Many guests at once: converted, locked, audited, reported. What one guest needs is in the
packages above.
"""
