"""The benchmarks behind every figure of the documentation: ``python -m benchmarks``.

Modules here measure, study or report; code that users need belongs into ``fslr`` or ``advisor``.
"""
