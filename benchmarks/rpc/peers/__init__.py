"""Other services that suggest numbers to training jobs, as scripts that do the same work.

Each script runs in an environment that may lack the dependencies of this project, so it imports
only ``benchmarks.rpc.callers``. It prints the suggestions per second of its service, each with a
report of the outcome.

Optuna can be installed next to this project (the extra ``peers``). OSS Vizier needs its own
environment with an older JAX (``google-vizier[jax] jax==0.4.34 jaxlib==0.4.34 flax==0.8.5
equinox==0.11.9 numpy<2.2``); pass its interpreter as ``--peer-python vizier=PATH``.
"""
