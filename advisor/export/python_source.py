"""Parts of the Python files that exports write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from textwrap import wrap

_WIDTH = 98


def docstring(lines: Sequence[str]) -> str:
    """Return a module's docstring of sentences, the first one on its own line."""
    first, *rest = (line.replace("\\", "\\\\").replace('"""', "'''") for line in lines)
    body = "".join(f"\n{wrapped}" for line in rest for wrapped in wrap(line, _WIDTH))
    return f'"""{first}\n{body}\n"""\n' if rest else f'"""{first}"""\n'


def quoted(text: str) -> str:
    """Return a text as a string in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def raw(pattern: str) -> str:
    """Return a regular expression as a raw string, or as a plain one if that is not possible."""
    if '"' in pattern or "\n" in pattern or pattern.endswith("\\"):
        return repr(pattern)
    return f'r"{pattern}"'


def tuple_lines(rows: Iterable[Sequence[str]]) -> str:
    """Return the lines of a list of tuples, given the source of their parts."""
    return "".join(f"    ({', '.join(row)}),\n" for row in rows)


PARAMETERS_BY_GROUP = '''
_WRAPPERS = re.compile(
    r"(?:^|(?<=\\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\\."
)


def parameters_by_group(model):
    """Return the names and parameters of each of GROUPS.

    Raises:
        ValueError: A trainable parameter belongs to no group, or a group has no parameter: the
            file was written for a different model.
    """
    patterns = [re.compile(pattern) for pattern, *_ in GROUPS]
    found = [[] for _ in GROUPS]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        short = _WRAPPERS.sub("", name)
        while True:
            group = next((i for i, p in enumerate(patterns) if p.search(short)), None)
            if group is not None or not short.startswith("module."):
                break
            short = short.removeprefix("module.")
        if group is None:
            raise ValueError(f"{name} has no learning rate in this file; export it again")
        found[group].append((name, parameter))
    for (pattern, *_), parameters in zip(GROUPS, found):
        if not parameters:
            raise ValueError(f"no parameter matches {pattern!r} of this file; export it again")
    return found
'''
