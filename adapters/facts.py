"""Whether a class states its facts well enough to be used: the first mistake is told with the class and the fact."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import ValidationError

from adapters.base import Adapter, Auth, KindFacts, Window
from adapters.rest import Resource, RestAdapter
from adapters.writing import WriteVerb
from mapping.compile import compile_mapping
from mapping.native import spellings
from mapping.spec import Document
from model.errors import MappingError
from model.records import RECORDS, Kind

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_KINDS: tuple[Kind, ...] = tuple(RECORDS)
_WRITE_VERBS = frozenset(get_args(WriteVerb))
_WINDOWS = ("bucket", "fixed", "rolling", "parallel")


def mistakes(adapter: type[Adapter]) -> Iterator[str]:
    """Yield what is wrong, each as "fact: why"."""
    for fact in ("name", "label", "api_version"):
        if not isinstance(getattr(adapter, fact, None), str):
            yield f"{fact}: is missing"
    if isinstance(getattr(adapter, "name", None), str) and not _NAME.fullmatch(adapter.name):
        yield f"name: {adapter.name!r} must be lower case, letters, digits and _"
    yield from _auth(getattr(adapter, "auth", None))
    yield from _windows(adapter.windows)
    kinds = getattr(adapter, "kinds", None)
    if not isinstance(kinds, Mapping) or not kinds:
        yield "kinds: is missing: state at least one, such as 'contact'"
        return
    for of, kind in adapter.relations:
        for each in (of, kind):
            if each not in kinds:
                yield f"relations: {(of, kind)!r} names {each!r}, which `kinds` does not have"
    for kind, facts in kinds.items():
        yield from _kind(adapter, kind, facts)
    yield from _verbs(adapter, kinds)


def _auth(auth: Any) -> Iterator[str]:
    if not isinstance(auth, Mapping) or not auth:
        yield 'auth: is missing: state at least one scheme, such as {"token": Token()}'
        return
    for name, scheme in auth.items():
        if not isinstance(scheme, Auth):
            yield f"auth[{name!r}]: must be OAuth(…), Login(…), OAuth1(…), Token(…) or Basic(…)"


def _windows(windows: Iterable[Any]) -> Iterator[str]:
    for each in windows:
        if not isinstance(each, Window):
            yield f"windows: {each!r} is no Window(…)"
        elif each.limit <= 0 or each.period <= 0 or each.kind not in _WINDOWS:
            yield f"windows: {each.name!r} needs a limit and a period above 0 and a kind of {', '.join(_WINDOWS)}"


def _kind(adapter: type[Adapter], kind: Any, facts: Any) -> Iterator[str]:
    where = f"kinds[{kind!r}]"
    if kind not in _KINDS:
        yield f"{where}: there is no such kind; there are: {', '.join(_KINDS)}"
        return
    if not isinstance(facts, KindFacts):
        yield f"{where}: must be KindFacts(…)"
        return
    try:
        document = Document.model_validate({"fields": facts.mapping})
        compile_mapping(
            document,
            kind,
            source="check",
            system="check",
            native_object=facts.object,
            region="US",
            currency="USD",
            url=lambda _kind, _id: None,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        yield f"{where}.mapping[{'.'.join(str(step) for step in first['loc'][1:])!r}]: {first['msg'].removeprefix('Value error, ')}"
    except MappingError as error:
        yield f"{where}.mapping[{error.field!r}]: {error.message.partition(': ')[2]}"
    yield from _writes(adapter, where, kind, facts)
    for order in facts.orders:
        if f"{order}_at" not in facts.mapping:
            yield f"{where}.orders: to be listed by {order!r} time the mapping must fill {order}_at"
    if issubclass(adapter, RestAdapter):
        yield from _resource(adapter, kind, facts)


def _writes(adapter: type[Adapter], where: str, kind: Kind, facts: KindFacts) -> Iterator[str]:
    try:
        spellings(facts.writes)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        yield f"{where}.writes: {first['msg'].removeprefix('Value error, ')}"
    for target in facts.writes:
        if target not in RECORDS[kind].__struct_fields__:
            yield f"{where}.writes[{target!r}]: there is no such field"
    if facts.verbs - _WRITE_VERBS:
        yield f"{where}.verbs: there are {', '.join(sorted(_WRITE_VERBS))}"
    if bool(facts.verbs & {"create", "update"}) != bool(facts.writes):
        yield f"{where}: `verbs` and `writes` go together: what can be done, and which fields are written"
    if facts.write_batch < 1:
        yield f"{where}.write_batch: must be 1 or more"
    for other in facts.links:
        if other not in adapter.kinds:
            yield f"{where}.links: names {other!r}, which `kinds` does not have"


def _resource(adapter: type[RestAdapter], kind: Kind, facts: KindFacts) -> Iterator[str]:
    resource = getattr(adapter, "resources", {}).get(kind)
    if not isinstance(resource, Resource):
        yield f"resources[{kind!r}]: is missing: say where the kind's records are"
        return
    for order in facts.orders - resource.order.keys():
        yield f"resources[{kind!r}].order: kinds[{kind!r}] promises {order!r}, which this does not say how to sort by"
    for key in facts.find - resource.find.keys():
        yield f"resources[{kind!r}].find: kinds[{kind!r}] promises {key!r}, which this does not say how to look up"
    for of, child in adapter.relations:
        if child == kind and of not in resource.of:
            yield f"resources[{kind!r}].of: relations promise those of a {of}, and this does not say by which parameter"
    if not isinstance(getattr(adapter, "check_path", None), str):
        yield "check_path: is missing: a cheap path that proves the credentials"


def _verbs(adapter: type[Adapter], kinds: Mapping[Kind, Any]) -> Iterator[str]:
    needed = {"check": True, "describe": True, "read": True, "classify": True, "related": bool(adapter.relations)}
    needed["write"] = any(isinstance(facts, KindFacts) and facts.verbs for facts in kinds.values())
    needed["read"] = any(isinstance(facts, KindFacts) and facts.read_batch for facts in kinds.values())
    needed["find"] = any(isinstance(facts, KindFacts) and facts.find for facts in kinds.values())
    needed["scan"] = any(isinstance(facts, KindFacts) and facts.orders for facts in kinds.values())
    for verb, is_needed in needed.items():
        if is_needed and getattr(adapter, verb) is getattr(Adapter, verb):
            yield f"{verb}: the facts promise it, and the class does not define it"
