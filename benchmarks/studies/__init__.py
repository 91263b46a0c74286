"""Questions around a transfer: what others do instead, which settings matter, what is better still.

Each study runs variants of a transfer on cases of ``benchmarks.transfer``. All are measured against
the same two sweeps: the base's, which gives the learning rate, and the big plain model's, which
gives the best loss that a search would have found.
"""
