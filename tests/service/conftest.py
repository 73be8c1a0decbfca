"""What tests of the service share."""

import pytest

from cowbird.service import crew
from cowbird.service import state as service_state
from doubles.service import InlineProcess, make_served


@pytest.fixture
def inline(monkeypatch):
    """Judge in this process; scanners are opened at once."""

    class Process(InlineProcess):
        pass

    async def open_at_once(source):
        return make_served()

    monkeypatch.setattr(crew, "_JudgeProcess", Process)
    monkeypatch.setattr(service_state, "open_in_process", open_at_once)
    return Process
