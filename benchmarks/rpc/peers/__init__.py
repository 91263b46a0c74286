"""Other services that give training jobs numbers, on the same work.

Each script runs alone, in an environment that may hold nothing of this project, and prints how many
suggestions of 100 parameters, each with a report of what came of it, its service gives in a second.

Optuna installs beside this project (the extra ``peers``). OSS Vizier wants an environment of its
own with an older JAX (``google-vizier[jax] jax==0.4.34 jaxlib==0.4.34 flax==0.8.5 equinox==0.11.9
numpy<2.2``); its interpreter is named with ``--peer-python vizier=PATH``.
"""
