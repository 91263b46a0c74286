"""optax: functions that return a tree of labels and a transformation for ``optax.chain``.

Read from ``optax/transforms/_combining.py``. ``optax.partition`` takes a transformation for each
label and a function that returns the labels of a tree. The multipliers follow the optimizer, so
they scale its whole update, weight decay included. The paths of leaves are compared with ``.``
between their keys, whether the layout has ``.`` or ``/``.
"""

from __future__ import annotations

from advisor.export.patterns import regex
from advisor.export.python_source import docstring, quoted, raw, tuple_lines
from advisor.export.rows import (
    Export,
    ExportRow,
    Settings,
    Written,
    grouped,
    header,
    one_optimizer,
)

VERSION = "optax 0.2.9 (main of 2026-08-07, 2edbcbe)"
_CODE = '''
def _label(path, _leaf):
    name = jax.tree_util.keystr(path, simple=True, separator=".").replace("/", ".")
    plain = re.sub(r"\\.(raw_)?value$", "", name)  # where nnx keeps the array of a variable
    for pattern, label, _, _ in GROUPS:
        if re.search(pattern, name) or re.search(pattern, plain):
            return label
    raise ValueError(f"{name} has no multiplier in this file; export it again")


def param_labels(params):
    """Return the tree of labels of a tree of parameters.

    Raises:
        ValueError: A parameter has no multiplier: the file was written for a different model.
    """
    return jax.tree_util.tree_map_with_path(_label, params)


def partition(make):
    """Return a transformation that is different for each group.

    Args:
        make: Returns the transformation of a group, given its factors on the learning rate and on
            the weight decay.
    """
    return optax.partition({label: make(m, decay) for _, label, m, decay in GROUPS}, param_labels)
'''
_SCALE = '''

def scale_by_multipliers():
    """Return a transformation that follows an optimizer in `optax.chain`."""
    return partition(lambda multiplier, _: optax.scale(multiplier))
'''
_NO_SCALE = (
    "The weight decay is different for each group, so make the optimizer of each with `partition`"
)


def write(export: Export, settings: Settings) -> Written:
    """Return a Python module with the functions."""

    def key(row: ExportRow) -> tuple[float, float]:
        has_decay = settings.vectors_decay or not row.is_vector
        return row.factor, row.decay_factor if has_decay else 0.0

    groups = grouped(export.rows, key)
    rows = [
        (
            raw(regex([row.name.replace("/", ".") for row in rows])),
            quoted(f"group_{i}"),
            *map(repr, values),
        )
        for i, (values, rows) in enumerate(groups.items())
    ]
    scales_decay = all(decay == 1 for _, decay in groups)
    more = () if scales_decay else (_NO_SCALE,)
    lines = header(export, "optax", VERSION, *more)
    text = (
        docstring(lines) + "\nimport re\n\nimport jax\nimport optax\n\n"
        "# Names, a label, and factors on the learning rate and the weight decay.\n"
        f"GROUPS = [\n{tuple_lines(rows)}]\n\n" + _CODE + (_SCALE if scales_decay else "")
    )
    return Written(text, one_optimizer(export, settings, "a chain"))
