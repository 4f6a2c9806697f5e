"""A host in any of its forms: described, lacking, or not described. What can be run there is
judged in `runnable`.
"""
