"""Which role in which project a client certificate's name stands for: a file that people write."""

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
    """The file cannot be used."""


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
    """The roles of certificates; follows its file, and a broken one leaves the last good roles.

    The file is YAML::

        roles:
          - certificate: nightly.training.example   # subject's common name, or an alternative one
            project: nlp
            role: trainer                           # viewer, trainer or operator

    Args:
        path: Where it is.

    Raises:
        CertificateRolesError: It cannot be used at the start.
    """

    def __init__(self, path: Path) -> None:
        self._watched = WatchedFiles([path], partial(_read, path))

    def grant(self, names: Iterable[str]) -> Grant | None:
        """Return what the first entry that has one of the names gives, or None.

        Args:
            names: The names in a certificate that was verified.
        """
        self._refresh()
        wanted = set(names)
        return next((e.grant() for e in self._watched.current if e.certificate in wanted), None)

    def _refresh(self) -> None:
        try:
            was_read = self._watched.refresh()
        except CertificateRolesError as error:
            _log.error("the last good roles of certificates stay in use", error=str(error))
            return
        if was_read:
            entries = len(self._watched.current)
            _log.info("the roles of certificates were read again", entries=entries)


def _read(path: Path) -> list[_Entry]:
    try:
        return _File.model_validate(yaml.safe_load(path.read_text("utf-8"))).roles
    except OSError as error:
        raise CertificateRolesError(
            f"the roles of certificates {path} cannot be read: {error.strerror}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CertificateRolesError(
            f"the roles of certificates {path} cannot be used: {where}: {first['msg']}; "
            "it is YAML with a list `roles` of certificate, project and role"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CertificateRolesError(
            f"the roles of certificates {path} are not YAML: {error}"
        ) from error
