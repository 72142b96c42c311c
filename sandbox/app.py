"""The sandbox as one app: each system under `/{system}`, the controls under `/_control`."""

import ssl
from collections.abc import Iterable, Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox.bigcommerce import BigCommerce
from sandbox.certificate import self_signed
from sandbox.clock import SandboxClock
from sandbox.control import control_routes
from sandbox.dialect import Dialect
from sandbox.dynamics import Dynamics
from sandbox.faults import Faults
from sandbox.freshdesk import Freshdesk
from sandbox.hubspot import HubSpot
from sandbox.living import living
from sandbox.magento import Magento
from sandbox.mailchimp import Mailchimp
from sandbox.marketo import Marketo
from sandbox.pipedrive import Pipedrive
from sandbox.salesforce import Salesforce
from sandbox.shopify import Shopify
from sandbox.sugarcrm import SugarCRM
from sandbox.world import World
from sandbox.zendesk import Zendesk
from sandbox.zoho import Zoho

DIALECTS: Mapping[str, type[Dialect]] = {
    each.name: each
    for each in (
        BigCommerce,
        Dynamics,
        Freshdesk,
        HubSpot,
        Magento,
        Mailchimp,
        Marketo,
        Pipedrive,
        Salesforce,
        Shopify,
        SugarCRM,
        Zendesk,
        Zoho,
    )
}


class Sandbox(Starlette):
    """All dialects over one world.

    Attributes:
        dialects: by system, for tests in the same process.
    """

    def __init__(self, *, people: int = 1000, seed: int = 1, systems: Iterable[str] = tuple(DIALECTS)) -> None:
        self.clock = SandboxClock()
        self.faults = Faults(seed)
        chosen = tuple(systems)
        self.world = World(people=people, seed=seed, systems=chosen)
        self.dialects = {name: DIALECTS[name](self.world, self.clock) for name in chosen}
        super().__init__(
            routes=[
                Mount("/_control", routes=control_routes(self.world, self.clock, self.faults, self.dialects)),
                *(Mount(f"/{name}", routes=dialect.routes(self.faults)) for name, dialect in self.dialects.items()),
            ]
        )


class _Protocol(HttpToolsProtocol):
    """Hands the connection to the app, so that a fault can cut it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["c360.transport"] = self.transport  # type: ignore[typeddict-unknown-key]


def server(app: Any, *, host: str = "127.0.0.1", port: int = 0, tls: bool = False) -> uvicorn.Server:
    """Return a uvicorn server for the sandbox; with `tls` it answers https under a self-signed certificate."""
    config = uvicorn.Config(app, host=host, port=port, http=_Protocol, log_level="warning", access_log=False, lifespan="off")
    if tls:
        config.load()
        config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with self_signed(host) as (certificate, key):
            config.ssl.load_cert_chain(certificate, key)
    return uvicorn.Server(config)


__all__ = ["DIALECTS", "Sandbox", "living", "server"]
