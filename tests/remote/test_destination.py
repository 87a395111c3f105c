import pytest

from edgerecover.errors import BadInputError
from edgerecover.remote.destination import Destination, parse_destination


@pytest.mark.parametrize(
    ("text", "destination", "arguments"),
    [
        ("ssh://pi@raspberrypi.local", Destination("raspberrypi.local", "pi"), ("-l", "pi", "--", "raspberrypi.local")),
        ("ssh://jetson", Destination("jetson"), ("--", "jetson")),
        ("ssh://nvidia@10.0.0.7:2222/", Destination("10.0.0.7", "nvidia", 2222),
         ("-l", "nvidia", "-p", "2222", "--", "10.0.0.7")),
        ("ssh://a@[fe80::1%eth0]:22", Destination("fe80::1%eth0", "a", 22),
         ("-l", "a", "-p", "22", "--", "fe80::1%eth0")),
        ("ssh://[::1]", Destination("::1"), ("--", "::1")),
        ("ssh://build_host", Destination("build_host"), ("--", "build_host")),
    ],
)  # fmt: skip
def test_addresses(text, destination, arguments):
    found = parse_destination(text)
    assert found == destination
    assert found.arguments == arguments
    assert parse_destination(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jetson",
        "pi@jetson",
        "ssh://",
        "ssh://-oProxyCommand=touch${IFS}x",
        "ssh://-l@host",
        "ssh://pi@-oProxyCommand=x",
        "ssh://pi@host;reboot",
        "ssh://pi@host reboot",
        "ssh://pi@host\nreboot",
        "ssh://$(reboot)@host",
        "ssh://`reboot`",
        "ssh://pi@host/etc",
        "ssh://pi:secret@host",
        "ssh://pi@host:0",
        "ssh://pi@host:65536",
        "ssh://pi@host:22x",
        "ssh://pi@[::1",
        "ssh://pi@[1]",
        "ssh://pi@[::1]reboot",
        "ssh://pi@@host",
        "ssh://pi@hôst",
        "ssh://pi@host?x",
        "ssh://pi@host#x",
        "ssh://pi@ho%73t",
        "http://pi@host",
        "ssh://" + "a" * 1000,
        "ssh://pi@host-",
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text):
    with pytest.raises(BadInputError, match="--on") as refused:
        parse_destination(text)
    assert refused.value.hint
    assert "\n" not in refused.value.message


def test_a_password_is_not_repeated_as_a_proposal():
    with pytest.raises(BadInputError) as refused:
        parse_destination("ssh://pi:secret@host")
    assert "secret" not in refused.value.hint
    assert "ssh-copy-id" in refused.value.hint
