"""Certificate roles: a file that gives names in client certificates a role in a project."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from advisor.auth.roles import Grant, Role
from fslr.client.file_watch import WatchedFiles

_log = structlog.get_logger()


class CertificateRolesError(Exception):
    """The file of certificate roles is missing or not valid."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    certificate: Annotated[str, Field(min_length=1, max_length=256)]
    project: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    role: Literal["viewer", "trainer", "operator"]

    def grant(self) -> Grant:
        return Grant(self.certificate, "certificate", self.project, Role[self.role.upper()])


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    roles: list[_Entry]


class CertificateRoles:
    """The certificate roles from a file, which is read again whenever it changes.

    If a changed file is not valid, the roles from before stay in use. The file is YAML::

        roles:
          - certificate: nightly.training.example   # common name or subject alternative name
            project: nlp
            role: trainer                           # viewer, trainer or operator

    Args:
        path: The file.

    Raises:
        CertificateRolesError: The file is missing or not valid when the object is created.
    """

    def __init__(self, path: Path) -> None:
        self._watched = WatchedFiles([path], partial(_read, path))

    def grant(self, names: Iterable[str]) -> Grant | None:
        """Return the grant of the first entry with one of the names, or None.

        Args:
            names: The names in a verified certificate.
        """
        self._refresh()
        wanted = set(names)
        return next((e.grant() for e in self._watched.current if e.certificate in wanted), None)

    def _refresh(self) -> None:
        try:
            was_read = self._watched.refresh()
        except CertificateRolesError as error:
            _log.error("the certificate roles from before stay in use", error=str(error))
            return
        if was_read:
            entries = len(self._watched.current)
            _log.info("the certificate roles were read again", entries=entries)


def _read(path: Path) -> list[_Entry]:
    try:
        return _File.model_validate(yaml.safe_load(path.read_text("utf-8"))).roles
    except OSError as error:
        raise CertificateRolesError(
            f"the certificate roles {path} cannot be read: {error.strerror}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CertificateRolesError(
            f"the certificate roles {path} are not valid: {where}: {first['msg']}; the file needs "
            "a list `roles` with a certificate, a project and a role in each entry"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CertificateRolesError(
            f"the certificate roles {path} are not YAML: {error}"
        ) from error
