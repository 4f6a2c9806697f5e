"""From a request to an explicit CPU, written down: expand, resolve, write. Where it will run is
for `move`, whether it holds for `proof`.
"""
