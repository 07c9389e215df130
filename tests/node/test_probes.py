"""Probes of guests: what their answers mean, when they are asked, and what becomes of it."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from hotvirt.kube.errors import InternalError
from hotvirt.kube.informer import Change, Key
from hotvirt.node import podstatus, prober, probes, probing, status, unhealthy
from hotvirt.node.places import Places
from hotvirt.node.prober import Prober
from hotvirt.node.probes import Answer, Exec, Http, Ping, Probe, Tcp, Track
from hotvirt.qemu.errors import AgentTimeout

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
INTERFACES = [{"name": "a", "masquerade": {}, "ports": [{"name": "http", "port": 8080}]}]


def vmi(*, annotations=None, paused=False, **spec):
    conditions = [{"type": "Paused", "status": "True"}] if paused else []
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "v", "annotations": annotations or {}},
        "spec": {"domain": {"devices": {"interfaces": INTERFACES}}, "networks": [{"name": "a", "pod": {}}], **spec},
        "status": {"phase": "Running", "activePods": {"u": "here"}, "conditions": conditions},
    }


def test_what_an_instance_asks():
    found = probes.of(
        vmi(
            readinessProbe={"httpGet": {"port": "http", "path": "up", "scheme": "HTTPS"}, "periodSeconds": 3},
            livenessProbe={"exec": {"command": ["true", "x"]}, "initialDelaySeconds": 60, "failureThreshold": 5},
        )
    )
    assert found == (
        Probe("readiness", Http(8080, "/up", is_tls=True), period=3.0),
        Probe("liveness", Exec(("true", "x")), delay=60.0, failures=5),
    )
    assert probes.of(vmi(readinessProbe={"tcpSocket": {"port": 22}})) == (Probe("readiness", Tcp(22)),)
    assert probes.of(vmi(livenessProbe={"guestAgentPing": {}})) == (Probe("liveness", Ping()),)
    assert probes.of(vmi()) == ()


def test_a_word_changes_by_enough_answers_in_a_row():
    track = Track(Probe("readiness", Ping(), period=10, successes=2, failures=3), due=0.0)
    said = [(track.take(Answer(ok=c == "+"), 5.0), track.word) for c in "+-+++--+---+-"]
    changes = [(at, word) for at, (changed, word) in enumerate(said) if changed]
    assert changes == [(3, True), (10, False)]
    assert track.due == 15.0


def test_failures_are_told_of_once_each_and_not_without_end():
    track = Track(Probe("readiness", Ping(), failures=2), due=0.0)
    said = [track.is_news(Answer(ok=False, words=words)) for words in "aabacdef"]
    assert said == [True, False, True, False, True, True, False, False]
    assert not track.is_news(GOOD)
    track.take(GOOD, 0.0)
    assert track.is_news(Answer(ok=False, words="a"))


def test_questions_are_spread_when_a_home_comes_back():
    probe = Probe("liveness", Ping(), delay=30.0, period=10.0)
    assert probes.first_due(probe, "u", running_since=100.0, now=100.5) == 130.0
    due = {probes.first_due(probe, str(n), running_since=0.0, now=1000.0) for n in range(50)}
    assert len(due) > 40
    assert all(1000.0 <= each < 1010.0 for each in due)


@pytest.mark.parametrize(("question", "state", "mute"), [
    (Ping(), {}, False), (Ping(), {"paused": True}, True), (Tcp(1), {"paused": True}, True),
    (Ping(), {"frozen": True}, False), (Exec(("x",)), {"frozen": True}, True), (Tcp(1), {"frozen": True}, False),
    (Ping(), {"annotations": {probes.PAUSES: "true"}}, True), (Tcp(1), {"annotations": {probes.PAUSES: "true"}}, False),
])  # fmt: skip
def test_who_cannot_answer_is_not_asked(question, state, mute):
    frozen = state.pop("frozen", False)
    assert probes.is_mute(vmi(**state), Probe("liveness", question), frozen=frozen) is mute


@pytest.mark.parametrize(("head", "words"), [
    (b"HTTP/1.1 200 OK\r\n", ""), (b"HTTP/1.0 302 Found\r\n", ""),
    (b"HTTP/1.1 404 Not\x1b Found\r\n", "HTTP status 404"), (b"HTTP/1.1 99999 x\n", "HTTP status 999"),
    (b"SSH-2.0-x\r\n", "what answers is no web server"), (b"", "what answers is no web server"),
])  # fmt: skip
def test_answers_of_web_servers(head, words):
    assert probing.judge(head) == Answer(ok=not words, words=words)


class Agent:
    def __init__(self, outcome):
        self.outcome = outcome

    async def ping(self, *, timeout):
        raise AgentTimeout("the guest agent did not answer")

    async def exec(self, program, arguments, *, timeout):
        return self.outcome


async def ask(question, *, agent=None, dial=None):
    way = SimpleNamespace(address="10.0.0.2", dial=dial)
    return await probing.ask(Probe("liveness", question, timeout=0.2), SimpleNamespace(answering=agent), way)


async def test_what_a_guest_answers_is_bounded_and_cleaned():
    assert await ask(Ping()) == Answer(ok=False, words="the guest agent does not answer (yet)")
    assert await ask(Ping(), agent=Agent(None)) == Answer(ok=False, words="the guest agent did not answer")
    assert await ask(Exec(("/bin/x",)), agent=Agent((0, b"", b""))) == Answer(ok=True)
    said = await ask(Exec(("/bin/x",)), agent=Agent((1, b"", b"\x1b[31m" + b"a" * 100_000)))
    assert said.words.startswith("/bin/x ended with 1: \N{REPLACEMENT CHARACTER}[31maaa")
    assert len(said.words) < 200


async def test_ports_of_a_guest():
    async def serve(reader, writer):
        if (line := await reader.readline()) == b"GET /up HTTP/1.1\r\n":
            writer.write(b"HTTP/1.1 503 Busy\r\n\r\n")
        served.append(line)
        writer.close()

    served = []
    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    way = probing.Way(address="127.0.0.1")

    async def asked(question):
        return await probing.ask(Probe("readiness", question, timeout=5), None, way)

    assert await asked(Tcp(port)) == Answer(ok=True)
    assert await asked(Http(port, "/up")) == Answer(ok=False, words="HTTP status 503")
    async with asyncio.timeout(5):
        while len(served) < 2:
            await asyncio.sleep(0)
    server.close()
    await server.wait_closed()
    refused = await asked(Tcp(port))
    assert "nothing listens there in the guest" in refused.words

    async def dial(_guest, _port):
        raise InternalError("no way")

    assert await ask(Tcp(1), dial=dial) == Answer(ok=False, words="no way")


class World:
    """A prober with one guest, whose agent answers as `answers` say, one after the other."""

    def __init__(self, directory, instance, answers, monkeypatch):
        self.events, self.changed, self.queued, self.answers = [], [], [], list(answers)
        self.places = Places(directory, directory, directory)
        self.places.pod("u").prepare()
        self.vmi = instance
        pod = {"metadata": {"name": "p", "namespace": "shop", "uid": "u"}, "status": {"podIP": "10.0.0.2"}}
        vmis = SimpleNamespace(add_handler=lambda handler: None, get=lambda name, namespace: instance)
        agent = SimpleNamespace(
            guests={Key("shop", "web"): SimpleNamespace(uid="u", is_gone=False, view=None)},
            network=SimpleNamespace(kind="bridge"),
            controller=SimpleNamespace(queue=SimpleNamespace(add=self.queued.append)),
        )  # fmt: skip
        self.prober = Prober(
            vmis, SimpleNamespace(by_index=lambda index, uid: [pod]), agent=agent, node="here", places=self.places,
            recorder=SimpleNamespace(event=lambda about, *said: self.events.append((about["metadata"]["name"], *said))),
            clock=lambda: NOW,
        )  # fmt: skip
        self.prober.changed = lambda changed: self.changed.append(self.prober.readiness(changed["metadata"]["uid"]))
        self.done = asyncio.Event()

        async def answer(*_):
            if not self.answers:
                self.done.set()
                await asyncio.Event().wait()
            return self.answers.pop(0)

        monkeypatch.setattr("hotvirt.node.prober.ask", answer)

    async def run(self, until):
        self.prober._note(Change("ADDED", None, self.vmi))
        task = asyncio.create_task(self.prober.run())
        async with asyncio.timeout(5):
            await until()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


GOOD, BAD = Answer(ok=True), Answer(ok=False, words="it is broken")
FAST = {"guestAgentPing": {}, "periodSeconds": 0.001}


async def test_readiness_comes_and_goes(tmp_path, monkeypatch):
    world = World(tmp_path, vmi(readinessProbe=FAST), [BAD, GOOD, BAD, BAD, BAD, GOOD], monkeypatch)
    assert world.prober.readiness("u") is None
    await world.run(world.done.wait)
    assert world.changed == [True, False, True]
    told = [(name, reason, message) for name, _, reason, message in world.events if name == "web"]
    assert told == [("web", "Unhealthy", "Readiness probe failed: it is broken")] * 2


async def test_a_guest_that_is_not_alive_is_noted_and_handed_to_the_agent(tmp_path, monkeypatch):
    world = World(tmp_path, vmi(livenessProbe={**FAST, "failureThreshold": 2}), [GOOD, BAD, BAD], monkeypatch)

    async def queued():
        while not world.queued:
            await asyncio.sleep(0)

    await world.run(queued)
    assert world.queued == [Key("shop", "web")]
    place = world.places.pod("u")
    assert unhealthy.read(place) == unhealthy.Note(NOW, "it is broken")
    assert ("p", "Normal", "Killing", "Container compute failed liveness probe") in world.events
    world.prober._note(Change("MODIFIED", world.vmi, world.vmi))
    assert world.prober.readiness("u") is None  # nobody asks it again
    place.remove()
    assert not unhealthy.write(place, "x", now=NOW)
    assert unhealthy.read(place) is None


async def test_a_probe_that_nobody_can_make_sense_of_fails_and_ends_no_other(tmp_path, monkeypatch):
    world = World(tmp_path, vmi(readinessProbe=FAST), [GOOD, "nonsense", "nonsense", "nonsense", GOOD], monkeypatch)
    answer = prober.ask

    async def ask(*said):
        if (found := await answer(*said)) == "nonsense":
            raise AttributeError("of a library, after a guest hung up in the middle of TLS")
        return found

    monkeypatch.setattr(prober, "ask", ask)
    await world.run(world.done.wait)
    assert world.changed == [True, False, True]


async def test_guests_that_went_are_forgotten(tmp_path, monkeypatch):
    world = World(tmp_path, vmi(readinessProbe=FAST), [GOOD], monkeypatch)
    await world.run(world.done.wait)
    assert world.prober.readiness("u") is True
    world.prober._note(Change("DELETED", world.vmi, None))
    assert world.prober.readiness("u") is None


def test_the_pod_is_ready_as_its_probe_says():
    pod = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "compute", "readinessProbe": {"exec": {}}}]},
    }  # fmt: skip
    assert podstatus.is_ready(pod, None) is False
    assert podstatus.is_ready({**pod, "spec": {"containers": [{"name": "compute"}]}}, None) is True
    pod["status"] = podstatus.running(pod, "10.0.0.2", NOW, ready=False)
    found = {c["type"]: (c["status"], c.get("reason")) for c in pod["status"]["conditions"]}
    assert found["Ready"] == found["ContainersReady"] == ("False", "ContainersNotReady")
    assert [(c["ready"], c["started"]) for c in pod["status"]["containerStatuses"]] == [(False, True)]
    assert podstatus.readiness(pod, NOW + timedelta(seconds=9), ready=False) is None

    now = podstatus.readiness(pod, NOW, ready=True)
    assert {c["type"]: c["status"] for c in now["conditions"]}["Ready"] == "True"
    assert now["containerStatuses"][0]["ready"] is True
    pod["status"] |= now
    assert podstatus.is_ready(pod, None) is True  # as an earlier home was told
    assert podstatus.is_ready(pod, False) is False
    assert podstatus.readiness(pod, NOW, ready=True) is None
    assert podstatus.readiness(pod, NOW, ready=False)["containerStatuses"][0]["ready"] is False


def test_the_end_of_a_guest_that_was_not_alive():
    end = status.unhealthy("no answer within 1 s")
    assert (end.phase, end.reason) == ("Failed", "LivenessProbeFailed")
    assert end.message == "the liveness probe failed (no answer within 1 s), so the guest was stopped"
