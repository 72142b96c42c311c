"""Mailchimp's dialect: problem documents told apart by their title, offset pages of ten, members under three names, ten connections.

Written from the fact sheet of the Marketing API 3.0 and a third party's copy of its description (3.0.55). What they leave open is
answered so: `since_…` and `before_…` leave their edges out ("after", "before"); the default list shows all but archived members; an
archived member comes back by PUT with a `status` only; a query parameter that is not in the description, and a `count` above 1,000,
are refused; the activity feed has the newest first.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, Handler, json_response
from sandbox.faults import Faults
from sandbox.mailchimp_answers import FIELDS, PAGED, known, links, paging, problem, projected, said_in
from sandbox.mailchimp_audience import MERGE_FIELDS, STATUSES, Audience, Refused, Span, contact, invalid, iso, millis
from sandbox.mailchimp_hooks import Hooks
from sandbox.mailchimp_hooks import source as making
from sandbox.table import Row
from sandbox.world import CAMPAIGNS, END, MarketingEvent, World

API_KEY = "0123456789abcdef0123456789abcdef-us19"
ACCESS_TOKEN = "mailchimp-demo-oauth-token"  # from OAuth: it never expires, and is used like the key
AUDIENCE, OTHER = "c360de0001", "c360de0002"
_CONNECTIONS, _BATCH = 10, 500
_PATCHED = STATUSES - {"transactional"}
MEMBER_FILTERS = PAGED | {"status", "since_last_changed", "before_last_changed", "sort_field", "sort_dir", "unique_email_id"}
_SORTS = frozenset({"last_changed", "timestamp_opt", "timestamp_signup"})
_WHAT = {0: "sent", 2: "open", 3: "click", 4: "bounce", 5: "unsub"}  # the feed knows no delivery
_NOT_IN_BATCH = frozenset({"contact_id", "full_name", "web_id", "consents_to_one_to_one_messaging", "source"})


class Mailchimp(Dialect):
    """One account with two audiences; the older one holds the population.

    Attributes:
        busiest: the most calls that were open at once.
    """

    name = "mailchimp"
    objects = {"contact": "members"}
    base_path = "/3.0"

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self._open = self.busiest = 0
        self._audiences = {
            AUDIENCE: Audience(
                AUDIENCE, "Demo audience", END - 4 * 365 * 86_400_000, world.profiles[self.name], world.people, clock
            ),
            OTHER: Audience(OTHER, "Second audience", END - 365 * 86_400_000, (), (), clock),
        }
        self.tables = {"contact": self._audiences[AUDIENCE].members}
        self.hooks = Hooks(clock, lambda sending: self.outbox.post(sending), self._audiences.keys())
        self._events: dict[str, list[MarketingEvent]] = {}
        for event in sorted(world.events[self.name], key=lambda each: -each.at):
            if event.what in _WHAT:
                self._events.setdefault(contact(event.contact), []).append(event)

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "token", "token": API_KEY}

    def endpoints(self) -> list[Endpoint]:
        list_, member = "/3.0/lists/{list}", "/3.0/lists/{list}/members/{who}"
        return [
            Endpoint("GET", "/3.0/", self._root), Endpoint("GET", "/3.0/ping", self._ping), Endpoint("GET", "/3.0/lists", self._lists),
            Endpoint("GET", list_, self._refusing(self._list)), Endpoint("POST", list_, self._refusing(self._batch)),
            Endpoint("GET", f"{list_}/merge-fields", self._refusing(self._merge_fields)),
            Endpoint("GET", f"{list_}/members", self._refusing(self._members)), Endpoint("POST", f"{list_}/members", self._refusing(self._add)),
            Endpoint("GET", member, self._refusing(self._member)), Endpoint("PUT", member, self._refusing(self._put)),
            Endpoint("PATCH", member, self._refusing(self._patch)), Endpoint("DELETE", member, self._refusing(self._archive)),
            Endpoint("POST", f"{member}/actions/delete-permanent", self._refusing(self._forget)),
            Endpoint("GET", f"{member}/activity-feed", self._refusing(self._feed)), Endpoint("GET", "/3.0/search-members", self._refusing(self._search)),
            *(Endpoint(method, f"{list_}{path}", self._refusing(handler)) for method, path, handler in self.hooks.calls()),
        ]  # fmt: skip

    def _guarded(self, endpoint: Endpoint, faults: Faults) -> Handler:
        """At most ten calls at once, those that are slow by a fault included."""
        handle = super()._guarded(endpoint, faults)

        async def counted(request: Request) -> Response:
            if self._open >= _CONNECTIONS:
                return self.throttled(0)
            self._open += 1
            self.busiest = max(self.busiest, self._open)
            try:
                return await handle(request)
            finally:
                self._open -= 1

        return counted

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":  # any user name; the key is the password
            try:
                given = base64.b64decode(given).decode().partition(":")[2]
            except ValueError:
                given = ""
        if scheme.lower() not in {"basic", "bearer"} or given not in {API_KEY, ACCESS_TOKEN}:
            text = "Your API key may be invalid, or you've attempted to access the wrong datacenter."
            return problem(401, "API Key Invalid", text)
        return None

    def throttled(self, seconds: float) -> Response:
        return problem(429, "Too Many Requests", "You have exceeded the limit of 10 simultaneous connections.")

    def exhausted(self) -> Response:
        return Response(status_code=403)  # what exceptionally high volumes get: no body, no word

    def unknown(self, request: Request) -> Response:
        return problem(404, "Resource Not Found", "The requested resource could not be found.")

    def native(self, kind: str, world_id: int) -> str:
        return contact(world_id)

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        audience = self._audiences[AUDIENCE]
        row = audience.members.get(native_id)
        return audience.edit(row, fields) if row is not None else None

    def delete(self, kind: str, native_id: str) -> bool:
        audience = self._audiences[AUDIENCE]
        row = audience.members.get(native_id)
        if row is None or row["status"] == "archived":
            return False
        audience.edit(row, {"status": "archived"})
        return True

    def _refusing(self, handler: Callable[[Request], Awaitable[Response]]) -> Handler:
        async def handle(request: Request) -> Response:
            making.set("api")  # in this call's own context
            try:
                return await handler(request)
            except Refused as refused:
                return problem(refused.status, refused.title, refused.detail, refused.fields)

        return handle

    # ---- webhooks ----

    def listen(self, faults: Faults) -> None:
        super().listen(faults)
        for audience in self._audiences.values():
            audience.members.watcher = partial(self.changed, "contact")

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        self.hooks.changed(before, after)

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self.hooks.listed()

    # ---- account ----

    async def _root(self, request: Request) -> Response:
        count = self._audiences[AUDIENCE].count()
        return projected(request, {"account_id": "c360demoaccount", "login_id": "1", "account_name": "Demo account", "email": "owner@c360-demo.example", "role": "owner", "total_subscribers": count, "_links": links("/")})  # fmt: skip

    async def _ping(self, _: Request) -> Response:
        return json_response({"health_status": "Everything's Chimpy!"})

    async def _lists(self, request: Request) -> Response:
        said = request.query_params
        oldest_first = said.get("sort_field") == "date_created" and said.get("sort_dir") == "ASC"
        found = sorted(self._audiences.values(), key=lambda each: each.created, reverse=not oldest_first)
        return self._page(
            request, "lists", [_audience(each) for each in found], allowed=PAGED | {"sort_field", "sort_dir", "email"}
        )

    async def _list(self, request: Request) -> Response:
        return projected(request, _audience(self._audience(request)))

    async def _merge_fields(self, request: Request) -> Response:
        audience = self._audience(request)
        rows = [
            {
                "merge_id": number, "tag": tag, "name": name, "type": type, "required": False, "default_value": "", "public": True, "display_order": number + 1,
                "options": dict(options), "help_text": "", "list_id": audience.id, "_links": links(f"/lists/{audience.id}/merge-fields/{number}"),
            }
            for number, (tag, name, type, options) in enumerate(MERGE_FIELDS, start=1)
        ]  # fmt: skip
        return self._page(request, "merge_fields", rows, allowed=PAGED | {"type", "required"}, list_id=audience.id)

    def _audience(self, request: Request) -> Audience:
        found = self._audiences.get(request.path_params["list"])
        if found is None:
            raise Refused(404, "Resource Not Found", "The requested resource could not be found.")
        return found

    # ---- members ----

    async def _members(self, request: Request) -> Response:
        audience, said = self._audience(request), request.query_params
        known(request, MEMBER_FILTERS)
        sort = said.get("sort_field")
        if sort not in {None, *_SORTS} or said.get("sort_dir", "ASC") not in {"ASC", "DESC"}:
            raise invalid("sort_field", "Value must be one of: timestamp_opt, timestamp_signup, last_changed")
        if said.get("status") not in {None, "archived", *STATUSES}:
            raise invalid("status", "Value must be one of the statuses")
        try:
            since, before = (
                millis(said[name]) if name in said else None for name in ("since_last_changed", "before_last_changed")
            )
        except ValueError:
            raise invalid("since_last_changed", "This value should be a valid date-time") from None
        ids: Span | list[str] = audience.changed(since, before)
        if "status" in said or "unique_email_id" in said or sort in {"timestamp_opt", "timestamp_signup"}:
            archived = said.get("status") == "archived"
            pool = audience.archived(since, before) if archived else (audience.find(id) or {} for id in ids)
            names = [name for name in ("status", "unique_email_id") if name in said]
            rows = [row for row in pool if all(row[name] == said[name] for name in names)]
            rows.sort(key=lambda row: row[sort or "last_changed"])
            ids = [row["contact_id"] for row in rows]
        if said.get("sort_dir") == "DESC":
            ids = ids[::-1]
        start, size = paging(request)
        rows = [_linked(row) for id in ids[start : start + size] if (row := audience.find(id)) is not None]
        body = {
            "members": rows,
            "list_id": audience.id,
            "total_items": len(ids),
            "_links": links(f"/lists/{audience.id}/members"),
        }
        return projected(request, body)

    async def _member(self, request: Request) -> Response:
        known(request, FIELDS)
        return projected(request, _linked(self._one(request)))

    def _one(self, request: Request) -> Row:
        row = self._audience(request).find(request.path_params["who"])
        if row is None:
            raise Refused(404, "Resource Not Found", "The requested resource could not be found.")
        return row

    async def _add(self, request: Request) -> Response:
        return json_response(_linked(self._audience(request).add(await said_in(request), validate=_validating(request))))

    async def _put(self, request: Request) -> Response:
        audience, said = self._audience(request), await said_in(request)
        row = audience.find(request.path_params["who"])
        if row is None:
            if said.get("status_if_new") not in STATUSES:
                raise invalid("status_if_new", "Data did not match any of the schemas described in anyOf.")
            row = audience.add({**said, "status": said.get("status", said["status_if_new"])}, validate=_validating(request))
        else:
            row = audience.change(row, said, validate=_validating(request))
        return json_response(_linked(row))

    async def _patch(self, request: Request) -> Response:
        row = self._one(request)
        changed = self._audience(request).change(row, await said_in(request), statuses=_PATCHED, validate=_validating(request))
        return json_response(_linked(changed))

    async def _archive(self, request: Request) -> Response:
        self._audience(request).archive(self._one(request))
        return Response(status_code=204)

    async def _forget(self, request: Request) -> Response:
        self._audience(request).forget(self._one(request))
        return Response(status_code=204)

    async def _batch(self, request: Request) -> Response:
        audience, said = self._audience(request), await said_in(request)
        members, updating = said.get("members"), said.get("update_existing") is True
        if not isinstance(members, list) or len(members) > _BATCH:
            raise invalid("members", f"This collection should contain {_BATCH} elements or less.")
        new: list[Row] = []
        updated: list[Row] = []
        errors: list[Row] = []
        seen: set[str] = set()
        for each in members:
            email = str(each.get("email_address", ""))
            try:
                if email.lower() in seen:
                    raise Refused(400, "Duplicate", "This email is a duplicate of another one in the request.")
                seen.add(email.lower())
                row = audience.find(email) if "@" in email else None
                if row is None:
                    new.append(audience.add(each, validate=_validating(request)))
                elif updating:
                    updated.append(audience.change(row, each, validate=_validating(request)))
                else:
                    text = f"{email} is already a list member, do you want to update? please provide update_existing:true in the request body"
                    raise Refused(400, "Member Exists", text)
            except Refused as refused:
                code = "ERROR_CONTACT_EXISTS" if refused.title == "Member Exists" else "ERROR_GENERIC"
                field, message = refused.fields[0] if refused.fields else ("", "")
                errors.append(
                    {
                        "email_address": email,
                        "error": refused.detail,
                        "error_code": code,
                        "field": field,
                        "field_message": message,
                    }
                )
        return json_response({
            "new_members": [_short(row) for row in new], "updated_members": [_short(row) for row in updated], "errors": errors,
            "total_created": len(new), "total_updated": len(updated), "error_count": len(errors), "_links": links(f"/lists/{audience.id}"),
        })  # fmt: skip

    async def _search(self, request: Request) -> Response:
        known(request, FIELDS | {"query", "list_id"})
        query, wanted = request.query_params.get("query", "").lower(), request.query_params.get("list_id")
        exact: list[Row] = []
        full: list[Row] = []
        for audience in self._audiences.values():
            if wanted in {None, audience.id}:
                rows = [row for row in audience.members if row["status"] != "archived"]
                exact += [_linked(row) for row in rows if row["email_address"].lower() == query]
                full += [_linked(row) for row in rows if query in f"{row['email_address']} {row['full_name']}".lower()]
        parts = {
            name: {"members": rows[:30], "total_items": len(rows)}
            for name, rows in (("exact_matches", exact), ("full_search", full))
        }
        return projected(request, {**parts, "_links": links("/search-members")})

    # ---- activity ----

    async def _feed(self, request: Request) -> Response:
        known(request, PAGED | {"activity_filters"})
        row = self._one(request)
        wanted = {each for each in request.query_params.get("activity_filters", "").split(",") if each}
        items = [item for item in self._activity(row) if not wanted or item["activity_type"] in wanted]
        start, size = paging(request)
        body = {
            "activity": items[start : start + size],
            "email_id": row["id"],
            "list_id": row["list_id"],
            "_links": links("/activity-feed"),
        }
        return projected(request, body)

    def _activity(self, row: Row) -> list[Row]:
        found = [_item(each) for each in self._events.get(row["contact_id"], ())]
        if row["timestamp_signup"]:
            found.append(
                {
                    "activity_type": "generic_signup",
                    "created_at_timestamp": row["timestamp_signup"],
                    "signup_category": "Hosted Signup Form",
                }
            )
            found.sort(key=lambda each: each["created_at_timestamp"], reverse=True)
        return found

    def _page(self, request: Request, name: str, rows: list[Row], *, allowed: frozenset[str], **more: Any) -> Response:
        known(request, allowed)
        start, size = paging(request)
        return projected(
            request, {name: rows[start : start + size], **more, "total_items": len(rows), "_links": links(f"/{name}")}
        )


def _item(each: MarketingEvent) -> Row:
    what = _WHAT[each.what]
    more: Mapping[str, Row] = {
        "click": {"link_clicked": "https://shop.example/offer"}, "bounce": {"bounce_type": "soft", "bounce_has_open_activity": False},
        "unsub": {"is_admin_unsubscribed": False, "unsubscribe_reason": "N/A (Unsubscribed by an admin)"},
    }  # fmt: skip
    return {
        "activity_type": what, "created_at_timestamp": iso(each.at), "campaign_id": f"ca{each.campaign:08x}", "campaign_title": CAMPAIGNS[each.campaign],
        **more.get(what, {}),
    }  # fmt: skip


def _audience(each: Audience) -> Row:
    return {
        "id": each.id, "web_id": int(each.id[-4:], 16), "name": each.name, "date_created": iso(each.created), "list_rating": 3, "email_type_option": False,
        "double_optin": False, "stats": {"member_count": each.count(), "merge_field_count": len(MERGE_FIELDS)}, "_links": links(f"/lists/{each.id}"),
    }  # fmt: skip


def _linked(row: Row) -> Row:
    return {**row, "_links": links(f"/lists/{row['list_id']}/members/{row['id']}")}


def _short(row: Row) -> Row:
    return {name: value for name, value in _linked(row).items() if name not in _NOT_IN_BATCH and not name.startswith("sms_")}


def _validating(request: Request) -> bool:
    return request.query_params.get("skip_merge_validation") != "true"
