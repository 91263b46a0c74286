"""optax: functions that return a tree of labels and a transformation for ``optax.chain``.

Read from ``optax/transforms/_combining.py``. ``optax.partition`` takes a transformation for each
label and a function that returns the labels of a tree. The multipliers follow the optimizer, so
they scale its whole update, weight decay included. The paths of leaves are compared with ``.``
between their keys, whether the layout has ``.`` or ``/``.

An array that stacks layers, as those of a scan do, has one path, and the layout a name for each
layer with its number in it. The multipliers of its layers are an array along that axis. A label
holds for the whole array, so ``optax.partition`` needs equal values.
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
def _row(name):
    return next((row for row in GROUPS if re.search(row[0], name)), None)


def _rows(path, leaf, stacked_axis=0):
    """Return the name of a leaf and its row of GROUPS, or those of the layers that it stacks."""
    name = jax.tree_util.keystr(path, simple=True, separator=".").replace("/", ".")
    plain = re.sub(r"\\.(raw_)?value$", "", name)  # where nnx keeps the array of a variable
    row = _row(name) or _row(plain)
    if row is not None:
        return name, [row]
    parts = plain.split(".")
    for place in range(1, len(parts)):
        before, after = parts[:place], parts[place:]
        rows = []
        while row := _row(".".join([*before, str(len(rows)), *after])):
            rows.append(row)
        if rows and leaf.shape[stacked_axis : stacked_axis + 1] == (len(rows),):
            return name, rows
        if rows:
            raise ValueError(
                f"{name} has the shape {leaf.shape}, and this file has {len(rows)} layers for "
                f"axis {stacked_axis}; export it again, or name the axis that counts layers"
            )
    raise ValueError(f"{name} has no multiplier in this file; export it again")


def _label(path, leaf):
    name, rows = _rows(path, leaf)
    if len({label for _, label, _, _ in rows}) > 1:
        raise ValueError(
            f"{name} stacks {len(rows)} layers whose values differ, and an array has one label; "
            "OTHER"
        )
    return rows[0][1]


def param_labels(params):
    """Return the tree of labels of a tree of parameters.

    Raises:
        ValueError: A parameter has no multiplier, because the file was written for a different
            model; or it stacks layers whose values differ.
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

def scale_by_multipliers(stacked_axis=0):
    """Return a transformation that follows an optimizer in `optax.chain`.

    Args:
        stacked_axis: The axis that counts layers, of arrays that stack them.
    """

    def scaled(path, update):
        _, rows = _rows(path, update, stacked_axis)
        factors = [multiplier for _, _, multiplier, _ in rows]
        if len(factors) == 1:
            return factors[0] * update
        shape = [len(factors) if axis == stacked_axis else 1 for axis in range(update.ndim)]
        return jax.numpy.asarray(factors, update.dtype).reshape(shape) * update

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))
'''
_PER_ROLE = "export it again with --per-role"
_OTHERWISE = f"use scale_by_multipliers, or {_PER_ROLE}"
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
        f"GROUPS = [\n{tuple_lines(rows)}]\n\n"
        + _CODE.replace("OTHER", _OTHERWISE if scales_decay else _PER_ROLE)
        + (_SCALE if scales_decay else "")
    )
    return Written(text, one_optimizer(export, settings, "a chain"))
