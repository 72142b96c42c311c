"""The schema object, and its SDL."""

from typing import Any, Final

from strawberry.extensions import DisableIntrospection
from strawberry.federation import Schema
from strawberry.federation.schema import FederationAny
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import merge_types
from strawberry.types import Info

from schema.custom import CustomRecord
from schema.endpoints import EndpointMutations, EndpointQueries
from schema.entities import entities
from schema.mutation import Mutation
from schema.query import Query
from schema.scalars import SCALARS
from schema.subscription import Subscription
from schema.types import Account, Contact, Customer, Deal, Lead, Order, Ticket

FEDERATION: Final = "2.7"


class Graph(Schema):
    """The Federation v2 subgraph.

    Attributes:
        email_key: `_entities` finds customers by `primaryEmail`; a deployment may switch it off.
    """

    email_key = True

    def entities_resolver(self, info: Info[Any, Any], representations: list[FederationAny]) -> list[FederationAny]:
        return entities(info, representations, email_key=self.email_key)

    def process_errors(self, errors: Any, execution_context: Any = None) -> None:
        """Leave logging to the edge, which knows the request id and what must not be written down."""


def build(*, email_key: bool = True, introspection: bool = True) -> Graph:
    """Return the graph.

    Args:
        introspection: `__schema` and `__type` are answered.
    """
    graph = Graph(
        query=merge_types("Query", (Query, EndpointQueries)),
        mutation=merge_types("Mutation", (Mutation, EndpointMutations)),
        subscription=Subscription,
        types=[Account, Contact, Customer, CustomRecord, Deal, Lead, Order, Ticket],
        federation_version=FEDERATION,
        extensions=[] if introspection else [DisableIntrospection],
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    graph.email_key = email_key
    return graph


def sdl() -> str:
    """Return the schema in the schema definition language, as it is committed in schema/schema.graphql."""
    return build().as_str() + "\n"
