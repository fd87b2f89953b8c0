import subprocess
from pathlib import Path


class Certificates:
    """An authority, and what it signed; all files are PEM."""

    def __init__(self, openssl: Path, folder: Path) -> None:
        self.ca = folder / "ca.pem"
        self._openssl = openssl
        self._folder = folder
        self._run(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority",
        )  # fmt: skip
        self.server, self.server_key = self.sign("server", "DNS:localhost,IP:127.0.0.1")
        self.other, self.other_key = self.sign("other", "DNS:other.example")
        self.client, self.client_key = self.sign("client", "DNS:client")

    def sign(self, name: str, names: str) -> tuple[Path, Path]:
        self._run(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
            "-addext", f"subjectAltName={names}",
        )  # fmt: skip
        self._run(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-copy_extensions", "copy", "-days", "2", "-out", f"{name}.pem",
        )  # fmt: skip
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def encrypt(self, key: Path) -> Path:
        encrypted = key.with_suffix(".encrypted")
        self._run("ec", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(encrypted))
        return encrypted

    def _run(self, *arguments: str) -> None:
        command = [str(self._openssl), *arguments]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)
