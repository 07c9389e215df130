"""A guest that does what it can to its home and its neighbours: they go on as if it were not there."""

import asyncio
import json
import os
import re
import time
from pathlib import Path

import pytest

from hotvirt.kube import kubeconfig
from hotvirt.kube.remote import RemoteClient
from hotvirt.kube.resources import VMIS

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]
SECONDS = 24
GROWTH = 48
"""MiB that the home may grow meanwhile: buffers of what is bounded, and caches of what it is asked."""
SLOWEST, USUALLY = 2.0, 0.15
"""Seconds for an answer of the API beside guests that want more CPUs than there are."""

# Speaks the agent's protocol where that is what it takes to be listened to. The text that it tells of itself is
# meant for terminals, browsers and logs; later modes are for whoever reads it.
TALK = r"""
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name"
    [ "$name" = org.qemu.guest_agent.0 ] && port=/dev/${port##*/} && break
done
exec 3<>"$port"
mode=$1 mac=$(cat /sys/class/net/eth0/address)
say() { printf '%s\n' "$1" >&3; }
[ "$mode" = flood ] && exec cat /dev/urandom >&3
while read -r line <&3; do
    case $line in
    *guest-sync-delimited*)
        id=${line##*\"id\":}
        printf '\377{"return": %s}\n' "${id%%\}*}" >&3 ;;
    *guest-ping*) say '{"return": {}}' ;;
    *guest-info*) say '{"return": {"version": "\u001b[2J\u202e1.0", "supported_commands": []}}' ;;
    *guest-get-osinfo*)
        case $mode in
        endless) (printf '{"return": '; yes '[' | tr -d '\n') >&3 ;;
        deep) (printf '{"return": '; head -c 900000 /dev/zero | tr '\0' '['; echo) >&3; sleep 1; exit ;;
        lies) say '{"return": [1, {"id": 123456789012345678901234567890}]}'; sleep 1; exit ;;
        *)
            printf '{"return": {"id": "\\u001b]0;owned\\u0007", "name": "<script>alert(1)</script>", ' >&3
            printf '"version": "1\\r\\n\\r\\nfake: line", "kernel-release": "6\\u0000\\u009b31m", "pretty-name": "' >&3
            (head -c 100000 /dev/zero | tr '\0' A; echo '"}}') >&3 ;;
        esac ;;
    *guest-get-host-name*)
        case $mode in
        long) (printf '{"return": {"host-name": "'; head -c 104857600 /dev/zero | tr '\0' A; echo '"}}') >&3 ;;
        *) say '{"return": {"host-name": "\u001b[31mevil\r\nhost"}}' ;;
        esac ;;
    *guest-network-get-interfaces*)
        say '{"return": [{"name": "eth0\u001b[5m", "hardware-address": "'$mac'", "ip-addresses": []}]}' ;;
    *) say '{"error": {"class": "CommandNotFound", "desc": "\u001b[5mno"}}' ;;
    esac
done
"""
AGENT = """
[ -e /run/h/loud ] || exec sh /run/h/talk polite
timeout 30 sh /run/h/talk lies
timeout 30 sh /run/h/talk deep
timeout 15 sh /run/h/talk long
timeout 5 sh /run/h/talk flood
timeout 15 sh /run/h/talk endless
"""
"""Those that end by themselves, once they were heard, have time for that: the guest is loud, and among others."""
LOUD = r"""
touch /run/h/loud
for pid in $(pidof sh); do grep -q /run/h/talk /proc/$pid/cmdline && kill -9 $pid; done
gateway=$(ip route | sed -n 's/^default via \([^ ]*\).*/\1/p')
(while :; do head -c 1400 /dev/urandom | timeout 1 nc -u -w 1 "$gateway" 67; done) &
(while :; do
    udhcpc -n -q -t 1 -T 1 -i eth0 -s /bin/true -x 0x0c:"$(head -c 120 /dev/urandom | hexdump -ve '/1 "%02x"')"
done) &
ip addr add "$VICTIM/32" dev eth0
(while :; do arping -U -c 1 -I eth0 "$VICTIM"; arping -A -c 1 -I eth0 "$gateway"; done) &
yes 'there is no end to this line' >/dev/ttyS0 &
"""
SEED = f"""#!/bin/sh
mkdir -p /run/h
cat >/run/h/talk <<'END'
{TALK}
END
cat >/run/h/loud.sh <<'END'
{LOUD}
END
printf '#!/bin/sh\\n' >/sbin/agent
cat >>/sbin/agent <<'END'
{AGENT}
END
killall qemu-ga
"""
BOMB = "#!/bin/sh\nbomb() { bomb | bomb & }; bomb; while :; do cat /dev/zero >/dev/vda; done\n"


