"""Which URLs may be followed, by what they say."""

import pytest

from gateway.media.sources import (
    MediaHost,
    MediaPolicy,
    MediaUrl,
    file_path,
    is_followed,
    networks,
)
from protos.wire.errors import InvalidRequest, Reason

FIELD = "messages[0].content[1]"


def allows(policy: MediaPolicy, url: str) -> bool:
    return policy.is_allowed(MediaUrl.parse(url, field=FIELD))


def hosts(*entries: str) -> MediaPolicy:
    return MediaPolicy(hosts=tuple(MediaHost.parse(entry) for entry in entries))


def test_nothing_is_followed_unless_it_is_allowed() -> None:
    assert not allows(MediaPolicy(), "https://media.example/a.png")


@pytest.mark.parametrize(
    "url",
    [
        "https://media.example/a.png",
        "http://media.example:80/a.png?x=1#y",
        "https://MEDIA.example./a.png",
        "https://cdn.other.example/a",
        "https://a.b.other.example/a",
        "https://port.example:8443/a",
        "http://[2001:db8::5]/a",
        "https://xn--bcher-kva.example/",
        "https://bücher.example/",
    ],
)
def test_a_host_on_the_list_is_followed(url: str) -> None:
    listed = ("media.example", "*.other.example", "port.example:8443", "[2001:db8::5]")
    assert allows(hosts(*listed, "bücher.example"), url)


@pytest.mark.parametrize(
    "url",
    [
        "https://media.example:8443/a",  # another port
        "https://media.example.evil/a",
        "https://evilmedia.example/a",
        "https://sub.media.example/a",
        "https://other.example/a",  # only what is below it is listed
        "https://port.example/a",
        "https://evil/?media.example",
    ],
)
def test_a_host_beside_the_list_is_not(url: str) -> None:
    assert not allows(hosts("media.example", "*.other.example", "port.example:8443"), url)


def test_every_public_host_means_the_usual_ports_alone() -> None:
    policy = MediaPolicy(any_public=True)
    assert allows(policy, "http://anyone.example/a")
    assert allows(policy, "https://anyone.example:443/a")
    for port in (22, 443, 6379, 8080):
        assert not allows(policy, f"http://anyone.example:{port}/a")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://media.example/a",
        "gopher://media.example/a",
        "javascript:alert(1)",
        "http://",
        "http:///a",
        "https://user@media.example/",
        "https://user:word@media.example/",
        "https://:word@media.example/",
        "http://media.example:99999/",
        "http://media.example:x/",
        "http://[::1/",
        "//media.example/a",
    ],
)
def test_other_urls_get_one_answer(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MediaUrl.parse(url, field=FIELD)
    assert caught.value.reason is Reason.URL_NOT_ALLOWED
    assert caught.value.param == FIELD
    assert "media.example" not in caught.value.message


def test_a_host_that_is_an_address_is_known_as_one() -> None:
    literal = MediaUrl.parse("http://[::ffff:7f00:1]:8080/", field=FIELD).literal
    assert str(literal) == "::ffff:7f00:1"
    assert MediaUrl.parse("http://127.0.0.1/", field=FIELD).literal is not None
    assert MediaUrl.parse("http://media.example/", field=FIELD).literal is None


@pytest.mark.parametrize("entry", ["", "*", "a/b", "https://media.example", "*.*.example", "a:b"])
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ValueError):
        MediaHost.parse(entry)


def test_an_entry_that_is_no_network_is_refused() -> None:
    assert [str(network) for network in networks(["10.1.2.3/16", "::1"])] == [
        "10.1.0.0/16",
        "::1/128",
    ]
    with pytest.raises(ValueError):
        networks(["10.1.0.0/99"])


def test_schemes_that_could_be_followed() -> None:
    assert all(is_followed(url) for url in ("http://a", "HTTPS://a", "file:///a", "File:/a"))
    assert not any(is_followed(url) for url in ("data:,", "ftp://a", "blob:x", "a.png", "c:/a"))


def test_a_file_url_is_a_path_of_this_machine() -> None:
    assert file_path("file:///srv/a%20b.png", field=FIELD) == "/srv/a b.png"
    assert file_path("FILE://localhost/srv/a.png", field=FIELD) == "/srv/a.png"
    for url in ("file://host/a", "file:a", "file:///a?b", "file:///a%00b", "file://"):
        with pytest.raises(InvalidRequest) as caught:
            file_path(url, field=FIELD)
        assert caught.value.reason is Reason.URL_NOT_ALLOWED
