"""`credentials`: keys and passwords in the secrets that a VM names."""

import base64

import pytest

CORE, KUBEVIRT = "/api/v1/namespaces/default", "/apis/kubevirt.io/v1/namespaces/default"
VM, VMI = f"{KUBEVIRT}/virtualmachines/web", f"{KUBEVIRT}/virtualmachineinstances/web"
KEY = "ssh-ed25519 AAAA"


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def credential(secret, *, user="root", kind="sshPublicKey"):
    agent = {"users": [user]} if kind == "sshPublicKey" else {}
    return {kind: {"source": {"secret": {"secretName": secret}}, "propagationMethod": {"qemuGuestAgent": agent}}}


@pytest.fixture
def have(api):
    """The VM with these credentials, and secrets with these contents."""

    def have(*credentials, owner="vm-uid", **secrets):
        api.answers["GET", VM] = api.answers["PATCH", VM] = {
            "metadata": {"name": "web", "uid": "vm-uid", "resourceVersion": "7"},
            "spec": {"template": {"spec": {"accessCredentials": list(credentials)}}},
        }
        for name, content in secrets.items():
            api.answers["GET", f"{CORE}/secrets/{name}"] = api.answers["PATCH", f"{CORE}/secrets/{name}"] = {
                "metadata": {"name": name, "resourceVersion": "3", "ownerReferences": [{"uid": owner}]},
                "data": {key: encoded(text) for key, text in content.items()},
            }
        api.answers["POST", f"{CORE}/secrets"] = {"metadata": {"name": "web-ssh-key-x"}}

    return have


def test_a_key_is_added_to_the_users_secret(run, api, have, tmp_path):
    have(credential("other", user="ada"), credential("keys"), keys={"old": "ssh-rsa B"})
    (tmp_path / "id.pub").write_text(KEY + " me@here\n")
    code, out, _ = run("credentials", "add-ssh-key", "web", "--user=root", f"--file={tmp_path}/id.pub")
    assert (code, out) == (0, 'Successfully added the key to secret "keys"\n')
    method, path, body = api.asked[-1]
    assert (method, path, body["metadata"]) == ("PATCH", f"{CORE}/secrets/keys", {"resourceVersion": "3"})
    [(name, data)] = body["data"].items()
    assert name.startswith("ssh-key-")
    assert data == encoded(KEY + " me@here")


def test_a_key_that_is_there_is_not_added_again(run, api, have):
    have(credential("keys"), keys={"old": f"{KEY} with a comment"})
    assert "already contains" in run("credentials", "add-ssh-key", "web", "-u", "root", "--value", KEY)[1]
    assert all(method == "GET" for method, _, _ in api.asked)


def test_a_first_key_makes_a_secret_of_the_vms_own(run, api, have):
    have(credential("other", user="ada"))
    assert run("credentials", "add-ssh-key", "web", "--user=root", "--value", KEY)[0] == 0
    [(_, _, secret), (_, _, patch)] = [asked for asked in api.asked if asked[0] in ("POST", "PATCH")]
    assert secret["metadata"]["generateName"] == "web-ssh-key-"
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "vm-uid"
    assert list(secret["data"].values()) == [encoded(KEY)]
    assert patch["metadata"]["resourceVersion"] == "7"
    assert patch["spec"]["template"]["spec"]["accessCredentials"] == [
        credential("other", user="ada"),
        credential("web-ssh-key-x"),
    ]


def test_a_running_vm_gets_a_new_secret_only_when_forced(run, api, have):
    have()
    api.answers["GET", VMI] = {}
    words = ["credentials", "add-ssh-key", "web", "--user=root", "--value", KEY]
    assert "--force" in run(*words)[2]
    assert run(*words, "--force")[0] == 0


def test_a_key_is_taken_out_of_every_secret_of_the_user(run, api, have):
    have(credential("one"), credential("two"), credential("three"),
         one={"a": KEY, "b": f"ssh-rsa B\n{KEY} x\n"}, two={"c": "ssh-rsa B"})  # fmt: skip
    code, out, _ = run("credentials", "remove-ssh-key", "web", "--user=root", "--value", KEY)
    assert (code, out) == (0, 'Removed the key from secret "one"\n')
    [patch] = [body for method, _, body in api.asked if method == "PATCH"]
    assert patch["data"] == {"a": None, "b": encoded("ssh-rsa B")}


def test_a_password_is_set_for_its_user(run, api, have):
    have(credential("pw", kind="userPassword"), pw={})
    assert run("credentials", "set-password", "web", "-u", "root", "-p", "new")[0] == 0
    assert api.asked[-1][2]["data"] == {"root": encoded("new")}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add-ssh-key"], "--file=FILE"),
        (["add-ssh-key", "--value=k", "--file=f"], "give the public key once"),
        (["add-ssh-key", "--file=/nowhere"], "cannot read"),
        (["add-ssh-key", "--value=k k", "--secret=x"], "it uses: one, two"),
        (["add-ssh-key", "--value=k k"], "--secret=NAME"),
        (["add-ssh-key", "--value=k k", "--secret=one"], "add --force"),
        (["remove-ssh-key", "--value=k k"], "add --force"),
        (["set-password", "-p", "x"], "accessCredentials"),
    ],
)
def test_what_is_refused(run, api, have, words, says):
    have(credential("one"), credential("two"), owner="somebody", one={"a": "k k"}, two={})
    if words[:2] == ["add-ssh-key", "--value=k k"]:
        have(credential("one"), credential("two"), owner="somebody", one={}, two={})
    code, _, err = run("credentials", *words, "web", "--user=root")
    assert code != 0
    assert says in err
    assert all(method == "GET" for method, _, _ in api.asked)
