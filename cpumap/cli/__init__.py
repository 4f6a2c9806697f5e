"""The command line: one module for each group of commands. Arguments in, one library call,
answer out.
"""
