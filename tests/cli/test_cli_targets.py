"""How machines, flags and connections are named on the command line."""

import re

import pytest

from hotvirt.cli.targets import Target, parse
from hotvirt.kube.resources import VMIS, VMS

SUB = "/apis/subresources.kubevirt.io/v1/namespaces"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("web", Target(None, "web")),
        ("vm/web", Target(VMS, "web")),
        ("VirtualMachineInstances/web", Target(VMIS, "web")),
        ("vmi/web/prod", Target(VMIS, "web", "prod")),
        ("root@vm/web/prod", Target(VMS, "web", "prod", "root")),
        ("root@web", Target(None, "web", "", "root")),
    ],
)
def test_one_word(text, target):
    assert parse(text) == target


@pytest.mark.parametrize("text", ["pod/web", "@web", "root@", "vm/", "vm/web/", "vm/web/a/b", ""])
def test_what_names_no_machine(text):
    with pytest.raises(ValueError, match="write"):
        parse(text)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["pause", "vm", "web"], f"{SUB}/default/virtualmachineinstances/web/pause"),
        (["pause", "vmi", "web", "-n", "prod"], f"{SUB}/prod/virtualmachineinstances/web/pause"),
        (["start", "vm/web/prod"], f"{SUB}/prod/virtualmachines/web/start"),
        (["-n", "prod", "start", "web"], f"{SUB}/prod/virtualmachines/web/start"),
        (["--namespace=prod", "start", "web", "-n", "dev"], f"{SUB}/dev/virtualmachines/web/start"),
    ],
)
def test_in_one_word_or_two_and_in_a_namespace(run, api, words, path):
    api.answers["PUT", path] = {}
    assert run(*words)[0] == 0
    assert [asked[1] for asked in api.asked] == [path]


def test_more_words_than_a_machine_has(run, api):
    code, _, err = run("start", "web", "db")
    assert (code, api.asked) == (2, [])
    assert "name one machine" in err


@pytest.mark.parametrize(
    ("flag", "body"),
    [("--paused=true", {"paused": True}), ("--paused=F", {}), ("--paused", {"paused": True})],
)
def test_flags_may_be_written_with_a_value(run, api, flag, body):
    api.answers["PUT", f"{SUB}/default/virtualmachines/web/start"] = {}
    assert run("start", flag, "web")[0] == 0
    assert api.asked[0][2] == body


def test_a_flag_takes_only_true_and_false(run, api):
    assert "--paused takes true or false, not 'maybe'" in run("start", "--paused=maybe", "web")[2]


@pytest.mark.parametrize(
    ("word", "says"),
    [("guestfs", "use guestfish on the file"), ("strat", "start"), ("nothing-like-it", "port-forward")],
)
def test_an_unknown_command_says_what_there_is(run, word, says):
    code, _, err = run(word)
    assert code == 2
    assert f"there is no {word!r} here" in err or f"there is no command {word!r}" in err
    assert says in err


@pytest.mark.parametrize(
    ("word", "does"),
    [("get", "kubectl get vm"), ("delete", "kubectl delete vm NAME"), ("clone", "hotvirt create clone"),
     ("resize", "hotvirt set vm/NAME"), ("snapshot", "docs/how-to/storage.md")],
)  # fmt: skip
def test_a_command_of_another_program_is_answered_with_what_does_it(run, word, does):
    code, _, err = run(word, "web")
    assert code == 2
    assert f"there is no command {word!r}; use: " in err
    assert does in err


def test_what_is_told_to_those_who_type_another_programs_command_is_there():
    from hotvirt.cli.main import COMMANDS, NOT_HERE, TYPED

    assert TYPED.keys() & {*COMMANDS, *NOT_HERE} == set()
    named = {word for does in TYPED.values() for word in re.findall(r"hotvirt ([a-z-]+)", does)}
    assert named - COMMANDS.keys() == set()


def complete(api, line):
    from click.shell_completion import BashComplete

    from hotvirt.cli.main import hotvirt

    class Complete(BashComplete):
        def __init__(self):
            super().__init__(hotvirt, {"obj": api.access}, "hotvirt", "_HOTVIRT_COMPLETE")

    *args, incomplete = line.split(" ")
    return [item.value for item in Complete().get_completions(args, incomplete)]


def test_completion_knows_the_names_of_machines(api):
    vms = [{"metadata": {"name": name}} for name in ("web", "db", "web-2")]
    api.answers["GET", "/apis/kubevirt.io/v1/namespaces/default/virtualmachines"] = {"items": vms}
    api.answers["GET", "/apis/kubevirt.io/v1/namespaces/prod/virtualmachineinstances"] = {"items": vms[:1]}
    assert complete(api, "star") == ["start"]
    assert complete(api, "start w") == ["web", "web-2"]
    assert complete(api, "ssh root@vm/d") == ["root@vm/db"]
    assert complete(api, "console -n prod vmi/") == ["vmi/web"]
    assert complete(api, "console pod/") == []


def test_completion_knows_the_names_of_sizes(api):
    group = "/apis/instancetype.kubevirt.io/v1beta1"
    for path, names in (
        ("virtualmachineclusterinstancetypes", ("u1.small", "u1.nano", "m1.large")),
        ("virtualmachineclusterpreferences", ("fedora", "windows.11")),
        ("namespaces/default/virtualmachineinstancetypes", ("own",)),
    ):
        api.answers["GET", f"{group}/{path}"] = {"items": [{"metadata": {"name": name}} for name in names]}
    assert complete(api, "create vm --instancetype u") == ["u1.nano", "u1.small"]
    assert complete(api, "create vm --preference ") == ["fedora", "windows.11"]
    own = "virtualmachineinstancetype/"
    assert complete(api, f"create vm --instancetype {own}") == [f"{own}own"]
    assert complete(api, "create vm --instancetype pod/") == []


def test_kubectl_asks_for_completions_of_its_plugin(monkeypatch, capsys):
    from hotvirt.cli.completion import complete_for_kubectl

    monkeypatch.setattr("sys.argv", ["kubectl_complete-virt", "port"])
    complete_for_kubectl()
    assert capsys.readouterr().out == "port-forward\tOffer a guest's ports on this machine.\n:4\n"


def test_completion_is_silent_without_an_api(api):
    assert complete(api, "start w") == []
