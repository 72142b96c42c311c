"""The population changes by itself: people at the vendors edit records, so that whoever follows sees something."""

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sandbox.world import TITLES

if TYPE_CHECKING:
    from sandbox.app import Sandbox

PAUSE = 1.5  # seconds between two edits
# What people edit: the native field of a contact that says what someone does, or another that anybody may change.
EDITED: Mapping[str, str] = {
    "bigcommerce": "company", "dynamics": "jobtitle", "freshdesk": "job_title", "hubspot": "jobtitle", "magento": "middlename",
    "mailchimp": "language", "marketo": "title", "pipedrive": "job_title", "salesforce": "Title", "shopify": "note", "sugarcrm": "title",
    "zendesk": "details", "zoho": "Title",
}  # fmt: skip


async def living(sandbox: "Sandbox", *, seed: int = 1) -> None:
    """Edit a record now and then, for ever."""
    rng = random.Random(seed)
    while True:
        await asyncio.sleep(rng.uniform(0.5, 1.5) * PAUSE)
        name, dialect = rng.choice(list(sandbox.dialects.items()))
        person = rng.choice(sandbox.world.people)
        known = [each for each in dialect.truth(person) if each["kind"] == "contact" and not each["deleted"]]
        if known:
            dialect.change("contact", known[0]["id"], {EDITED[name]: rng.choice(TITLES)})
