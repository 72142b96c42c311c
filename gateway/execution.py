"""How a document runs, whatever it came in by: queries and mutations once, a subscription once per event."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from inspect import isawaitable
from typing import Any, Final

import orjson
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    NoSchemaIntrospectionCustomRule,
    NullValueNode,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    get_operation_ast,
    parse,
    specified_rules,
    validate,
)
from graphql.execution import create_source_event_stream
from strawberry import Schema

from gateway import limits as documents
from gateway.callers import Caller
from gateway.errors import refusal, shown
from gateway.limits import Limits
from model.errors import C360Error, InvalidRequestError
from resolvers.context import Context

_MAX_NESTING = 100  # levels of a body: deeper ones cost stack when variables are coerced
_REMEMBERED = 10_000  # characters of a document that is worth keeping checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    query: str
    operation: str | None
    variables: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """A checked subscription, ready to follow.

    Attributes:
        shared: its events are the same for everyone who asks the same from now on.
    """

    document: DocumentNode
    shared: bool


class NotExecutedError(Exception):
    """The request went wrong before anything ran; `body` is its answer."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__("not executed")
        self.body = body


class Engine:
    """One schema under one set of limits.

    Args:
        context: makes what resolvers get, once per request or event.
        introspection: `__schema` is answered, and errors may tell names of the schema.
    """

    def __init__(
        self, schema: Schema, *, context: Callable[[Any, Caller], Awaitable[Context]], limits: Limits, introspection: bool
    ) -> None:
        self._schema, self._context, self._limits = schema, context, limits
        self._suggest = introspection
        self._rules = [*specified_rules, *([] if introspection else [NoSchemaIntrospectionCustomRule])]
        self._remembered = lru_cache(maxsize=256)(self._checked)

    def operation(self, asked: Asked) -> OperationType | None:
        """Return what a document is to do, None when execution has to tell what is wrong with it.

        Raises:
            InvalidRequestError: it goes past a limit, or does not say which operation is meant.
        """
        document = documents.check(asked.query, self._limits)
        if document is None:
            return None
        found = get_operation_ast(document, asked.operation)
        if found is None:  # Strawberry would run the first of several, be it a mutation by GET
            raise InvalidRequestError(
                "the document has no operation of that name, or several and none is named by `operationName`"
            )
        return found.operation

    async def run(self, asked: Asked, caller: Caller, request: Any) -> tuple[bool, dict[str, Any]]:
        """Execute a query or mutation; return whether it was executed, and the answer's body."""
        context = await self._context(request, caller)
        try:
            result = await self._schema.execute(asked.query, asked.variables, context, operation_name=asked.operation)
        except C360Error as error:
            return False, refusal(error.code, error.message)
        except (GraphQLError, ValueError, RecursionError) as error:  # no such operation, a document that cannot be walked
            return False, refusal("VALIDATION", str(error))
        executed = result.data is not None or any(error.path for error in result.errors or ())
        return executed, self._body(result.data, result.errors, executed=executed)

    def subscription(self, asked: Asked, *, resumed: bool) -> Subscribed:
        """Return the checked subscription.

        Args:
            resumed: the caller goes on from an event, whatever the document says.

        Raises:
            InvalidRequestError: it goes past a limit.
            NotExecutedError: it is no valid document.
        """
        check = self._remembered if len(asked.query) <= _REMEMBERED else self._checked
        document, errors = check(asked.query)
        if errors or document is None:
            raise NotExecutedError(self._body(None, list(errors), executed=False))
        operation = get_operation_ast(document, asked.operation)
        assert operation is not None  # the caller has found it to be a subscription
        return Subscribed(document=document, shared=not resumed and _is_shared(operation, asked.variables or {}))

    async def follow(
        self, asked: Asked, subscribed: Subscribed, caller: Caller, request: Any, *, resume_from: str | None
    ) -> "Stream":
        """Start a subscription.

        Raises:
            NotExecutedError: it cannot be.
        """
        context = await self._context(request, caller)
        context.resume_from = resume_from
        executor: Any = self._schema.execution_context_class.build(
            self._schema._schema, subscribed.document, context_value=context, raw_variable_values=asked.variables,  # noqa: SLF001
            operation_name=asked.operation, operation_extensions=None,
        )  # fmt: skip
        if isinstance(executor, list):
            raise NotExecutedError(self._body(None, executor, executed=False))
        found = create_source_event_stream(executor)
        source: Any = await found if isawaitable(found) else found
        if isinstance(source, ExecutionResult):
            raise NotExecutedError(self._body(None, source.errors, executed=False))

        async def fresh() -> Context:
            made = await self._context(request, caller)
            made.cached_only = True
            return made

        return Stream(source, executor, fresh, self._body)

    def _checked(self, query: str) -> tuple[DocumentNode | None, tuple[GraphQLError, ...]]:
        documents.check(query, self._limits)
        try:
            document = parse(query, max_tokens=self._limits.tokens)
            return document, tuple(validate(self._schema._schema, document, self._rules))  # noqa: SLF001
        except GraphQLError as error:
            return None, (error,)
        except RecursionError:
            raise InvalidRequestError("the document is nested too deeply") from None

    def _body(self, data: Any, errors: Any, *, executed: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"errors": [shown(error, suggest=self._suggest) for error in errors]} if errors else {}
        if executed:
            body["data"] = data
        return body


