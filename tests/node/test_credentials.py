"""Which keys and passwords a guest's users are to have, and how its agent is asked to give them."""

import asyncio
import base64

import pytest

from hotvirt.node import sshkeys
from hotvirt.node.credentials import CredentialsError, Wanted, give, secret_keys, wanted_by
from hotvirt.qemu.errors import AgentRefused


def keys(secret, *users):
    method = {"qemuGuestAgent": {"users": list(users)}}
    return {"sshPublicKey": {"source": {"secret": {"secretName": secret}}, "propagationMethod": method}}


def password(secret):
    return {"userPassword": {"source": {"secret": {"secretName": secret}}, "propagationMethod": {"qemuGuestAgent": {}}}}


def secrets(**contents):
    def encoded(content):
        return {"data": {key: base64.b64encode(text.encode()).decode() for key, text in content.items()}}

    return {name: encoded(content) for name, content in contents.items()}.get


def test_keys_of_all_secrets_for_each_user_once():
    spec = {"accessCredentials": [keys("one", "root", "ada"), keys("two", "root"), password("pw")]}
    stored = secrets(
        one={"a": "# mine\nssh-rsa A x\n\n", "b": "ssh-rsa B"},
        two={"c": " ssh-rsa C \nssh-rsa B"},
        pw={"ada": "secret"},
    )
    assert wanted_by(spec, stored) == Wanted(
        {"root": ("ssh-rsa A x", "ssh-rsa B", "ssh-rsa C"), "ada": ("ssh-rsa A x", "ssh-rsa B")}, {"ada": "secret"}
    )
    vmi = {"metadata": {"namespace": "prod"}, "spec": spec}
    assert secret_keys(vmi) == ["prod/one", "prod/two", "prod/pw"]


async def test_keys_on_a_disc_are_cloud_inits_and_not_the_agents():
    method = {"propagationMethod": {"noCloud": {}}}
    seeded = {"sshPublicKey": {"source": {"secret": {"secretName": "one"}}, **method}}
    spec = {"accessCredentials": [seeded, keys("two", "root")]}
    stored = secrets(one={"a": "ssh-rsa A\n# no\nssh-rsa B", "b": "ssh-rsa A"}, two={"c": "ssh-rsa C"})
    assert wanted_by(spec, stored) == Wanted({"root": ("ssh-rsa C",)}, {})
    assert secret_keys({"metadata": {"namespace": "prod"}, "spec": spec}) == ["prod/two"]

    async def lookup(kind, name):
        assert kind == "secret"
        return stored(name)

    assert await sshkeys.of_seed(spec, "cloudInitNoCloud", lookup) == ["ssh-rsa A", "ssh-rsa B"]
    assert await sshkeys.of_seed(spec, "cloudInitConfigDrive", lookup) == []
    with pytest.raises(sshkeys.KeysError, match="the secret 'one', and there is none: create it"):
        await sshkeys.of_seed(spec, "cloudInitNoCloud", lambda *_: asyncio.sleep(0))
    assert sshkeys.metadata(["a", "b"], "cloudInitNoCloud") == {"public-keys": ["a", "b"]}
    assert sshkeys.metadata(["a"], "cloudInitConfigDrive") == {"public_keys": {"key-0": "a"}}
    assert sshkeys.metadata([], "cloudInitNoCloud") == {}


def test_a_secret_without_a_key_takes_all_keys_away():
    assert wanted_by({"accessCredentials": [keys("one", "root")]}, secrets(one={})) == Wanted({"root": ()}, {})


def test_a_secret_that_is_missing_is_named():
    with pytest.raises(CredentialsError, match="no secret 'pw' for userPassword: create it"):
        wanted_by({"accessCredentials": [password("pw")]}, secrets())


class Agent:
    def __init__(self, *outcomes):
        self.outcomes, self.asked = outcomes, []

    async def batch(self, commands, *, timeout):
        self.asked += commands
        return list(self.outcomes) or [{} for _ in commands]


async def test_the_agent_is_asked_for_all_at_once():
    agent = Agent()
    await give(agent, Wanted({"root": ("k",), "ada": ()}, {"ada": "pä"}))
    assert agent.asked == [
        ("guest-ssh-add-authorized-keys", {"username": "root", "keys": ["k"], "reset": True}),
        ("guest-ssh-add-authorized-keys", {"username": "ada", "keys": [], "reset": True}),
        ("guest-set-user-password", {"username": "ada", "password": "cMOk", "crypted": False}),
    ]


async def test_a_refusal_names_the_user_and_nothing_of_the_secret():
    agent = Agent({}, AgentRefused("guest-set-user-password", "GenericError", "no\x1b such user"))
    with pytest.raises(CredentialsError) as refused:
        await give(agent, Wanted({"root": ("k",)}, {"ada": "secret"}))
    assert str(refused.value).startswith("user ada: ")
    assert "no\N{REPLACEMENT CHARACTER} such user" in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_nothing_to_give_asks_nothing():
    agent = Agent()
    await give(agent, Wanted({}, {}))
    assert agent.asked == []
