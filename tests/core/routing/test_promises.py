"""Promises: what a request is judged by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab_core import capacity, units
from trimtab_core.api.v1alpha1 import fields
from trimtab_core.routing import promises, table

CHAT = table.Class("chat", table.Match(), [], {}, table.Slo(ttft_seconds=2.0, e2e_seconds=45.0, attainment=0.9))
QUIET = table.Class("quiet", table.Match(), [], {})
QUICK = table.Tier("small", "m", 0.6, table.Rates(0.0, 0.0), slo=table.Slo(1.0, 0.06, attainment=0.99))
SLOW = table.Tier("large", "m", 0.8, table.Rates(0.0, 0.0), slo=table.Slo(3.0, None, 60.0, attainment=0.8))


@pytest.mark.parametrize(
    ("class_", "tier", "expected"),
    [
        # Part by part: min(2, 1) s, only the tier's 60 ms, only the class's 45 s; max(0.9, 0.99).
        pytest.param(CHAT, QUICK, table.Slo(1.0, 0.06, 45.0, 0.99), id="each has a stricter part"),
        # min(2, 3) s, nobody's, min(45, 60) s; max(0.9, 0.8).
        pytest.param(CHAT, SLOW, table.Slo(2.0, None, 45.0, 0.9), id="the class is stricter"),
        pytest.param(QUIET, SLOW, SLOW.slo, id="a class that promises nothing"),
        pytest.param(CHAT, None, CHAT.slo, id="no tier: cached, or none got it"),
        pytest.param(None, QUICK, QUICK.slo, id="unknown class"),
        pytest.param(QUIET, None, table.Slo(), id="nobody promises anything"),
    ],
)
def test_class_and_tier_promise_together(
    class_: table.Class | None, tier: table.Tier | None, expected: table.Slo
) -> None:
    assert promises.promised(class_, tier) == expected


def test_promises_of_class_and_tier_hold_together() -> None:
    both = promises.strictest(
        table.Slo(ttft_seconds=2.0, e2e_seconds=45.0), table.Slo(ttft_seconds=1.0, itl_seconds=0.06)
    )

    assert both == table.Slo(1.0, 0.06, 45.0)
    assert promises.strictest() == table.Slo()


PARTS = ("ttft", "itl", "e2e")
slos = st.dictionaries(st.sampled_from(PARTS), st.integers(1, 5000).map("{}ms".format), min_size=1)


@given(st.lists(slos, max_size=3))
def test_what_is_judged_is_what_was_planned_for(asked: list[dict[str, str]]) -> None:
    planned = capacity.limits(
        *(fields.LatencySlo.model_validate({part: {"p95": limit} for part, limit in parts.items()}) for parts in asked)
    )

    judged = promises.strictest(
        *(
            table.Slo(**{f"{part}_seconds": units.duration_seconds(each) for part, each in parts.items()})
            for parts in asked
        )
    )

    for part in PARTS:
        assert getattr(judged, f"{part}_seconds") == getattr(planned, f"{part}_seconds")
