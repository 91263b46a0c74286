"""Layout files, as several commands read them."""

from __future__ import annotations

from pathlib import Path

from fslr.advisor.v1 import advisor_service_pb2, layout_pb2
from fslr.profile_files import load_fields, message_from_fields


def read_request(path: Path, profile: str) -> advisor_service_pb2.RecommendLRRequest:
    """Return the opening, and the measurement if there is one, from a layout file.

    Args:
        path: JSON or YAML: a list of names, a layout, a profile, or an opening with a measurement.
        profile: The profile that the opening names.

    Raises:
        ProfileFileError: The file cannot be read, or is not a layout.
    """
    fields = load_fields(path)
    what = f"{path} is not a layout"
    if isinstance(fields, list):
        fields = {"groups": [{"name": f} if isinstance(f, str) else f for f in fields]}
    request = advisor_service_pb2.RecommendLRRequest()
    if isinstance(fields, dict) and "opening" in fields:
        message_from_fields(fields, request, what)
    elif isinstance(fields, dict) and "points" in fields:
        request.opening.layout.CopyFrom(
            message_from_fields(fields.get("layout", {}), layout_pb2.Layout(), what)
        )
    else:
        request.opening.layout.CopyFrom(message_from_fields(fields, layout_pb2.Layout(), what))
    request.opening.profile = profile
    request.opening.run = ""  # an explanation must not be stored as a run
    return request