class Stream:
    """The events of one subscription, each executed anew: nothing that was loaded for one is there for the next."""

    def __init__(
        self,
        source: AsyncGenerator[Any, None],
        executor: Any,
        context: Callable[[], Awaitable[Context]],
        body: Callable[..., Any],
    ) -> None:
        self._source, self._executor, self._context, self._body = source, executor, context, body

    async def events(self) -> AsyncGenerator[tuple[Any, Context, str], None]:
        """Yield (event, the context it was executed in, the answer as JSON). Raises what the source raises."""
        try:
            async for event in self._source:
                executor = self._executor.build_per_event_executor(event)
                executor.context_value = context = await self._context()
                result = executor.execute_operation(False)
                if isawaitable(result):
                    result = await result
                yield event, context, orjson.dumps(self._body(result.data, result.errors, executed=True), default=str).decode()
        finally:
            await self.close()

    async def close(self) -> None:
        await self._source.aclose()


def parsed(body: bytes | str) -> Any:
    """Return what JSON text says.

    Raises:
        ValueError: it is no JSON, or nested too deeply; the text tells which.
    """
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ValueError("is not valid JSON") from None
    level = [said]
    for _ in range(_MAX_NESTING):
        level = [
            below
            for each in level
            if isinstance(each, dict | list)
            for below in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return said
    raise ValueError("is nested too deeply")


def understood(said: Mapping[str, Any]) -> Asked:
    """Return what a request's object asks.

    Raises:
        InvalidRequestError: naming the part that is wrong.
    """
    query = said.get("query")
    if not isinstance(query, str) or not query.strip():
        raise InvalidRequestError("`query` must be the document, as text")
    operation, variables = said.get("operationName"), said.get("variables")
    if operation is not None and not isinstance(operation, str):
        raise InvalidRequestError("`operationName` must be text")
    if variables is not None and not isinstance(variables, dict):
        raise InvalidRequestError("`variables` must be an object")
    if said.get("extensions") is not None and not isinstance(said["extensions"], dict):
        raise InvalidRequestError("`extensions` must be an object")
    return Asked(query=query, operation=operation or None, variables=variables)


_ALIKE: Final = frozenset({"events", "customerChanged"})  # what comes does not depend on when one came


def _is_shared(operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> bool:
    """Tell whether a subscription starts now, and gives everyone the same from then on."""
    fields = operation.selection_set.selections
    if len(fields) != 1 or not isinstance(fields[0], FieldNode) or fields[0].name.value not in _ALIKE:
        return False
    since = next((each.value for each in fields[0].arguments or () if each.name.value == "since"), None)
    if isinstance(since, VariableNode):
        defaults = {each.variable.name.value: each.default_value for each in operation.variable_definitions or ()}
        given = variables.get(since.name.value)
        return given is None and (since.name.value in variables or defaults.get(since.name.value) is None)
    return since is None or isinstance(since, NullValueNode)


async def cancelled(*tasks: "asyncio.Future[Any] | None") -> None:
    """Cancel tasks, and wait until they are done."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
