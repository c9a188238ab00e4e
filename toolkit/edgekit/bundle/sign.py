"""Sign manifests with Ed25519 keys (RFC 8032), and check signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.core.errors import RecipeError, VerificationError
from edgekit.core.lazy import need


def sign(message: bytes, key_file: Path) -> bytes:
    """Return the 64-byte signature of `message` by the private key in a PEM file.

    Raises:
        RecipeError: The file is missing or holds no Ed25519 private key.
        MissingError: `cryptography` is not installed.
    """
    serialization = _serialization("sign a bundle")
    try:
        key = serialization.load_pem_private_key(_read(key_file), password=None)
        signature: bytes = key.sign(message)
    except (ValueError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"{key_file}: no Ed25519 private key ({error})",
            hint="Make one with: openssl genpkey -algorithm ed25519 -out key.pem",
        ) from error
    return signature


def check(message: bytes, signature: bytes, key_file: Path, *, where: str) -> None:
    """Check a signature by the public key in a PEM file.

    Raises:
        VerificationError: The signature is not by this key over this message.
        RecipeError: The file is missing or holds no public key.
        MissingError: `cryptography` is not installed.
    """
    serialization = _serialization("check a signature")
    invalid = need("cryptography.exceptions", extra="sign").InvalidSignature
    try:
        key = serialization.load_pem_public_key(_read(key_file))
    except ValueError as error:
        raise RecipeError(
            f"{key_file}: no public key ({error})",
            hint="Make one with: openssl pkey -in key.pem -pubout -out key.pub",
        ) from error
    try:
        key.verify(signature, message)
    except (invalid, AttributeError, TypeError) as error:
        raise VerificationError(
            f"{where}: the signature is not by {key_file}", hint="Do not use this bundle, or use its key."
        ) from error


def _serialization(why: str) -> Any:
    return need("cryptography.hazmat.primitives.serialization", extra="sign", why=why)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})", hint="Check the path.") from error
