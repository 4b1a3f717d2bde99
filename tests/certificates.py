"""Certificates made for one test."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

OF_NO_AUTHORITY = ("-addext", "basicConstraints=CA:FALSE")
FOR_LOCALHOST = ("-addext", "subjectAltName=IP:127.0.0.1", *OF_NO_AUTHORITY)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of the test's own."""

    folder: Path
    name: str = "ca"

    def create(self) -> Authority:
        self._openssl("req", "-x509", *self._key(self.name), "-subj", f"/CN={self.name}", "-out", f"{self.name}.pem")
        return self

    def issue(self, name: str, *extra: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        signed = ("-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", *extra)
        self._openssl("req", "-x509", *self._key(name), "-subj", f"/CN={name}", *signed, "-out", f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    @staticmethod
    def _key(name: str) -> tuple[str, ...]:
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
