"""The audit: clients' log, the router's books and metrics, and the engines' own counts must tell one story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab_core import economics
from trimtab_core.routing import table

from soak import clients, slots

Row = dict[str, object]
Line = Mapping[str, Any]

_RESULTS = {
    clients.COMPLETE: ("ok",),
    clients.REFUSED: ("failed", "rejected"),
    clients.BROKEN: ("failed",),
    # Who leaves does not know how far the router was.
    clients.LEFT: ("cancelled", "ok", "failed", "rejected"),
}
_CENT_OF_NOTHING = 1e-9


@dataclass
class Evidence:
    """All that is known afterwards.

    Attributes:
        seen: what clients saw, by number of the request.
        lines: of the router's access log, which are its ledger's entries.
        attempts: that engines counted.
        metrics: the router's exposition.
        tiers: by name, for their rates.
        still: what the router's admin views say of requests under way, in any place.
    """

    seen: dict[int, clients.Seen]
    lines: Sequence[Line]
    attempts: list[slots.Slot]
    metrics: str
    tiers: dict[str, table.Rates]
    still: int = 0
    booked: dict[int, Line] = field(init=False)
    by_name: dict[str, slots.Slot] = field(init=False)
    _of: dict[int, list[slots.Slot]] = field(init=False)

    def __post_init__(self) -> None:
        self.booked = {number_of(line): line for line in self.lines}
        self.by_name = {slot.name: slot for slot in self.attempts}
        self._of = {}
        for slot in self.attempts:
            self._of.setdefault(slot.number, []).append(slot)

    def attempts_of(self, number: int) -> list[slots.Slot]:
        """Those of one request, on all engines."""
        return self._of.get(number, [])

    def pairs(self, result: str) -> Iterable[tuple[int, clients.Seen, Line]]:
        """Requests with this result for their client, each with its entry."""
        return (
            (number, seen, self.booked[number])
            for number, seen in self.seen.items()
            if seen.result == result and number in self.booked
        )


def number_of(line: Line) -> int:
    """A request's number, from its name; 0 if it has none of ours."""
    name = str(line["requestId"])
    return int(name[1:]) if name[:1] == "s" and name[1:].isdigit() else 0


def row(
    name: str,
    value: float,
    unit: str,
    target: float | None = 0.0,
    *,
    comparison: str = "<=",
    beside: Mapping[str, float | str] | Mapping[str, float] | Mapping[str, int] | None = None,
) -> Row:
    """A row as all benchmarks write them; without a target a measurement."""
    met = None if target is None else value <= target if comparison == "<=" else value >= target
    found: Row = {"name": name, "value": round(value, 6), "unit": unit, "target": target, "comparison": comparison}
    return found | {"met": met, "beside": dict(beside or {})}


def rows(evidence: Evidence) -> list[Row]:
    """Everything that must agree; each row counts what does not."""
    return [*_requests(evidence), *_tokens(evidence), *_money(evidence), *_engines(evidence), _rest(evidence)]


def _requests(evidence: Evidence) -> list[Row]:
    seen, results = evidence.seen, Counter(each.result for each in evidence.seen.values())
    entries = Counter(number_of(line) for line in evidence.lines)
    whys = Counter(each.why for each in seen.values() if each.result == clients.LOST)
    disagree = Counter(
        f"{result} is {line['result']}"
        for result, allowed in _RESULTS.items()
        for _, _, line in evidence.pairs(result)
        if line["result"] not in allowed
    )
    passed_off = [
        number
        for number, each, _ in evidence.pairs(clients.COMPLETE)
        if each.slot not in evidence.by_name or evidence.by_name[each.slot].state != slots.State.COMPLETE
    ]
    answered = results[clients.COMPLETE] / max(1, len(seen))
    return [
        row("requests", len(seen), "requests", None, beside=results),
        row("answered completely", answered, "of all", 0.7, comparison=">="),
        row("clients without a proper answer", results[clients.LOST], "requests", beside=dict(whys.most_common(5))),
        row("requests not in the books", len(seen.keys() - entries.keys()), "requests"),
        row("requests in the books twice", sum(count - 1 for count in entries.values()), "requests"),
        row("entries of unknown requests", len(entries.keys() - seen.keys()), "entries"),
        row("results that disagree with the client's", disagree.total(), "requests", beside=disagree),
        row("failed answers passed off as complete", len(passed_off), "requests"),
    ]


def _tokens(evidence: Evidence) -> list[Row]:
    complete = broken = left = refused = 0
    billed_complete = billed_partly = 0
    for _, seen, line in evidence.pairs(clients.COMPLETE):
        slot = evidence.by_name.get(seen.slot)
        counted = (slot.prompt, slot.generated) if slot is not None else (0, 0)
        said = (line["inputTokens"], line["outputTokens"])
        complete += said != counted or seen.tokens != counted[1] or line["estimated"]
        billed_complete += line["outputTokens"]
    for _, seen, line in evidence.pairs(clients.BROKEN):
        slot = evidence.by_name.get(seen.slot)
        broken += line["outputTokens"] != seen.tokens or slot is None or slot.generated < seen.tokens
        billed_partly += line["outputTokens"]
    for number, seen, line in evidence.pairs(clients.LEFT):
        left += not seen.tokens <= line["outputTokens"] <= _most_made(evidence, number, line)
        billed_partly += line["outputTokens"]
    for _, _, line in evidence.pairs(clients.REFUSED):
        refused += bool(line["outputTokens"] or line["inputTokens"])
    return [
        row(
            "bills of complete answers unlike the engine's count",
            complete,
            "requests",
            beside={"tokens": billed_complete},
        ),
        row("bills of broken streams unlike what came", broken, "requests", beside={"tokens": billed_partly}),
        row("bills of who left, beyond what was made", left, "requests"),
        row("bills for errors", refused, "requests"),
    ]