def seeded(home, name, script):
    """A guest that runs a script, and whose power is cut at once when it is to go."""
    home.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"userdata": script}})
    disks = [{"name": each, "disk": {"bus": "virtio"}} for each in ("scratch", "seed")]
    volumes = [
        {"name": "scratch", "emptyDisk": {"capacity": "16Mi"}},
        {"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": name}}},
    ]
    interface = {"name": "default", "masquerade": {}}
    return {
        "domain": {"devices": {"disks": disks, "interfaces": [interface]}},
        "spec": {"volumes": volumes, "terminationGracePeriodSeconds": 0},
    }


def resident(pid):
    """MiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


async def answers(home, seconds):
    """How long each answer of the API took, asked for so long."""
    took = []
    async with RemoteClient(kubeconfig.load(home.directory / "kubeconfig")) as client:
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            await client.get(VMIS, "bystander", "default")
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
    return sorted(took)


def log_of(home):
    return (home.directory / "home.log").read_text()


def is_plain(text):
    """Nothing in it that a terminal would act on."""
    return all(c.isprintable() or c in "\n\t" for c in text)


def test_a_hostile_guest_leaves_home_and_neighbours_unharmed(home):
    small = {"memory": "192Mi", "max_memory": "256Mi", "max_sockets": 1}
    home.apply_vm("bystander", **small)
    home.wait_agent("bystander")
    home.apply_vm("hostile", extra=seeded(home, "hostile", SEED), **small)
    home.wait("vm/hostile", "jsonpath={.status.created}=true")
    home.wait_until("its own agent answers", lambda: "script" in json.dumps(home.vmi("hostile").get("status", {})))
    check_words(home)

    address = home.vmi("bystander")["status"]["interfaces"][0]["ipAddress"]
    home.apply_vm("bomb", extra=seeded(home, "bomb", BOMB), **small)
    home.wait("vmi/bomb", "jsonpath={.status.phase}=Running")
    with home.console("bystander") as console:
        console.type(
            "\nmkdir -p /run/www; echo bystander >/run/www/index.html; httpd -h /run/www; echo up-$((40 + 2))\n"
        )
        console.read_until("up-42")
    with home.console("hostile") as console:
        console.type(f"\nVICTIM={address} sh /run/h/loud.sh\n")
        console.read_until("there is no end")
    before, boot = resident(home.pid), home.facts("bystander")["bootID"]
    took = asyncio.run(answers(home, SECONDS))
    grown = resident(home.pid) - before
    print(f"{len(took)} answers, median {took[len(took) // 2]:.3f} s, slowest {took[-1]:.3f} s, {grown:+.1f} MiB")
    assert grown < GROWTH
    assert took[-1] < SLOWEST
    assert took[len(took) // 2] < USUALLY

    assert home.facts("bystander")["bootID"] == boot
    if os.geteuid() == 0:
        assert home.fetched(f"http://{address}/") == "bystander\n"
    (pod,) = home.kubectl_json("get", "pods", "-l", "vm.kubevirt.io/name=hostile")["items"]
    kept = home.directory / "run" / "pods" / pod["metadata"]["uid"] / "console.log"
    assert 1 << 16 < kept.stat().st_size <= 3 << 20, "what it prints is kept, but not without end"
    for told in ("has the wrong form", "is not JSON", "is longer than 1048576 bytes", "sends data without end"):
        home.wait_until(f"the agent's answer {told}", lambda told=told: told in log_of(home))
    log = log_of(home)
    assert len(log) < 1 << 20
    assert is_plain(log)
    assert "AgentConnected" not in home.conditions("vmi/hostile")
    for name in ("hostile", "bomb"):
        home.hotvirt("stop", name)
        home.wait(f"vm/{name}", "jsonpath={.status.printableStatus}=Stopped")
    assert home.facts("bystander")["bootID"] == boot


def check_words(home):
    """What it says of itself is cut, and nothing in it is more than text, wherever it is shown."""
    shown = [
        home.kubectl("get", "vmi", "hostile", "-o", "wide").stdout,
        home.kubectl("describe", "vmi", "hostile").stdout,
        home.kubectl("get", "vmi", "hostile", "-o", "yaml").stdout,
        home.kubectl("get", "events").stdout,
        home.hotvirt("guestosinfo", "hostile").stdout,
        home.hotvirt("status").stdout,
    ]
    for text in shown:
        assert is_plain(text), text
    info = home.vmi("hostile")["status"]["guestOSInfo"]
    assert info["name"] == "<script>alert(1)</script>"
    assert max(map(len, info.values())) <= 256
    assert "\n" not in info["version"]
