"""What each system can do, as a page: generated from the adapters' facts (docs/systems.md)."""

from collections.abc import Iterable, Mapping

from adapters.base import Adapter, KindFacts, Window
from model.records import Kind

VERBS = ("check", "describe", "read", "related", "find", "scan", "write", "objects")
EVIDENCE: Mapping[str, str] = {
    "E0": "declared from documents", "E1": "passes the contract suite against its sandbox", "E2": "its requests fit the vendor's machine-readable description",
    "E3": "the vendor's own client works against our sandbox", "E4": "run against the real program",
}  # fmt: skip


def verbs(adapter: type[Adapter]) -> list[str]:
    """Return the verbs that a class serves."""
    return [verb for verb in VERBS if getattr(adapter, verb) is not getattr(Adapter, verb)]


def page(adapters: Iterable[type[Adapter]]) -> str:
    """Return the page in Markdown."""
    ordered = sorted(adapters, key=lambda each: each.name)
    parts = [
        "# Systems\n\nGenerated from the adapters' facts: `c360 systems --markdown > docs/systems.md`. Limits are the vendors', per call.\n",
        "Evidence: " + "; ".join(f"{level} {meaning}" for level, meaning in EVIDENCE.items()) + ".\n",
        "| system | API | kinds | verbs | auth | evidence | shown by |\n|---|---|---|---|---|---|---|",
        "\n".join(_row(each) for each in ordered) + "\n",
        "What a change at a system can tell us, by the system's own means (the bound is the best that can be promised):\n",
        "| system | push | change feed | deletes and merges | real time | because |\n|---|---|---|---|---|---|",
        "\n".join(_live(each) for each in ordered) + "\n",
        *(_section(each) for each in ordered),
    ]
    return "\n".join(parts)


def _row(adapter: type[Adapter]) -> str:
    cells = (
        adapter.label, adapter.api_version, ", ".join(adapter.kinds), ", ".join(verbs(adapter)), ", ".join(adapter.auth), adapter.evidence,
        f"`{adapter.shown_by}`" if adapter.shown_by else "",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _live(adapter: type[Adapter]) -> str:
    live = adapter.live
    bound = f"{live.bound:,.0f} s" if live.bound is not None else "no bound"
    cells = (adapter.label, live.push or "none", live.feed or "none", live.deletes or "not seen", bound, live.why or "–")
    return f"| {' | '.join(cells)} |"


def _section(adapter: type[Adapter]) -> str:
    lines = [
        f"## {adapter.label}\n",
        "| kind | object | ids a read | found by | values a find | listed by | rows a page |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_kind(kind, facts) for kind, facts in adapter.kinds.items()]
    written = [(kind, facts) for kind, facts in adapter.kinds.items() if facts.verbs]
    if written:
        lines += [
            "",
            "| written | verbs | fields | records a call | upsert by | tied to | versions | seen after |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_written(kind, facts) for kind, facts in written]
    else:
        lines.append("\nNothing is written.")
    if adapter.relations:
        lines.append(f"\nRelations: {', '.join(f'{of} → {kind}' for of, kind in sorted(adapter.relations))}.")
    if adapter.windows:
        lines.append(f"\nBudgets: {'; '.join(_window(each) for each in adapter.windows)}.")
    return "\n".join(lines) + "\n"


def _kind(kind: Kind, facts: KindFacts) -> str:
    found = ", ".join(sorted(f"{key} (unique)" if key in facts.unique else key for key in facts.find))
    cells = (
        kind, facts.object, str(facts.read_batch or "–"), found or "–", str(facts.find_batch) if facts.find else "–",
        ", ".join(sorted(facts.orders)) or "–", str(facts.page) if facts.orders else "–",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _written(kind: Kind, facts: KindFacts) -> str:
    cells = (
        kind, ", ".join(sorted(facts.verbs)), ", ".join(facts.writes), str(facts.write_batch), ", ".join(sorted(facts.upsert_by)) or "–",
        ", ".join(sorted(facts.links)) or "–", "compared" if facts.if_version else "–", f"{facts.lag:.0f} s" if facts.lag else "at once",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _window(window: Window) -> str:
    if window.kind == "parallel":
        return f"{window.name}: {window.limit:,.0f} at once"
    return f"{window.name}: {window.limit:,.0f} in {window.period:,.0f} s ({window.kind})"
