"""Megatron-LM: a dictionary from ``ParamKey`` to ``ParamGroupOverride``.

Read from ``megatron/core/optimizer/optimizer_config.py``, ``megatron/core/optimizer/__init__.py``
and ``megatron/core/optimizer_param_scheduler.py``. A key holds globs of names, learning rates are
absolute, and ``wd_mult`` is a factor. All keys that match a parameter are merged; two different
values for a setting raise an error. Megatron-LM itself sets ``wd_mult`` of biases and other vectors
to 0, so nothing is said about theirs. Names start with a ``module.`` for each wrapper of a model.
Layers are numbered within their pipeline stage.
"""

from __future__ import annotations

from advisor.export.patterns import globs
from advisor.export.python_source import docstring, quoted
from advisor.export.rows import Export, ExportRow, Settings, Written, grouped, header, significant

VERSION = "Megatron-LM core 0.20.0 (main of 2026-08-22, d98e8a6)"
_CODE = '''
# Globs of names, the largest and the smallest learning rate, and a factor on the weight decay.
# None: Megatron-LM's own.
OVERRIDES = [
{overrides}]
LAYERS_DIFFER = {layers_differ}  # whether the layers of a role have different values
_PREFIXES = ("", "module.", "module.module.")  # of DistributedDataParallel and Float16Module


def _key(globs):
    return ParamKey(name=tuple(prefix + glob for glob in globs for prefix in _PREFIXES))


def config_overrides(standard):
    """Return what `get_megatron_optimizer(config_overrides=...)` takes.

    Args:
        standard: `get_standard_config_overrides(config)`; these overrides are added to it.

    Raises:
        ValueError: Layers have different values, and layers of different pipeline stages have the
            same names.
    """
    if LAYERS_DIFFER and parallel_state.get_pipeline_model_parallel_world_size() > 1:
        raise ValueError("layers are numbered within pipeline stages; export with --per-role")
    found = dict(standard or {{}})
    for globs, max_lr, min_lr, wd_mult in OVERRIDES:
        values = {{"max_lr": max_lr, "min_lr": min_lr, "wd_mult": wd_mult}}
        given = {{name: value for name, value in values.items() if value is not None}}
        if given:
            found[_key(globs)] = ParamGroupOverride(**given)
    return found


def check(model_chunks):
    """Raise an error for a trainable parameter that has no learning rate in this file.

    Args:
        model_chunks: The model, as `get_megatron_optimizer` takes it.

    Raises:
        ValueError: There is such a parameter: the file was written for a different model.
    """
    keys = [_key(globs) for globs, *_ in OVERRIDES]
    for chunk in model_chunks:
        for name, parameter in chunk.named_parameters():
            if parameter.requires_grad and not any(key.matches(parameter, name) for key in keys):
                raise ValueError(f"{{name}} has no learning rate in this file; export it again")
'''
_IMPORTS = """
from megatron.core import parallel_state
from megatron.core.optimizer.optimizer_config import ParamKey
from megatron.core.optimizer_param_scheduler import ParamGroupOverride

"""


def write(export: Export, settings: Settings) -> Written:
    """Return a Python module with a function that returns the dictionary.

    Raises:
        ExportError: The base learning rate is unknown.
    """

    def key(row: ExportRow) -> tuple[float | None, float | None, float | None]:
        largest = settings.learning_rate_of(row)
        if row.factor == 1 and row.decay_factor == 1:
            return None, None, None
        smallest = significant(settings.min_learning_rate * row.factor)
        decay = None if row.is_vector or row.decay_factor == 1 else row.decay_factor
        return largest, smallest, decay

    overrides = ""
    for values, rows in grouped(export.rows, key).items():
        names = "".join(
            f"            {quoted(glob)},\n" for glob in globs([row.name for row in rows])
        )
        settings_text = ", ".join(map(repr, values))
        overrides += f"    (\n        (\n{names}        ),\n        {settings_text},\n    ),\n"
    by_role = grouped(export.rows, lambda row: row.role)
    layers_differ = any(len(set(map(key, rows))) > 1 for rows in by_role.values())
    lines = header(
        export,
        "Megatron-LM",
        VERSION,
        "Biases and other vectors keep Megatron-LM's own weight decay, which is none by default",
        "They conflict with --decoupled-lr and with Megatron-LM's own muP, which set the same "
        "values",
    )
    code = _CODE.format(overrides=overrides, layers_differ=layers_differ)
    return Written(docstring(lines) + _IMPORTS + code.lstrip("\n"), _losses(export, settings))


def _losses(export: Export, settings: Settings) -> tuple[str, ...]:
    names = dict.fromkeys(settings.optimizer_of(row) for row in export.rows)
    if len(names) == 1:
        return ()
    loss = (
        "these overrides do not choose optimizers, and the parameters are updated by "
        f"{', '.join(names)}; choose them in Megatron-LM, and give --allow-loss"
    )
    return (loss,)
