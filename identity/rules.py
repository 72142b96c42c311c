"""When two records are the same person. Pure: the same records give the same components, whatever order they came in.

Edges by strength: the same e-mail address (strong); the same phone number and the same surname (weak: a phone alone
links nobody). Guard rails: role addresses and identifiers that too many records of one source carry link nothing; a weak edge never
joins two groups that each hold a record of the same source; no component grows past a bound.
"""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from model.records import Ref

Method = Literal["EXACT_EMAIL", "EXACT_PHONE"]
# Records of one kind in one source with one identifier; beyond it the identifier says nothing about a person. Not records in all: someone
# whom forty systems know is still one.
MAX_CARRIERS = 10
MAX_COMPONENT = 50  # records of one person
_ROLES = frozenset(
    [
        "abuse",
        "accounting",
        "accounts",
        "admin",
        "administrator",
        "billing",
        "careers",
        "contact",
        "customerservice",
        "office",
        "enquiries",
        "finance",
        "hello",
        "help",
        "helpdesk",
        "hostmaster",
        "hr",
        "info",
        "inquiries",
        "it",
        "jobs",
        "kontakt",
        "mail",
        "marketing",
        "no-reply",
        "noreply",
        "orders",
        "postmaster",
        "press",
        "privacy",
        "purchasing",
        "reception",
        "sales",
        "security",
        "service",
        "shop",
        "support",
        "team",
        "webmaster",
    ]
)
_FOLDS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa", "æ": "ae", "œ": "oe"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What identity is decided by, of one record. `emails` and `phones` are normalised; `surname` is folded."""

    ref: Ref
    emails: tuple[str, ...]
    phones: tuple[str, ...]
    surname: str | None


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    a: Ref
    b: Ref
    method: Method
    score: float
    evidence: str  # the identifier both carry


def is_role_address(email: str) -> bool:
    """Tell whether an address belongs to a function, such as info@, not to a person."""
    return email.partition("@")[0].partition("+")[0] in _ROLES


def fold(name: str | None) -> str | None:
    """Return a surname as it compares: case, accents and umlaut spellings (Müller, Mueller, Muller) make no difference."""
    if not name or not name.strip():
        return None
    spelled = name.strip().casefold().translate(_FOLDS)
    plain = "".join(each for each in unicodedata.normalize("NFKD", spelled) if each.isalnum())
    for digraph, vowel in (("ae", "a"), ("oe", "o"), ("ue", "u"), ("aa", "a")):
        plain = plain.replace(digraph, vowel)
    return plain or None


def is_common(carriers: Iterable[Ref], *, beside: int = 0) -> bool:
    """Tell whether an identifier has too many carriers to say anything.

    Args:
        beside: how many of them may be there only because they are about to change.
    """
    counted = Counter((ref.source, ref.kind) for ref in carriers)
    return max(counted.values(), default=0) > MAX_CARRIERS + beside


def components(records: Iterable[Known]) -> tuple[list[list[Ref]], list[Edge]]:
    """Return the groups of records that are one person each, and the edges that hold them together.

    Both are sorted. Records must be closed under shared identifiers: whoever shares one with a record is among them.
    """
    known = {record.ref: record for record in sorted(records, key=lambda each: each.ref)}
    groups = _Groups(known)
    edges = [edge for edge in _candidates(known) if groups.join(edge)]
    return groups.listed(), sorted(edges)


def _candidates(known: Mapping[Ref, Known]) -> list[Edge]:
    """Return possible edges, the strong ones first. Carriers of one identifier are a chain, not a clique."""
    emails: dict[str, list[Ref]] = {}
    phones: dict[str, list[Ref]] = {}
    for ref, record in known.items():
        for email in record.emails:
            emails.setdefault(email, []).append(ref)
        for phone in record.phones:
            phones.setdefault(phone, []).append(ref)
    strong = [
        Edge(a, b, "EXACT_EMAIL", 1.0, email)
        for email, carriers in sorted(emails.items())
        if not is_common(carriers) and not is_role_address(email)
        for a, b in itertools.pairwise(carriers)
    ]
    weak = []
    for phone, carriers in sorted(phones.items()):
        if is_common(carriers):
            continue
        by_surname: dict[str, list[Ref]] = {}
        for ref in carriers:
            if (surname := known[ref].surname) is not None:
                by_surname.setdefault(surname, []).append(ref)
        # Every pair is tried: a veto on one of them must not part the others.
        weak += [
            Edge(a, b, "EXACT_PHONE", 0.9, phone)
            for _, same in sorted(by_surname.items())
            for at, a in enumerate(same)
            for b in same[at + 1 :]
        ]
    return strong + weak


class _Groups:
    """Union-find that remembers which sources a group holds."""

    def __init__(self, refs: Iterable[Ref]) -> None:
        self._parent = {ref: ref for ref in refs}
        self._members: dict[Ref, list[Ref]] = {ref: [ref] for ref in self._parent}

    def join(self, edge: Edge) -> bool:
        """Take the edge unless a guard rail forbids it; tell whether it was taken (edges inside a group are)."""
        a, b = self._root(edge.a), self._root(edge.b)
        if a == b:
            return edge.method == "EXACT_EMAIL"
        if len(self._members[a]) + len(self._members[b]) > MAX_COMPONENT:
            return False
        if edge.method == "EXACT_PHONE" and self._sources(a) & self._sources(b):
            return False
        a, b = min(a, b), max(a, b)
        self._parent[b] = a
        self._members[a] += self._members.pop(b)
        return True

    def listed(self) -> list[list[Ref]]:
        return sorted(sorted(members) for members in self._members.values())

    def _root(self, ref: Ref) -> Ref:
        while self._parent[ref] != ref:
            self._parent[ref] = self._parent[self._parent[ref]]
            ref = self._parent[ref]
        return ref

    def _sources(self, root: Ref) -> set[tuple[str, str]]:
        return {(ref.source, ref.kind) for ref in self._members[root]}
