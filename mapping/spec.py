"""What a mapping document says: for each target field, where its value stands in a row and how it is converted.

A document is data: adapters bring the defaults (version 1), workspaces may publish their own. A rule in short form is a
path. See `Rule` for the long form; conversions are named functions of `mapping/convert.py`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mapping.convert import CONVERTERS
from mapping.paths import steps


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(_Strict):
    """True when the value at `path` is present (not null, not "", not false), or is one of `any_of`."""

    path: str
    any_of: tuple[Any, ...] | None = None


class Case(_Strict):
    when: Condition
    value: Any


class MoneyRule(_Strict):
    """An amount and its currency; a missing currency is the object's, then the source's default.

    Attributes:
        minor: the amount counts the currency's smallest unit (cents).
    """

    amount: str
    currency: str | None = None
    minor: bool = False


class Rule(_Strict):
    """How one target field is filled. Exactly one of `path paths value cases money each` says from what.

    Attributes:
        path: one value.
        paths: several values, handed to the first converter as a list without nulls.
        value: a constant.
        cases: the first case whose condition holds, else `default`.
        money: an amount with its currency.
        each: with `over`, a path to a list: one target object per entry, its fields by these rules.
        convert: converters in order; "split:;" passes an argument. A null skips them.
        values: native value → target value after conversion; a value not in it becomes `default`.
        default: what a null becomes.
    """

    path: str | None = None
    paths: tuple[str, ...] = ()
    value: Any = None
    cases: tuple[Case, ...] = ()
    money: MoneyRule | None = None
    over: str | None = None
    each: dict[str, "Rule"] = Field(default_factory=dict)
    convert: tuple[str, ...] = ()
    values: dict[str, Any] | None = None
    default: Any = None

    @field_validator("convert", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("convert")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.partition(":")[0] not in CONVERTERS:
                raise ValueError(f"no converter {name!r}; there are: {', '.join(sorted(CONVERTERS))}")
        return value

    @field_validator("each", mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        return _expanded(value)

    @model_validator(mode="after")
    def _one_source(self) -> "Rule":
        said = [
            self.path is not None,
            bool(self.paths),
            "value" in self.model_fields_set,
            bool(self.cases),
            self.money is not None,
            bool(self.each),
        ]
        if sum(said) != 1:
            raise ValueError("say exactly one of path, paths, value, cases, money, each")
        if bool(self.each) != (self.over is not None):
            raise ValueError("`each` and `over` go together")
        for path in self.native_paths():
            steps(path)
        return self

    def native_paths(self) -> tuple[str, ...]:
        """Return every path into the row that the rule reads."""
        if self.path is not None:
            return (self.path,)
        if self.money is not None:
            return tuple(path for path in (self.money.amount, self.money.currency) if path)
        if self.over is not None:
            return tuple(f"{self.over}.{path}" for rule in self.each.values() for path in rule.native_paths())
        return self.paths or tuple(case.when.path for case in self.cases)


class Document(_Strict):
    version: Literal[1] = 1
    fields: dict[str, Rule]

    @field_validator("fields", mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        return _expanded(value)


def _expanded(rules: object) -> object:
    if not isinstance(rules, Mapping):
        return rules
    return {name: {"path": rule} if isinstance(rule, str) else rule for name, rule in rules.items()}
