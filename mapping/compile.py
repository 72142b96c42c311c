"""A mapping document, compiled to one Python function per (source, kind).

The generated function reads each path once and calls nothing that the document does not name: several times faster than
walking the rules for every row. It is built from parsed rules only; no text of a document reaches the source unquoted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from mapping.convert import converter, decimal
from mapping.paths import Getter, pick, steps
from mapping.spec import Document, Rule
from model.errors import MappingError
from model.money import Money, of_amount, of_minor
from model.records import RECORDS, Kind, ObjectType, OrderItem, Record, Row, Stage

ALWAYS = ("native_id", "created_at", "updated_at")
_REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "deal": ("stage",),
    "order": ("status", "raw_status", "total", "placed_at"),
    "ticket": ("status", "raw_status", "created_at", "updated_at"),
    "marketing_event": ("event", "raw_kind", "at"),
}
_EMPTY: dict[str, Any] = {}
_CLASSES: Mapping[str, Callable[..., Any]] = {"items": OrderItem}  # what `each` makes, by target field


@dataclass(frozen=True, slots=True)
class Compiled:
    """One source's mapping of one kind.

    Attributes:
        kind: what `record` returns.
        needs_metadata: stages or default currencies come from the object's metadata.
        targets: target field → the native paths it is read from.
    """

    kind: Kind
    targets: Mapping[str, tuple[str, ...]]
    needs_metadata: bool
    _make: Callable[[Row, ObjectType | None, datetime], Record]
    _place: Callable[[Row], tuple[str, datetime | None, datetime | None]]

    def record(self, row: Row, meta: ObjectType | None, fetched_at: datetime) -> Record:
        """Return the row's record.

        Args:
            meta: the object's metadata, for stages and the default currency; None where the kind needs none.

        Raises:
            MappingError: a value does not fit; it names the field.
        """
        return self._make(row, meta, fetched_at)

    def place(self, row: Row) -> tuple[str, datetime | None, datetime | None]:
        """Return a row's native id, created and updated times, even when the rest of it does not fit.

        Raises:
            MappingError: not even these can be read.
        """
        return self._place(row)

    def paths(self, fields: Iterable[str]) -> tuple[str, ...]:
        """Return the native paths that these target fields need, always with id, times and what the record requires.

        Target fields the document does not fill need no path.
        """
        wanted = dict.fromkeys((*ALWAYS, *_REQUIRED.get(self.kind, ()), *fields))
        return tuple(dict.fromkeys(path for target in wanted for path in self.targets.get(target, ())))


def compile_mapping(
    document: Document, kind: Kind, *, source: str, system: str, native_object: str, region: str, currency: str,
    url: Callable[[Kind, str], str | None],
) -> Compiled:  # fmt: skip
    """Compile a document for one source.

    Raises:
        MappingError: the document fills a field that the kind does not have, or leaves out `native_id`.
    """
    record = RECORDS[kind]
    known = set(record.__struct_fields__) - {"source", "system", "object", "row", "fetched_at", "url"}
    for target in document.fields:
        if target not in known:
            raise MappingError(f"{system} {kind}: there is no field {target!r}", field=target)
    if "native_id" not in document.fields:
        raise MappingError(f"{system} {kind}: the mapping must fill native_id", field="native_id")
    code = _Code(region=region, currency=currency)
    code.add("def make(row, meta, fetched_at):")
    code.add(" f = 'native_id'")
    code.add(" try:")
    for name, (target, rule) in enumerate(document.fields.items()):
        code.add(f"  f = {target!r}")
        code.add(f"  t{name} = {code.expression(rule, 'row', target)}")
    names = {target: f"t{name}" for name, target in enumerate(document.fields)}
    keywords = ", ".join(f"{target}={name}" for target, name in names.items())
    code.add(
        f"  return Record(source=SOURCE, system=SYSTEM, object=OBJECT, row=row, fetched_at=fetched_at, url=url(KIND, {names['native_id']}), {keywords})"
    )
    code.add(" except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:")
    code.add("  raise MappingError(f'{SYSTEM} {KIND}: {f} does not fit its mapping', field=f) from error")
    code.bound |= {
        "Record": _required(record, kind),
        "SOURCE": source,
        "SYSTEM": system,
        "OBJECT": native_object,
        "KIND": kind,
        "url": url,
        "MappingError": MappingError,
    }
    targets = {target: rule.native_paths() for target, rule in document.fields.items()}
    needs_metadata = any("stage" in rule.convert or _lacks_currency(rule) for rule in document.fields.values())
    return Compiled(kind, targets, needs_metadata, code.build("make"), _compiled_place(document, kind, system, region, currency))


def _compiled_place(
    document: Document, kind: Kind, system: str, region: str, currency: str
) -> Callable[[Row], tuple[str, datetime | None, datetime | None]]:
    code = _Code(region=region, currency=currency)
    code.add("def place(row):")
    code.add(" try:")
    found = [document.fields.get(target) for target in ALWAYS]
    code.add(f"  return ({', '.join(code.expression(rule, 'row', '') if rule else 'None' for rule in found)},)")
    code.add(" except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:")
    code.add("  raise MappingError(f'{SYSTEM} {KIND}: id or times cannot be read', field='native_id') from error")
    code.bound |= {"SYSTEM": system, "KIND": kind, "MappingError": MappingError}
    return code.build("place")


def _lacks_currency(rule: Rule) -> bool:
    own = rule.money is not None and rule.money.currency is None
    return own or any(_lacks_currency(inner) for inner in rule.each.values())


def _required(record: type[Record], kind: Kind) -> Callable[..., Record]:
    """Return the class, guarded so that a required field never comes through as None."""
    required = tuple(name for name in _REQUIRED.get(kind, ()))
    if not required:
        return record

    def guarded(**values: Any) -> Record:
        for name in required:
            if values.get(name) is None:
                raise MappingError(f"{values['system']} {kind}: {name} is missing", field=name)
        return record(**values)

    return guarded


class _Code:
    """Source lines and the names they are bound to."""

    def __init__(self, *, region: str, currency: str) -> None:
        self.lines: list[str] = []
        self.bound: dict[str, Any] = {
            "EMPTY": _EMPTY,
            "isdict": dict,
            "money": _money(currency, of_amount),
            "minor": _money(currency, of_minor),
            "stage": _stage,
            "pick": pick,
        }
        self.region = region

    def add(self, line: str) -> None:
        self.lines.append(line)

    def bind(self, value: object) -> str:
        name = f"b{len(self.bound)}"
        self.bound[name] = value
        return name

    def build(self, name: str) -> Callable[..., Any]:
        namespace = dict(self.bound)
        exec(compile("\n".join(self.lines), "<mapping>", "exec"), namespace)  # noqa: S102 - generated from parsed rules
        function: Callable[..., Any] = namespace[name]
        return function

    def value(self, path: str, row: str) -> str:
        found = steps(path)
        if any(selector for _, selector in found):
            return f"pick({row}, {path!r})"
        expression = row
        for name, _ in found[:-1]:
            step = self.bind(_step(name))
            expression = f"{step}({expression})"
        return f"{expression}.get({found[-1][0]!r})"

    def expression(self, rule: Rule, row: str, target: str) -> str:
        if rule.cases:
            cases = "".join(
                f"{self.bind(case.value)} if {self._holds(case.when.path, case.when.any_of, row)} else " for case in rule.cases
            )
            return f"({cases}{self.bind(rule.default)})"
        if rule.money is not None:
            currency = self.value(rule.money.currency, row) if rule.money.currency else "None"
            return f"{'minor' if rule.money.minor else 'money'}({self.value(rule.money.amount, row)}, {currency}, meta)"
        if rule.over is not None:
            return self._each(rule, row, target)
        if rule.path is not None:
            expression = self.value(rule.path, row)
        elif rule.paths:
            expression = f"[v for v in ({', '.join(self.value(path, row) for path in rule.paths)},) if v is not None]"
        else:
            return self.bind(rule.value)
        for name in rule.convert:
            call = "stage(v, meta)" if name == "stage" else f"{self.bind(converter(name, region=self.region))}(v)"
            expression = f"({call} if (v := {expression}) is not None else None)"
        if rule.values is not None:
            expression = f"({self.bind(rule.values)}.get(v) if (v := {expression}) is not None else None)"
        if rule.default is not None:
            expression = f"(v if (v := {expression}) is not None else {self.bind(rule.default)})"
        return expression

    def _holds(self, path: str, any_of: Sequence[Any] | None, row: str) -> str:
        value = self.value(path, row)
        return f"{value} in {self.bind(tuple(any_of))}" if any_of is not None else f"{value} not in (None, '', False)"

    def _each(self, rule: Rule, row: str, target: str) -> str:
        fields = ", ".join(f"{name}={self.expression(inner, 'entry', name)}" for name, inner in rule.each.items())
        made = self.bind(_CLASSES[target])
        return f"tuple([{made}({fields}) for entry in ({self.value(rule.over or '', row)} or ())])"


def _step(name: str) -> Getter:
    """Go one step down; anything but an object below counts as empty."""

    def step(row: Mapping[str, Any]) -> Any:
        below = row.get(name)
        return below if below.__class__ is dict else _EMPTY

    return step


def _money(default: str, make: Callable[[Decimal, str], Money]) -> Callable[[Any, Any, ObjectType | None], Money | None]:
    def money(amount: Any, currency: Any, meta: ObjectType | None) -> Money | None:
        exact = decimal(amount) if amount is not None else None
        if exact is None:
            return None
        return make(exact, str(currency or (meta and meta.currency) or default).upper())

    return money


def _stage(native: Any, meta: ObjectType | None) -> Stage:
    """Return the stage the metadata knows; one that was removed since counts as open under its native name."""
    known = meta.stages.get(str(native)) if meta else None
    return known or Stage(id=str(native), name=str(native), category="OPEN", pipeline=None, native=str(native))
