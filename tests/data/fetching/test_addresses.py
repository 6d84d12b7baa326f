import pytest

from retrieval_jax.data.fetching import addresses
from retrieval_jax.errors import InputError


@pytest.mark.parametrize(
    "address, stem, suffix",
    [
        ("https://cdn.shop.example/s/front.jpg?v=17", "front", ".jpg"),
        ("https://cdn.shop.example/s/FRONT.JPG", "FRONT", ".jpg"),
        ("//cdn.shop.example/a%20b/rote%20Sch%C3%BCrze.jpeg", "rote_Schürze", ".jpeg"),
        ("https://shop.example/a/..%2f..%2fetc%2fpasswd", "passwd", ".jpg"),
        ("https://shop.example/a%5C..%5Cboot.ini", "boot.ini", ".jpg"),
        ("https://shop.example/image?id=5", "image", ".jpg"),
        ("https://shop.example/..", "picture", ".jpg"),
        ("https://shop.example/", "picture", ".jpg"),
        ("https://shop.example", "picture", ".jpg"),
        ("https://shop.example/.htaccess", "htaccess", ".jpg"),
        ("https://shop.example/a/%00%0a.png", "picture", ".png"),
        ("https://shop.example/红裙.webp", "红裙", ".webp"),
        ("https://shop.example/" + "ü" * 500 + ".png", "ü" * 40, ".png"),
    ],
)
def test_a_file_name_is_readable_and_safe(address, stem, suffix):
    name = addresses.file_name(address)
    assert name.startswith(f"{stem}-") and name.endswith(suffix)
    assert len(name) == len(stem) + 1 + 10 + len(suffix) and len(name.encode()) <= 120
    assert not set(name) & set('/\\\0\n:*?"<>|')


def test_addresses_with_one_name_are_different_files():
    same = ["https://a.example/1/front.jpg", "https://a.example/2/front.jpg", "https://a.example/1/front.jpg?v=2"]
    assert len({addresses.file_name(address) for address in same}) == 3


def test_blanks_fragments_and_the_case_of_the_host_do_not_make_another_file():
    spellings = [
        " https://a.example/F.jpg ",
        "HTTPS://A.example/F.jpg",
        "//a.example/F.jpg",
        "https://a.example/F.jpg#x",
    ]
    assert len({addresses.file_name(address) for address in spellings}) == 1
    assert addresses.file_name("https://a.example/f.jpg") != addresses.file_name(spellings[0])


@pytest.mark.parametrize(
    "address, words",
    [
        ("ftp://shop.example/a.jpg", "http"),
        ("file:///etc/passwd", "http"),
        ("data:image/png;base64,xxx", "http"),
        ("pictures/a.jpg", "http"),
        ("https://me:secret@shop.example/a.jpg", "password"),
        ("https:///a.jpg", "no host"),
        ("https://shop.example:0/a.jpg", "no host"),
        ("https://shop.example:99999/a.jpg", "malformed"),
        ("https://[::1/a.jpg", "malformed"),
        ("https://shop.example/a\r\nHost: b", "control"),
        ("https://shop.example/" + "a" * 2000, "characters"),
    ],
)
def test_addresses_that_cannot_be_fetched(address, words):
    assert words in addresses.problem(address)


@pytest.mark.parametrize("address", ["https://shop.example/a b.jpg", "http://1.2.3.4:8080/ü.png?x=1", "//s.example/a"])
def test_addresses_that_can(address):
    assert addresses.problem(address) == ""


PRIVATE = [
    *("127.0.0.1", "127.255.0.3", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1"),
    *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "100::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address):
    assert addresses.is_private(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses(address):
    assert not addresses.is_private(address)


def test_a_network_can_be_allowed_and_nothing_else_is():
    allowed = addresses.networks(["10.0.0.5", "192.168.0.0/16", "::1"])
    assert not any(
        addresses.is_private(each, allowed) for each in ("10.0.0.5", "::ffff:10.0.0.5", "192.168.7.7", "::1")
    )
    assert all(addresses.is_private(each, allowed) for each in ("10.0.0.6", "127.0.0.1", "fd00::1"))
    with pytest.raises(InputError, match="'intranet' is not an address or a network.*getent"):
        addresses.networks(["intranet"])
