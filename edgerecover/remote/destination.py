"""Where a device is: an ssh:// address, parsed strictly, because parts of it become arguments of a program."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgerecover.errors import BadInputError

_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_IPV6 = r"\[(?P<ipv6>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?)\]"
_ADDRESS = re.compile(rf"ssh://(?:(?P<user>{_USER})@)?(?:(?P<host>{_NAME})|{_IPV6})(?::(?P<port>[0-9]{{1,5}}))?/?")
_LONGEST = 300


@dataclass(frozen=True)
class Destination:
    """A machine that ssh reaches."""

    host: str
    """A name, an alias of ~/.ssh/config or an address; IPv6 without brackets."""
    user: str | None = None
    """None: as ssh decides."""
    port: int | None = None
    """None: as ssh decides."""

    def __str__(self) -> str:
        """As it was typed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of ssh, the host last: none of them can be taken for an option."""
        user = ("-l", self.user) if self.user else ()
        port = ("-p", str(self.port)) if self.port else ()
        return (*user, *port, "--", self.host)


def parse_destination(text: str) -> Destination:
    """Read `ssh://[user@]host[:port]`; the host may be an alias of ~/.ssh/config or an IPv6 address in brackets.

    Raises:
        BadInputError: it is anything else: a path, a password, a character that a shell or ssh could take for more.
    """
    found = _ADDRESS.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise BadInputError(f"--on {text[:_LONGEST]!r} is not an address of a device", hint=_advice(text))
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise BadInputError(f"--on {text!r}: there is no port {port}", hint="ports are 1 to 65535; ssh's own is 22")
    return Destination(found["host"] or found["ipv6"], found["user"], port)


def _advice(text: str) -> str:
    if re.search(r"//[^/@]*:[^/@]*@", text):
        return "leave the password out: the device must accept a key (ssh-copy-id puts one there)"
    if not text.startswith("ssh://"):
        return f"write it as ssh://user@host or ssh://user@host:port, for example ssh://{_plain(text) or 'jetson'}"
    if re.search(r"//[^/]*/.", text):
        return "leave the path out: the bundle is copied to a temporary folder of the device"
    return "write it as ssh://user@host, ssh://user@host:port, ssh://alias or ssh://user@[fe80::1]:port"


def _plain(text: str) -> str:
    """What of it could stand in an address."""
    return text if re.fullmatch(rf"(?:{_USER}@)?{_NAME}", text) else ""
