"""``--stream-interval``: several tokens in one event, the first alone, nothing lost."""

from __future__ import annotations

import asyncio
import json

import pytest
from trimtab_sim.engine_sim import settings

from . import serving


def contents(reply: serving.Reply) -> list[str]:
    chunks = [json.loads(data) for data in reply.data() if data != "[DONE]"]
    found = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"]]
    return [text for text in found if text]


@pytest.mark.parametrize(
    ("interval", "events"),
    [
        pytest.param(1, 21, id="one event a token"),
        pytest.param(8, 4, id="tokens 1, 2 to 9, 10 to 17, and the 4 that are left"),
        pytest.param(20, 2, id="token 1 and all others"),
        pytest.param(500, 2, id="longer than the answer"),
    ],
)
def test_tokens_come_in_groups_after_the_first(interval: int, events: int) -> None:
    async def ask() -> tuple[list[str], str]:
        async with serving.serving(stream_interval=interval) as running:
            streamed = await running.chat(max_tokens=21, ignore_eos=True, stream=True)
            plain = await running.chat(max_tokens=21, ignore_eos=True)
            return contents(streamed), plain.json()["choices"][0]["message"]["content"]

    parts, whole = asyncio.run(ask())
    assert len(parts) == events
    assert "".join(parts) == whole


def test_an_interval_of_none_is_refused() -> None:
    with pytest.raises(settings.SettingsError, match="--stream-interval must be at least 1"):
        settings.load({"--stream-interval": "0"}, {})
