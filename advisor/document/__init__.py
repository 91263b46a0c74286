"""A run's report as a file: HTML with pictures, from the rows of :mod:`advisor.report`.

Nothing here computes figures, talks to a service or parses a command line.
"""
