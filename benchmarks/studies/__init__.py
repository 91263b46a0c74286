"""Studies of transfer: ablations of its settings, and ideas to improve it.

Each study trains variants on the cases of ``benchmarks.transfer`` and compares them with two
sweeps: that of the base, which gives the learning rate, and that of the plain big model, which
gives the best loss that a search would find. The sweeps themselves live in ``benchmarks.transfer``.
"""
