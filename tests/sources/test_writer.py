"""What became of writes whose answers were lost: told truly, and sent again only when that doubles nothing."""

from pathlib import Path

from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from sandbox.faults import Fault
from sources.reading import Reading
from sources.source import Source
from sources.writer import SETTLED, Writer, Written
from sources.writing import RecordWrite
from tests.warp import WarpClock, opened


def deal(name: str, **more: object) -> RecordWrite:
    return RecordWrite(verb="create", values={"name": name, "stage": "OPEN"}, **more)  # type: ignore[arg-type]


async def once(writer: Writer, source: Source, clock: WarpClock, key: str, write: RecordWrite, kind: str = "deal") -> Written:
    reading = Reading(deadline=clock.monotonic() + 20, lane="write")
    return (await writer.once(source, kind, key, "digest", {"step": write}, reading))["step"]  # type: ignore[arg-type]


async def test_a_create_with_custom_fields_is_found_again(tmp_path: Path) -> None:
    clock = WarpClock()
    async with opened("hubspot", tmp_path, clock, people=30) as (source, runtime, sandbox):
        writer = runtime.writer(WORKSPACE)
        before = sandbox.dialects["hubspot"].live("deal")
        sandbox.faults.add(Fault(system="*", fault="truncate", path="POST*deals/batch/create", times=1))

        await once(writer, source, clock, "k", deal("Lost", custom={"region": "Asia-Pacific"}))
        clock.jump(SETTLED + 60)
        again = await once(writer, source, clock, "k", deal("Lost", custom={"region": "Asia-Pacific"}))

        assert again.state == "APPLIED"
        assert sandbox.dialects["hubspot"].live("deal") == before + 1


async def test_what_is_sent_again_has_its_time_to_appear_again(tmp_path: Path) -> None:
    clock = WarpClock()
    async with opened("hubspot", tmp_path, clock, people=30) as (source, runtime, sandbox):
        writer = runtime.writer(WORKSPACE)
        lost = Fault(system="*", fault="status", status=502, path="POST*deals/batch/create", times=2)
        sandbox.faults.add(lost)  # carried out or not: who sees a 502 cannot know

        states = [(await once(writer, source, clock, "k", deal("Twice"))).state]
        clock.jump(SETTLED + 60)
        states.append((await once(writer, source, clock, "k", deal("Twice"))).state)  # sent a second time
        calls = sandbox.dialects["hubspot"].calls.copy()
        clock.jump(1)
        states.append((await once(writer, source, clock, "k", deal("Twice"))).state)
        created = [path for path in calls if "deals/batch/create" in path]

        assert states == ["UNKNOWN", "UNKNOWN", "UNKNOWN"]
        assert [sandbox.dialects["hubspot"].calls[path] for path in created] == [2], (
            "the second one left a second ago: it may still appear"
        )


async def test_a_tie_that_was_not_made_is_not_told_as_made(tmp_path: Path) -> None:
    clock = WarpClock()
    async with opened("salesforce", tmp_path, clock, people=30) as (source, runtime, sandbox):
        writer = runtime.writer(WORKSPACE)
        table = sandbox.dialects["salesforce"].tables
        deal_id = str(next(iter(table["deal"]))["Id"])
        accounts = [str(each["Id"]) for each in table["account"]]
        was = (await source.read("deal", [deal_id], fields=["account_id"], reading=Reading(deadline=clock.monotonic() + 5))).value
        other = next(id for id in accounts if id != was[deal_id].account_id)  # type: ignore[union-attr]
        write = RecordWrite(verb="update", native_id=deal_id, links={"account": [other]})
        sandbox.faults.add(Fault(system="*", fault="status", path="PATCH*"))

        down = await once(writer, source, clock, "k", write)
        sandbox.faults.clear()
        up = await once(writer, source, clock, "k", write)
        now = (await source.read("deal", [deal_id], fields=["account_id"], reading=Reading(deadline=clock.monotonic() + 5))).value

        assert (down.state, up.state) == ("UNKNOWN", "APPLIED")
        assert now[deal_id].account_id == other  # type: ignore[union-attr]


async def test_what_was_not_looked_through_is_not_sent_again(tmp_path: Path) -> None:
    clock = WarpClock()
    async with opened("hubspot", tmp_path, clock, people=30) as (source, runtime, sandbox):
        writer = runtime.writer(WORKSPACE)
        sandbox.faults.add(Fault(system="*", fault="truncate", path="POST*deals/batch/create", times=1))
        sandbox.faults.add(Fault(system="*", fault="status", path="POST*deals/search"))
        first = await once(writer, source, clock, "k", deal("Early"))
        sandbox.faults.clear()
        made = sandbox.dialects["hubspot"].live("deal")
        clock.jump(SETTLED)
        # More than are looked through with the last page and those that tie with its end (a batch shares its millisecond).
        later = {f"{n}": deal(f"Later {n}") for n in range(1000)}
        done = await writer.once(source, "deal", "later", "digest", later, Reading(deadline=clock.monotonic() + 60, lane="write"))
        clock.jump(SETTLED)

        again = await once(writer, source, clock, "k", deal("Early"))

        assert {each.state for each in done.values()} == {"APPLIED"}
        assert sandbox.dialects["hubspot"].live("deal") == made + 1000
        assert (first.state, again.state) == ("UNKNOWN", "UNKNOWN")


async def test_a_command_beside_the_server_leaves_its_leases_alone(tmp_path: Path) -> None:
    serving, beside = Runtime(Settings(data_dir=tmp_path)), Runtime(Settings(data_dir=tmp_path))
    await serving.start()
    held = await serving.writer(WORKSPACE).leased("key/x", "serving")

    await beside.start()
    taken = await beside.writer(WORKSPACE).leased("key/x", "beside")

    await beside.stop()
    await serving.stop()
    assert (held, taken) == (True, False)
