"""Which systems there are."""

from collections.abc import Mapping

from adapters.base import Adapter
from adapters.hubspot import HubSpot
from adapters.salesforce import Salesforce
from adapters.shopify import Shopify
from adapters.zendesk import Zendesk

ADAPTERS: Mapping[str, type[Adapter]] = {each.name: each for each in (HubSpot, Salesforce, Shopify, Zendesk)}
