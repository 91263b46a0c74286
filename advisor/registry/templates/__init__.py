"""Template profiles: recorded from small models, each with a written guideline.

``python -m benchmarks templates`` generates them.
"""

from __future__ import annotations

from importlib import resources

from fslr.advisor.v1 import profile_pb2
from fslr.profile_files import load_profile

_SUFFIX = ".yaml"


def template_names() -> list[str]:
    """Return the names of the templates, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX))


def load_template(name: str) -> profile_pb2.ProfileContent:
    """Return the content of a template.

    Args:
        name: One of :func:`template_names`.
    """
    with resources.as_file(resources.files(__name__).joinpath(name + _SUFFIX)) as path:
        return load_profile(path)