def _most_made(evidence: Evidence, number: int, line: Line) -> int:
    """What an engine made at most of an answer that was not read to its end."""
    engine = str(line["endpoint"]).rpartition("-")[2]
    return max((slot.generated for slot in evidence.attempts_of(number) if str(slot.engine) == engine), default=0)


def price(line: Line, rates: table.Rates) -> float:
    """USD of an entry's tokens."""
    return economics.request_usd(
        rates,
        input_tokens=line["inputTokens"],
        cached_input_tokens=line["cachedInputTokens"],
        output_tokens=line["outputTokens"],
    )


def _money(evidence: Evidence) -> list[Row]:
    off = sum(
        abs(line["costUsd"] - price(line, evidence.tiers[line["tier"]])) > _CENT_OF_NOTHING
        for line in evidence.lines
        if line["tier"] in evidence.tiers
    )
    lines = evidence.lines
    pairs = {
        "requests_total": float(len(lines)),
        "arrivals_total": float(len(evidence.seen)),
        "input_tokens_total": sum(line["inputTokens"] for line in lines),
        "output_tokens_total": sum(line["outputTokens"] for line in lines),
        "cost_usd_total": sum(line["costUsd"] for line in lines),
    }
    apart = {name: metric(evidence.metrics, name) - value for name, value in pairs.items()}
    wrong = {name: value for name, value in apart.items() if abs(value) > 1e-6}
    usd, wasted = pairs["cost_usd_total"], metric(evidence.metrics, "wasted_usd_total")
    most = _most_wasted(evidence)
    return [
        row("bills that are not tokens times rates", off, "entries", beside={"usd": round(usd, 6)}),
        row("metrics that disagree with the ledger", len(wrong), "families", beside=wrong),
        row(
            "waste booked beyond what engines made for nobody", max(0.0, wasted - most), "USD", _CENT_OF_NOTHING,
            beside={"usd": round(wasted, 6), "most": round(most, 6)},
        ),
        row("lines of the log that were dropped", metric(evidence.metrics, "untold_total"), "lines"),
    ]  # fmt: skip


def _most_wasted(evidence: Evidence) -> float:
    """An upper bound: all attempts but the one billed, at the dearest rates; those that no engine counted by bytes."""
    dearest = max(evidence.tiers.values(), key=lambda rates: rates.output_usd_per_token)
    total = 0.0
    for number, line in evidence.booked.items():
        made = evidence.attempts_of(number)
        seen = evidence.seen.get(number)
        bodies = 80 * max(0, line["attempts"] - len(made))
        tokens = [slot for slot in made if seen is None or slot.name != seen.slot]
        prompt = sum(max(80, slot.prompt) for slot in tokens) + bodies
        out = sum(slot.generated for slot in tokens)
        total += economics.request_usd(dearest, input_tokens=prompt, cached_input_tokens=0, output_tokens=out)
    return total


def _engines(evidence: Evidence) -> list[Row]:
    winners = Counter(seen.slot for seen in evidence.seen.values() if seen.slot)
    billed = sum(line["outputTokens"] for line in evidence.lines)
    made = sum(slot.generated for slot in evidence.attempts)
    won = sum(slot.generated for slot in evidence.attempts if slot.name in winners)
    unknown = sum(slot.number not in evidence.seen for slot in evidence.attempts)
    told = sum(line["attempts"] for line in evidence.lines)
    again = sum(
        max(0, len(evidence.attempts_of(number)) - line["attempts"]) for number, line in evidence.booked.items()
    )
    states = Counter(slot.state.name.lower() for slot in evidence.attempts)
    return [
        row("attempts that answered two requests", sum(count - 1 for count in winners.values()), "attempts"),
        row("attempts of unknown requests", unknown, "attempts"),
        row(
            "attempts that engines counted", len(evidence.attempts), "attempts", None, beside={"books": told, **states}
        ),
        row("asked again after a connection closed without a byte", again, "attempts", None),
        row(
            "tokens that engines made",
            made,
            "tokens",
            None,
            beside={"billed": billed, "of winners": won, "of others": made - won},
        ),
    ]


def _rest(evidence: Evidence) -> Row:
    gauges = {name: metric(evidence.metrics, name) for name in ("in_flight", "queued_requests", "held_requests")}
    return row("requests under way afterwards", evidence.still + sum(gauges.values()), "requests", beside=gauges)


def metric(exposition: str, name: str) -> float:
    """The sum of a family's series."""
    full = f"trimtab_router_{name}"
    lines = (line for line in exposition.splitlines() if line.partition("{")[0].partition(" ")[0] == full)
    return sum(float(line.rpartition(" ")[2]) for line in lines)
