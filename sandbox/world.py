"""The seeded population: the same people as several systems know them, spelled differently in each.

Every choice is a hash of (seed, what it is for, which number), so one part can grow without moving another, and the
same (people, seed) is the same world everywhere. All e-mail addresses end in `.example`. Nothing here knows a dialect:
times are milliseconds since 1970, amounts are cents, ids are small integers; a dialect renders them its own way.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

END = 1_782_864_000_000  # 2026-07-01T00:00:00Z: nothing in the seed is younger
_DAY = 86_400_000
_YEARS = 3 * 365 * _DAY
_MASK = (1 << 64) - 1

GIVEN = (
    ("Ada", "Ada"), ("Robert", "Bob"), ("Elizabeth", "Liz"), ("William", "Bill"), ("Katharina", "Kathi"), ("José", "Jose"),
    ("Zoë", "Zoe"), ("Margaret", "Maggie"), ("Johannes", "Hannes"), ("Alexander", "Alex"), ("Priya", "Priya"), ("Thomas", "Tom"),
    ("Françoise", "Francoise"), ("Michael", "Mike"), ("Søren", "Soren"), ("Susan", "Sue"), ("Benjamin", "Ben"), ("Chloé", "Chloe"),
    ("Nikolai", "Niko"), ("Yuki", "Yuki"), ("Deborah", "Deb"), ("Patrick", "Pat"), ("Victoria", "Vicky"), ("Samuel", "Sam"),
)  # fmt: skip
FAMILY = (
    ("King", "King"), ("Müller", "Mueller"), ("O'Connor", "O'Connor"), ("García", "Garcia"), ("Smith", "Smith"), ("Schröder", "Schroeder"),
    ("Nguyen", "Nguyen"), ("Lefèvre", "Lefevre"), ("Johnson", "Johnson"), ("Köhler", "Koehler"), ("Brown", "Brown"), ("Åkesson", "Akesson"),
    ("Patel", "Patel"), ("Weiß", "Weiss"), ("Jones", "Jones"), ("Dvořák", "Dvorak"), ("Taylor", "Taylor"), ("Hernández", "Hernandez"),
    ("Okafor", "Okafor"), ("Novák", "Novak"), ("Wilson", "Wilson"), ("Jäger", "Jaeger"), ("Kaya", "Kaya"), ("Murphy", "Murphy"),
    ("Tanaka", "Tanaka"), ("Clark", "Clark"), ("Rossi", "Rossi"), ("Meyer", "Meyer"), ("Silva", "Silva"), ("Young", "Young"),
)  # fmt: skip
_WORDS = (
    "Bright",
    "North",
    "Silver",
    "Green",
    "Blue",
    "Iron",
    "Cedar",
    "Harbor",
    "Summit",
    "Vector",
    "Quantum",
    "Maple",
)
_NOUNS = ("wind", "forge", "field", "works", "stone", "bridge", "light", "port", "grid", "mill", "crest", "yard")
INDUSTRIES = ("Technology", "Retail", "Healthcare", "Finance", "Education", "Manufacturing")
COUNTRIES = ("US", "US", "US", "US", "US", "DE", "DE", "DE", "GB", "GB")
CURRENCY = {"US": "USD", "DE": "EUR", "GB": "GBP"}
TITLES = ("CEO", "Head of Sales", "Buyer", "Engineer", "Office Manager", "CTO", "Analyst", "Founder")
SUBJECTS = (
    "Printer on fire",
    "Cannot log in",
    "Invoice question",
    "Where is my order?",
    "Feature request",
    "Refund please",
    "App crashes",
)
PRODUCTS = (
    ("W-1", "Widget", 2999),
    ("G-2", "Gadget", 4950),
    ("C-3", "Cable", 799),
    ("S-4", "Stand", 12900),
    ("L-5", "Lamp", 6500),
)

# How many of 100 people each system knows. Person 0 is known to all of them.
PRESENCE: Mapping[str, int] = {
    "hubspot": 85, "salesforce": 75, "shopify": 65, "zendesk": 60, "zoho": 45, "dynamics": 45, "pipedrive": 40, "sugarcrm": 40, "magento": 35,
    "bigcommerce": 35, "freshdesk": 40, "marketo": 50, "mailchimp": 50,
}  # fmt: skip
# Which systems keep which kinds beside people.
LEADS = frozenset({"salesforce", "zoho", "dynamics", "sugarcrm"})
DEALS = frozenset({"hubspot", "salesforce", "zoho", "dynamics", "pipedrive", "sugarcrm"})
ORDERS = frozenset({"shopify", "magento", "bigcommerce"})
TICKETS = frozenset({"zendesk", "hubspot", "freshdesk"})
MARKETING = frozenset({"marketo", "mailchimp"})
CAMPAIGNS = ("Spring Launch", "Monthly Letter", "Webinar Invitation", "Winter Sale")
# Systems that refuse an e-mail address, or a phone number, which another of their records has.
ONE_PER_EMAIL = frozenset({"hubspot", "shopify", "zendesk", "magento", "bigcommerce", "freshdesk", "mailchimp"})
ONE_PER_PHONE = frozenset({"shopify"})


class Company(Struct, gc=False):
    id: int
    name: str
    domain: str
    industry: str
    country: str
    employees: int
    created: int


class Person(Struct, gc=False):
    """Who someone really is: the truth that identity resolution is measured against."""

    id: int
    given: str
    family: str
    email: str
    private_email: str
    phone: str  # E.164
    country: str
    company: int
    since: int


class Profile(Struct, gc=False):
    """A person as one system spells them.

    Attributes:
        id: unique within (system, object), in no order of creation.
        merged_into: id of the profile that swallowed this one, 0 when live.
        number: a number for custom fields, 0..999.
    """

    id: int
    person: int
    given: str
    family: str
    email: str | None
    more_emails: tuple[str, ...]
    phone: str | None
    title: str
    country: str
    company: int  # 0: none
    owner: int
    number: int
    created: int
    updated: int
    deleted: bool = False
    merged_into: int = 0


class Deal(Struct, gc=False):
    """`stage` counts 0..4 open, 5 won, 6 lost; the first of `contacts` is the primary one."""

    id: int
    name: str
    cents: int
    currency: str
    stage: int
    close: int
    company: int
    contacts: tuple[int, ...]
    owner: int
    number: int
    created: int
    updated: int
    deleted: bool = False


class Order(Struct, gc=False):
    """`state` counts 0 open, 1 partly fulfilled, 2 fulfilled, 3 cancelled, 4 refunded, 5 partly refunded, 6 unpaid."""

    id: int
    number: int
    contact: int
    email: str | None
    items: tuple[tuple[int, int], ...]  # (index into PRODUCTS, quantity)
    cents: int
    currency: str
    state: int
    created: int
    updated: int


class Ticket(Struct, gc=False):
    """`status` counts 0 new, 1 open, 2 pending, 3 hold, 4 solved, 5 closed; `priority` 0 none, 1 low … 4 urgent."""

    id: int
    contact: int
    company: int
    subject: str
    status: int
    priority: int
    number: int
    created: int
    updated: int


class MarketingEvent(Struct, gc=False):
    """`what` counts 0 sent, 1 delivered, 2 opened, 3 clicked, 4 bounced, 5 unsubscribed; `campaign` indexes CAMPAIGNS."""

    id: int
    contact: int
    what: int
    campaign: int
    at: int


class User(Struct, gc=False):
    """Someone who works with the system: owners, agents."""

    id: int
    given: str
    family: str
    email: str
    active: bool


def mix(*parts: int) -> int:
    """Return 64 well-stirred bits of the parts (splitmix64)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def tag(word: str) -> int:
    """Return a number that stands for a word, the same on every machine."""
    return int.from_bytes(word.encode()[:8].ljust(8, b"."), "big")


