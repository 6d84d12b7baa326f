"""Addresses of pictures: what makes one usable, the name of the file it becomes, and which hosts are private."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
import urllib.parse
from collections.abc import Sequence

from retrieval_jax.errors import InputError

LONGEST = 2_000  # characters of an address
_LONGEST_STEM = 80  # bytes of a file name before its hash: with hash, suffix and a temporary name well below 255
_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
_HOST = re.compile(r"[^\s/\\?#@<>\"'`{}|^%]+")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_GLOBAL_6 = ipaddress.ip_network("2000::/3")  # the only range that IPv6 has given out to the Internet
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in its last 32 bits
# Beside what `ipaddress` knows as private. Older versions of Python do not know all of these.
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata are at 100.100.100.200
        "168.63.129.16/32",  # a cloud's own services, at a public address
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "2001::/23",
        "3fff::/20",
    )
)


def normal(address: str) -> str:
    """Returns an address without blanks around it and without its fragment; scheme and host in lower case.

    "//host/a.jpg", as web pages have it, becomes "https://host/a.jpg".
    """
    address = address.strip()
    if address.startswith("//"):
        address = f"https:{address}"
    address = address.partition("#")[0]
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?]*)(.*)", address, re.DOTALL)
    return match[1].lower() + match[2].lower() + match[3] if match else address


def problem(address: str) -> str:
    """Returns why an address cannot be fetched, whatever its host answers, or ""."""
    address = normal(address)
    if len(address) > LONGEST:
        return f"it has {len(address):,} characters, at most {LONGEST:,} are sent"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") for letter in address):
        return "it has control characters"
    try:
        parts = urllib.parse.urlsplit(address)
        port = parts.port
    except ValueError as error:
        return f"it is malformed ({error})"
    if parts.scheme not in ("http", "https"):
        return "it does not begin with http:// or https://"
    if "@" in parts.netloc:
        return "it holds a user name or a password, which are not sent"
    if not parts.hostname or not _HOST.fullmatch(parts.hostname) or port == 0:
        return "it names no host"
    return ""


def host(address: str) -> str:
    """Returns the host of an address without a `problem`, with the port if it has one."""
    return urllib.parse.urlsplit(normal(address)).netloc


def file_name(address: str) -> str:
    """Returns the name of the file that an address is fetched to, whatever else a table holds.

    It is the last part of the address's path, made safe, and ten digits of a hash of the whole address: two addresses
    that both end in "front.jpg" are two files, and so are "front.jpg?v=1" and "front.jpg?v=2", of which a shop's system
    makes a new one for every new picture.

    Args:
      address: as the table has it.

    Returns:
      A name without separators, such as "front-0a1b2c3d4e.jpg", of at most 120 bytes; it ends in .jpg where the
      address does not end like a picture.
    """
    address = normal(address)
    digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    path = re.sub(r"^[a-z0-9+.-]+://[^/?]*", "", address, flags=re.IGNORECASE).partition("?")[0]
    name = urllib.parse.unquote(path.rstrip("/").rpartition("/")[2], errors="replace")
    name = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
    stem, dot, suffix = name.rpartition(".")
    known = dot and f".{suffix.lower()}" in _SUFFIXES
    stem = re.sub(r"[^\w.-]+", "_", stem if known else name).strip("._-")
    stem = stem.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore").strip("._-") or "picture"
    # Pictures are found by their suffix and decoded by their content, whatever the suffix.
    return f"{stem}-{digest}.{suffix.lower() if known else 'jpg'}"


# ------------------------------------------------------------------------------------------------------ private hosts


def networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Returns the networks that a user allows, from texts such as "10.0.0.5" and "10.1.0.0/16".

    Raises:
      InputError: one of them is not a network.
    """
    found = []
    for name in names:
        try:
            found.append(ipaddress.ip_network(name, strict=False))
        except ValueError:
            raise InputError(
                f"--allow_private: {name!r} is not an address or a network; give numbers such as 10.0.0.5 or "
                "10.1.0.0/16 (`getent hosts NAME` prints the address of a name)"
            ) from None
    return tuple(found)


def is_private(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Returns whether an IP address must not be connected to.

    It must not if it belongs to this machine, its network, a provider's network or a cloud's own services, is
    multicast or reserved; or if it holds such an IPv4 address in an IPv6 one (mapped, 6to4, Teredo, NAT64).

    Args:
      address: IPv4 or IPv6, maybe with a zone ("fe80::1%eth0").
      allowed: networks that are not private here.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.version == 6 and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if any(found in network for network in allowed if network.version == found.version):
        return False
    if found.version == 6:
        if found in _NAT64:
            return is_private(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)), allowed)
        if found.sixtofour is not None or found.teredo is not None or found not in _GLOBAL_6:
            return True
    if any(found in network for network in _PRIVATE if network.version == found.version):
        return True
    return not found.is_global or found.is_multicast or found.is_reserved or found.is_unspecified
