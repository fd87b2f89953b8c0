import ssl
from pathlib import Path


def tls_context(
    *, ca_file: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """A context for TLS 1.2 or later and HTTP/1.1, which verifies the peer's certificate.

    It trusts the system's certificates, or only those in `ca_file`. `cert` and `key` are the client
    certificate; the key may be in the certificate's file. All files are read now; raises
    ValueError with one sentence for those that cannot be used.
    """
    if key is not None and cert is None:
        raise ValueError("There is a client key, but no client certificate.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is None:
        context.load_default_certs()
        # Certificates in a folder are read only when needed.
        if not context.cert_store_stats()["x509"] and not _has_files(
            ssl.get_default_verify_paths().capath
        ):
            raise ValueError(
                "This machine has no CA certificates: install them, or name a file of them."
            )
    else:
        _readable(ca_file, "CA file")
        try:
            context.load_verify_locations(ca_file)
        except (ssl.SSLError, ValueError):
            raise ValueError(
                f"The CA file {_shown(ca_file)} holds no certificate in PEM form."
            ) from None
    if cert is not None:
        _load_client_certificate(context, cert, key)
    return context


def _has_files(folder: str | None) -> bool:
    try:
        return folder is not None and any(Path(folder).iterdir())
    except OSError:
        return False


def _load_client_certificate(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    _readable(cert, "client certificate")
    if key is not None:
        _readable(key, "client key")
    try:
        # Otherwise OpenSSL would ask for a passphrase on the terminal, and block the start.
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except _Passphrase:
        raise ValueError(
            f"The client key {_shown(key or cert)} is encrypted; a plain one is needed."
        ) from None
    except (ssl.SSLError, ValueError) as exc:
        if "KEY_VALUES_MISMATCH" in str(exc):
            raise ValueError(
                f"The client key {_shown(key or cert)} is not that of {_shown(cert)}."
            ) from None
        raise ValueError(
            f"The client certificate {_shown(cert)} and its key {_shown(key or cert)} "
            "are not both in PEM form."
        ) from None


class _Passphrase(Exception):
    pass


def _no_passphrase() -> str:
    raise _Passphrase


def _readable(path: Path, what: str) -> None:
    try:
        with path.open("rb"):
            return
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "no possible name of a file"
        raise ValueError(f"The {what} {_shown(path)} cannot be read: {reason}.") from None


def _shown(path: Path) -> str:
    """The path as one line of printable text, whatever bytes it contains."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
