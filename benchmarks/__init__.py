"""Where every figure of the documentation comes from: ``python -m benchmarks``."""