class World:
    """Everything that was ever true, by system.

    Attributes:
        profiles: system → contacts (customers, end users); leads: system → leads.
        deals, orders, tickets, events: system → records, in no particular order.
    """

    def __init__(self, *, people: int = 1000, seed: int = 1, systems: Iterable[str] = tuple(PRESENCE)) -> None:
        self.seed = seed
        self.systems = tuple(systems)
        self.companies = [_company(seed, n) for n in range(1, max(people // 8, 3) + 1)]
        self.people = [_person(seed, n, self.companies) for n in range(people)]
        self.users = [
            User(
                n + 1,
                GIVEN[n % len(GIVEN)][1],
                FAMILY[(n * 7) % len(FAMILY)][1],
                f"agent{n + 1}@c360-demo.example",
                n < 7,
            )
            for n in range(8)
        ]
        self.profiles = {system: self._profiles(system) for system in self.systems}
        self.leads = {system: self._leads(system) for system in self.systems if system in LEADS}
        self.deals = {system: self._deals(system) for system in self.systems if system in DEALS}
        self.orders = {system: self._orders(system) for system in self.systems if system in ORDERS}
        self.tickets = {system: self._tickets(system) for system in self.systems if system in TICKETS}
        self.events = {system: self._events(system) for system in self.systems if system in MARKETING}

    def _profiles(self, system: str) -> list[Profile]:
        known = PRESENCE[system]
        salt = tag(system)
        found: list[Profile] = []
        taken: set[str] = set()
        number = 0
        for person in self.people:
            bits = mix(self.seed, salt, person.id)
            if person.id and bits % 100 >= known:
                continue
            number += 1
            profile = self._profile(person, system, number, bits)
            if system in ONE_PER_EMAIL:
                _give_way(profile, taken)
            found.append(profile)
            chance = (bits >> 48) % 100
            if not person.id or chance > 4:
                continue
            number += 1
            twin = self._profile(person, system, number, mix(bits, 2))
            if chance < 2:  # a duplicate that someone merged away
                twin.merged_into, twin.deleted = profile.id, True
            elif chance < 4:  # a duplicate nobody has noticed
                twin.email, twin.more_emails = profile.email or person.email, ()
                if system in ONE_PER_EMAIL:
                    twin.email = person.private_email if profile.email == person.email else person.email
                    _give_way(twin, taken)
                if system in ONE_PER_PHONE:
                    twin.phone = None
            else:  # deleted, while the other lives on
                twin.deleted = True
            found.append(twin)
        return found

    def _profile(self, person: Person, system: str, number: int, bits: int) -> Profile:
        ada = person.id == 0
        given = next(pair for pair in GIVEN if pair[0] == person.given)
        family = next(pair for pair in FAMILY if pair[0] == person.family)
        spelling = 0 if ada else (bits >> 7) % 8
        created = _created(person, bits, system)
        email: str | None = person.email
        more: tuple[str, ...] = ()
        phone: str | None = _spelled(person.phone, person.country, (bits >> 11) % 4)
        which = (bits >> 15) % 100
        if not ada:
            if system in {"hubspot", "sugarcrm"} and which < 12:
                more = (person.private_email,)
            elif system == "salesforce" and which < 12:
                email = None  # known by phone and surname only
            elif system == "shopify" and which < 25:
                email = person.private_email  # linked by phone and surname, or not at all
            elif system == "zendesk" and which < 15:
                email = person.private_email
            if email is not None and which >= 95:
                email = email.upper()
            if email is not None and (bits >> 22) % 100 < 25:
                phone = None
            if which == 50:
                email = f"info@{self.companies[person.company - 1].domain}"  # a role address, shared by colleagues
        return Profile(
            id=_scatter(number, tag(system)),
            person=person.id,
            given=given[1] if spelling in {1, 2} else given[0],
            family=family[1] if spelling in {2, 3} else family[0].upper() if spelling == 4 else family[0],
            email=email,
            more_emails=more,
            phone=phone,
            title=TITLES[bits % len(TITLES)],
            country=person.country,
            company=0 if not ada and (bits >> 30) % 5 == 0 else person.company,
            owner=1 + (bits >> 33) % len(self.users),
            number=(bits >> 36) % 1000,
            created=created,
            updated=created + (mix(bits, 3) % max(END - created, 1000)) // 1000 * 1000,
        )

    def _leads(self, system: str) -> list[Profile]:
        found: list[Profile] = []
        for person in self.people:
            bits = mix(self.seed, tag("lead"), tag(system), person.id)
            if person.id and bits % 100 >= 12:
                continue
            lead = self._profile(person, system, len(found) + 1, bits)
            lead.email = lead.email or person.email
            found.append(lead)
        return found

    def _deals(self, system: str) -> list[Deal]:
        salt = tag("deal"), tag(system)
        by_company: dict[int, list[int]] = {}
        live = [profile for profile in self.profiles[system] if not profile.deleted]
        for profile in live:
            by_company.setdefault(profile.company, []).append(profile.id)
        found: list[Deal] = []
        for profile in live:
            bits = mix(self.seed, *salt, profile.id)
            count = 3 if profile.person == 0 else (0, 0, 1, 1, 2, 3)[bits % 6]
            for nth in range(count):
                bits = mix(bits, nth)
                created = profile.created + bits % max(END - profile.created, 1000) // 1000 * 1000
                contacts: tuple[int, ...] = (profile.id,)
                colleagues = by_company[profile.company] if profile.company else []
                if (bits >> 9) % 100 < 15 and len(colleagues) > 1:
                    other = colleagues[(bits >> 17) % len(colleagues)]
                    contacts = (profile.id, other) if other != profile.id else contacts
                found.append(
                    Deal(
                        id=_scatter(len(found) + 1, tag(system)),
                        name=f"{self.companies[profile.company - 1].name if profile.company else profile.family} – {PRODUCTS[bits % 5][1]} {nth + 1}",
                        cents=(bits >> 20) % 5_000_000 + 10_000,
                        currency=CURRENCY[profile.country],
                        stage=(bits >> 44) % 7,
                        close=created + (bits >> 50) % 120 * _DAY,
                        company=profile.company,
                        contacts=contacts,
                        owner=profile.owner,
                        number=(bits >> 36) % 1000,
                        created=created,
                        updated=created + (bits >> 5) % max(END - created, 1000) // 1000 * 1000,
                        deleted=(bits >> 57) % 50 == 0,
                    )
                )
        return found

    def _orders(self, system: str) -> list[Order]:
        found: list[Order] = []
        for profile in self.profiles[system]:
            if profile.deleted:
                continue
            bits = mix(self.seed, tag("order"), profile.id)
            for nth in range(3 if profile.person == 0 else (0, 1, 1, 2, 3, 5)[bits % 6]):
                bits = mix(bits, nth)
                created = profile.created + bits % max(END - profile.created, 1000) // 1000 * 1000
                items = tuple(((bits >> (8 * line)) % 5, 1 + (bits >> (9 * line)) % 3) for line in range(1, 2 + bits % 3))
                found.append(
                    Order(
                        id=_scatter(len(found) + 1, tag(system)),
                        number=1001 + len(found),
                        contact=profile.id,
                        email=profile.email,
                        items=items,
                        cents=sum(PRODUCTS[which][2] * quantity for which, quantity in items),
                        currency=CURRENCY[profile.country],
                        state=(bits >> 44) % 7,
                        created=created,
                        updated=created + (bits >> 5) % max(END - created, 1000) // 1000 * 1000,
                    )
                )
        return found

    def _tickets(self, system: str) -> list[Ticket]:
        few = system == "hubspot"
        found: list[Ticket] = []
        for profile in self.profiles[system]:
            if profile.deleted:
                continue
            bits = mix(self.seed, tag("ticket"), tag(system), profile.id)
            counts = (0, 0, 0, 0, 0, 1) if few else (0, 1, 1, 2, 2, 4)
            for nth in range((1 if few else 2) if profile.person == 0 else counts[bits % 6]):
                bits = mix(bits, nth)
                created = profile.created + bits % max(END - profile.created, 1000) // 1000 * 1000
                found.append(
                    Ticket(
                        id=_scatter(len(found) + 1, tag(system)),
                        contact=profile.id,
                        company=profile.company,
                        subject=SUBJECTS[bits % len(SUBJECTS)],
                        status=(bits >> 20) % 6,
                        priority=(bits >> 24) % 5,
                        number=(bits >> 36) % 1000,
                        created=created,
                        updated=created + (bits >> 5) % max(END - created, 1000) // 1000 * 1000,
                    )
                )
        return found

    def _events(self, system: str) -> list[MarketingEvent]:
        found: list[MarketingEvent] = []
        for profile in self.profiles[system]:
            if profile.deleted:
                continue
            bits = mix(self.seed, tag("event"), tag(system), profile.id)
            for nth in range(4 if profile.person == 0 else (0, 1, 2, 3, 4, 6)[bits % 6]):
                bits = mix(bits, nth)
                found.append(
                    MarketingEvent(
                        id=_scatter(len(found) + 1, tag(system)),
                        contact=profile.id,
                        what=nth if profile.person == 0 else (0, 0, 1, 1, 2, 2, 3, 4, 5)[(bits >> 20) % 9],
                        campaign=(bits >> 26) % len(CAMPAIGNS),
                        at=profile.created + bits % max(END - profile.created, 1000) // 1000 * 1000,
                    )
                )
        return found


def _give_way(profile: Profile, taken: set[str]) -> None:
    """Leave out the addresses that an earlier record of the system has, and take the rest."""
    if profile.email is not None and profile.email.lower() in taken:
        profile.email = None
    profile.more_emails = tuple(each for each in profile.more_emails if each.lower() not in taken)
    taken.update(each.lower() for each in (profile.email, *profile.more_emails) if each)


def _company(seed: int, n: int) -> Company:
    bits = mix(seed, tag("company"), n)
    word, noun = _WORDS[n % len(_WORDS)], _NOUNS[(n // len(_WORDS)) % len(_NOUNS)]
    suffix = "" if n < len(_WORDS) * len(_NOUNS) else str(n)
    name = "Northwind" if n == 1 else f"{word}{noun} {suffix}".strip()
    return Company(
        id=n,
        name=name,
        domain=f"{name.lower().replace(' ', '')}.example",
        industry=INDUSTRIES[bits % len(INDUSTRIES)],
        country=COUNTRIES[(bits >> 8) % len(COUNTRIES)],
        employees=5 + (bits >> 16) % 5000,
        created=END - _YEARS + bits % (_YEARS // 2) // 1000 * 1000,
    )


def _person(seed: int, n: int, companies: Sequence[Company]) -> Person:
    bits = mix(seed, tag("person"), n)
    given = GIVEN[0 if n == 0 else bits % len(GIVEN)]
    family = FAMILY[0 if n == 0 else (bits >> 8) % len(FAMILY)]
    company = companies[0 if n == 0 else (bits >> 16) % len(companies)]
    country = "US" if n == 0 else COUNTRIES[(bits >> 24) % len(COUNTRIES)]
    local = f"{given[1]}.{family[1]}".lower().replace("'", "") + ("" if n == 0 else str(n))
    digits = mix(seed, tag("phone")) % 1000 + n
    phone = {
        "US": f"+1{_AREAS[digits // 10_000 % len(_AREAS)]}555{digits % 10_000:04d}",
        "DE": f"+4915{50_000_0000 + digits:09d}"[:14],
        "GB": f"+4477009{digits:05d}"[:13] if digits < 100_000 else f"+4475{digits:08d}",
    }[country]
    return Person(
        id=n,
        given=given[0],
        family=family[0],
        email=f"{local}@{company.domain}",
        private_email=f"{local}@mail.example",
        phone=phone,
        country=country,
        company=company.id,
        since=END - _YEARS + (bits >> 32) % (_YEARS - 30 * _DAY),
    )


_AREAS = (212, 310, 312, 415, 503, 512, 602, 617, 702, 713, 718, 816, 901, 917, 919, 206, 303, 404, 214, 305)


def _created(person: Person, bits: int, system: str) -> int:
    """Return when a system first knew someone: whole seconds, and one in twenty in an import that ties with others."""
    created = min(person.since + (bits >> 26) % (200 * _DAY), END - _DAY)
    if (bits >> 41) % 20 == 0:
        return created - created % (30 * _DAY)
    return created - created % 1000


def _spelled(phone: str, country: str, style: int) -> str:
    """Spell a phone number as people type it; national styles only where the default region reads them."""
    if country == "US":
        area, exchange, line = phone[2:5], phone[5:8], phone[8:]
        return (phone, f"({area}) {exchange}-{line}", f"{area}.{exchange}.{line}", f"+1 {area}-{exchange}-{line}")[style]
    code = phone[:3]
    return (
        phone,
        f"{code} {phone[3:6]} {phone[6:]}",
        f"{code} ({phone[3:7]}) {phone[7:]}",
        f"00{phone[1:]}" if style == 9 else f"{code}-{phone[3:7]}-{phone[7:]}",
    )[style]


def _scatter(number: int, salt: int) -> int:
    """Spread ids below 2^31, one to one, so that their order says nothing about creation (a Weyl sequence)."""
    return 1_000_000 + (number * 7_368_787 + salt) % 900_000_007
