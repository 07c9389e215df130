"""Programs that took too long in a guest are ended there, as the agent starts programs and has no command to end one.

Its process and what that started are killed by a shell which the agent starts too. That looks first whether the number
is still a child of the agent's, so that it never kills another process which has got the number since. Then the agent
is asked until it has seen the end: it remembers each program until it was asked. A guest without /bin/sh is Windows,
whose taskkill does the same. What a guest does not let us end, or a home that dies in between, stays.
"""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, Protocol

from hotvirt.qemu.errors import AgentError, AgentRefused

log = logging.getLogger(__name__)

LEFT = 15.0
"""Seconds for its end, after which it is left alone."""
PAUSE = 0.5
_SCRIPT = """
end() { kill -STOP $1; for each in $(cat /proc/$1/task/*/children); do end $each; done; kill -KILL $1; }
grep -q "^PPid:[[:space:]]*$PPID$" /proc/$1/status && end $1
"""
_ending: set[asyncio.Task[None]] = set()


class Agent(Protocol):
    async def call(self, command: str, *, timeout: float | None = None, **arguments: Any) -> Any: ...


def end_later(agent: Agent, started: Awaitable[Any]) -> None:
    """`started`: the agent's answer to guest-exec, whenever it comes."""
    task = asyncio.create_task(_end(agent, started), name="guest-program-end")
    _ending.add(task)
    task.add_done_callback(_ending.discard)


async def _end(agent: Agent, started: Awaitable[Any]) -> None:
    try:
        answer = await started
        async with asyncio.timeout(LEFT):
            await end(agent, int(answer["pid"]))
    except (AgentError, TimeoutError, TypeError, KeyError, ValueError) as error:
        log.info("a program that took too long is left in its guest: %s", error)


async def end(agent: Agent, pid: int) -> None:
    """Until both it and what ended it are over."""
    try:
        killer = await _start(agent, "/bin/sh", "-c", _SCRIPT, "end", str(pid))
    except AgentRefused:
        killer = await _start(agent, "taskkill", "/F", "/T", "/PID", str(pid))
    for each in (killer, pid):
        while (await agent.call("guest-exec-status", pid=each)).get("exited") is not True:
            await asyncio.sleep(PAUSE)


async def _start(agent: Agent, program: str, *arguments: str) -> int:
    answer = await agent.call("guest-exec", path=program, arg=list(arguments))
    return int(answer["pid"])
