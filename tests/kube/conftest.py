import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("memory_api", Path(__file__).with_name("memory_api.py"))
memory_api = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory_api)


@pytest.fixture
async def api():
    return memory_api.MemoryApi()
