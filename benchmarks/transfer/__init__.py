"""The transfer benchmark: sweeps of learning rates on small and on big models.

``cases.py`` is the table of cases, ``sweeps.py`` trains them. Studies that compare more methods
live in ``benchmarks.studies``, and pages about the results in ``benchmarks.report``.
"""
