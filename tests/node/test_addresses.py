"""What a guest says its addresses are, and what is made of it."""

from hotvirt.node import addresses


def told(*found, name="eth0", mac="02:00:00:00:00:01"):
    return {"name": name, "hardware-address": mac, "ip-addresses": [{"ip-address": each} for each in found]}


def test_addresses_that_others_could_use():
    said = told("10.0.2.15", "fe80::1", "127.0.0.1", "fd00::5", "10.0.2.15", "<b>1.2.3.4</b>", "1.2.3.4/24")
    assert addresses.of(said) == ["10.0.2.15", "fd00::5"]


def test_nonsense_is_none():
    assert addresses.of({}) == []
    assert addresses.of({"ip-addresses": "x"}) == []
    assert addresses.of({"ip-addresses": [1, None, {"ip-address": {}}]}) == []
    assert len(addresses.of(told(*(f"10.0.{n}.1" for n in range(200))))) == addresses.MOST


def test_interfaces_of_the_guests_own():
    card, bridge = told("10.0.2.15"), told("172.17.0.1", name="docker0", mac="02:42:AC:11:00:02")
    loopback, empty = told("127.0.0.1", name="lo", mac="00:00:00:00:00:00"), told(name="tun0", mac="02:00:00:00:00:09")
    no_mac = told("10.9.9.9", name="x", mac="\x1b[31m")
    assert addresses.beside([card, bridge, loopback, empty, no_mac], {"02:00:00:00:00:01"}) == [{
        "interfaceName": "docker0", "mac": "02:42:ac:11:00:02", "infoSource": "guest-agent",
        "ipAddress": "172.17.0.1", "ipAddresses": ["172.17.0.1"],
    }]  # fmt: skip
    many = [told("10.0.0.9", name=f"e{n}", mac=f"02:00:00:00:01:{n:02x}") for n in range(99)]
    assert len(addresses.beside(many, set())) == addresses.MOST_CARDS
