"""A byte stream to a guest's device, as those who reach it from outside are handed one."""

import asyncio

from msgspec import Struct


class GuestStream(Struct, frozen=True):
    """Both directions of a byte stream to the guest (serial console, VNC). `reader` ends when the guest's side does;
    whoever asked for the stream closes `writer`. A second stream to the same device ends the first."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
