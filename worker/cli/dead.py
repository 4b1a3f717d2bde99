"""``nodeledger dead``: the archive of messages that could not be applied."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic_core import from_json

from worker.cli.common import console
from worker.cli.common.actor import Actor, whoami
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.lines import read_input
from worker.cli.common.running import run
from worker.errors import OperationError, UsageError
from worker.printable import escaped
from worker.servers import client, writing

if TYPE_CHECKING:
    import asyncpg

    from worker.ledger.dead_letters import Letter, LetterFilter, LetterState
    from worker.operations.replay import Forecast

app = typer.Typer(help="List, show, replay, edit and discard dead letters.")

Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="The letters' numbers.", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Only letters of this reason, such as misrouted.")]
Node = Annotated[str | None, typer.Option(help="Only letters for this node.")]
Kind = Annotated[str | None, typer.Option(help="Only letters of this kind of command.")]
Group = Annotated[str | None, typer.Option(help="Only letters with this fingerprint, or with that of this letter.")]
Everything = Annotated[bool, typer.Option("--all", help="All letters that are open.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a field, such as resources.vcpus=4 or node=cn-2."),
]
Unset = Annotated[list[str] | None, typer.Option("--unset", metavar="PATH", help="Leave a field out.")]
FileOption = Annotated[str | None, typer.Option("--file", help="The whole command, instead of the letter's; - too.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="How many at most.")]

_LETTER_COLUMNS: Final = "#id reason node kind command state #attempts:times first_seen detail"
_WHY_NOT_MET: Final[dict[str | None, str]] = {
    None: "there is no such letter",
    "discarded": "it was discarded; `nodeledger dead reopen` takes that back",
}
_GROUP_COLUMNS: Final = "#letters #nodes reason #example first_seen last_seen fingerprint:group"


@app.command("list")
def list_(
    reason: Reason = None,
    node: Node = None,
    kind: Kind = None,
    group: Group = None,
    groups: Annotated[bool, typer.Option("--groups", help="One line for each cause instead of each letter.")] = False,
    settled: Annotated[bool, typer.Option("--settled", help="Also letters resolved or discarded.")] = False,
    limit: Limit = 1000,
    as_json: console.JsonFlag = False,
) -> None:
    """List dead letters in the order they came, or their causes."""
    selection = _Selection(None, reason, node, kind, group)
    if groups:
        run(_list_groups(selection, settled=settled, as_json=as_json))
    else:
        run(_list(selection, settled=settled, limit=limit, as_json=as_json))


@app.command()
def show(
    id: Annotated[int, typer.Argument(help="The letter's number.", show_default=False)],
    as_json: console.JsonFlag = False,
) -> None:
    """Show one letter: why it is here, what was done with it, its headers and its body."""
    run(_show(id, as_json=as_json))


@app.command()
def replay(
    ids: Ids = None,
    reason: Reason = None,
    node: Node = None,
    kind: Kind = None,
    group: Group = None,
    everything: Everything = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what each would do.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also letters that were replayed before.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.01, help="How many a second at most.")] = None,
    actor: Actor = None,
    as_json: console.JsonFlag = False,
) -> None:
    """Send letters again, in order, to the shards their nodes have today.

    Letters that would only come back are left where they are; exit status 1
    if that befell one given by its number, if it was discarded, or if there is
    none of that number.
    """
    selection = _Selection(ids, reason, node, kind, group)
    selection.insist(everything=everything)
    work = _Replaying(selection, again=again, as_json=as_json)
    run(work.tell() if dry_run else work.send(rate, actor or whoami()))
    raise typer.Exit(FINDING if ids and (work.left or work.missing) else OK)


@app.command()
def discard(
    ids: Ids = None,
    reason: Reason = None,
    node: Node = None,
    kind: Kind = None,
    group: Group = None,
    everything: Everything = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the letters that would be given up.")] = False,
    actor: Actor = None,
    as_json: console.JsonFlag = False,
) -> None:
    """Give letters up: they are kept until their retention ends, and neither listed nor replayed.

    ``dead reopen`` takes it back.
    """
    selection = _Selection(ids, reason, node, kind, group)
    selection.insist(everything=everything)
    if dry_run:
        run(_list(selection, settled=False, limit=None, as_json=as_json))
        return
    discarded, known = run(_discard(selection, actor or whoami()))
    console.print_document({"discarded": discarded}, as_json=as_json)
    raise typer.Exit(FINDING if ids and known < len(set(ids)) else OK)


@app.command()
def reopen(
    ids: Ids = None,
    reason: Reason = None,
    node: Node = None,
    kind: Kind = None,
    group: Group = None,
    everything: Annotated[bool, typer.Option("--all", help="All letters that were discarded.")] = False,
    actor: Actor = None,
    as_json: console.JsonFlag = False,
) -> None:
    """Take back that letters were discarded: they are open again, to be listed and replayed."""
    selection = _Selection(ids, reason, node, kind, group)
    selection.insist(everything=everything)
    reopened, known = run(_reopen(selection, actor or whoami()))
    console.print_document({"reopened": reopened}, as_json=as_json)
    raise typer.Exit(FINDING if ids and known < len(set(ids)) else OK)


@app.command()
def edit(
    id: Annotated[int, typer.Argument(metavar="ID", help="The letter's number.", show_default=False)],
    settings: Set = None,
    unset: Unset = None,
    file: FileOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the new command and what it would do.")] = False,
    actor: Actor = None,
    as_json: console.JsonFlag = False,
) -> None:
    """Send an edited copy of a letter as a new command, and settle the letter.

    The new command has an id of its own, which follows from the letter and the
    edit: making the same edit again is a duplicate, not a second command. A
    value is JSON where it can be read as such, and text otherwise. What was
    done, by whom, and the new id are written down with the letter.
    """
    from worker.operations.editing import Edit

    if not (settings or unset or file):
        raise UsageError("say what to edit: --set PATH=VALUE, --unset PATH or --file FILE")
    work = Edit(id, settings or (), unset or (), read_input(file) if file else None)
    if dry_run:
        new, text = run(work.tell())
        shown = {"letter": id, "what_it_would_do": text, "command": from_json(new.body)}
    else:
        new = run(work.send(actor or whoami()))
        shown = {"letter": id, "command": new.id, "node": new.node}
    console.print_document(shown, as_json=as_json)


class _Selection:
    """The letters a command line means."""

    def __init__(
        self, ids: list[int] | None, reason: str | None, node: str | None, kind: str | None, group: str | None
    ) -> None:
        self.ids = tuple(ids) if ids else None
        self._reason, self._node, self._kind, self._group = reason, node, kind, group

    def insist(self, *, everything: bool) -> None:
        """Refuse a command line that names nothing."""
        if not (self.ids or self._reason or self._node or self._kind or self._group or everything):
            raise UsageError("say which letters: their numbers, --reason, --node, --kind, --group or --all")

    async def filter(
        self, pool: asyncpg.Pool, *, settled: bool = False, states: tuple[LetterState, ...] | None = None
    ) -> LetterFilter:
        """The filter, of letters in these states or else of all that are (also) settled.

        A group may be named by one of its letters.
        """
        from worker.ledger import dead_letters

        group = self._group
        if group is not None and group.isdecimal():
            async with pool.acquire() as connection:
                example = await dead_letters.find(connection, int(group))
            if example is None:
                raise OperationError(f"there is no letter {group} to name a group")
            group = example.fingerprint
        if states is None and not settled:
            states = dead_letters.UNSETTLED
        return dead_letters.LetterFilter(
            ids=self.ids, states=states, reason=self._reason, node=self._node, kind=self._kind, group=group
        )


class _Replaying:
    """One run of ``dead replay``; ``left`` letters would only come back, ``missing`` ones cannot be sent."""

    def __init__(self, selection: _Selection, *, again: bool, as_json: bool) -> None:
        self._selection = selection
        self._again = again
        self._as_json = as_json
        self._rows: list[dict[str, object]] = []
        self.left = 0
        self.missing = 0

    async def tell(self) -> None:
        """Tell what each letter would do."""
        from worker.operations.dry_run import previewing
        from worker.operations.replay import forecasts

        async with writing() as pool:
            which = await self._selection.filter(pool)
            async with previewing(pool) as preview:
                async for page in forecasts(pool, which, again=self._again, preview=preview):
                    self._take(page)
            await self._look_for_missing(pool)
        console.print_rows(self._rows, "#id node kind reason verdict text:what_it_would_do", as_json=self._as_json)

    async def send(self, rate: float | None, actor: str) -> None:
        """Send the letters again."""
        from worker.operations.replay import Replay, forecasts
        from worker.operations.shards import stored_shards

        sent = 0
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(writing())
            sender = await stack.enter_async_context(client(await stored_shards(pool)))
            which = await self._selection.filter(pool)
            replaying = Replay(pool, sender, actor, rate)
            advance = stack.enter_context(console.progress("replaying"))
            async for page in forecasts(pool, which, again=self._again):
                sent += await replaying.send(page)
                advance(len(page))
                self._take(page)
            await self._look_for_missing(pool)
        if self._as_json:
            console.print_rows(self._rows, "id", as_json=True)
        for row in self._rows:
            if row["verdict"] == "unfit" and not self._as_json:
                console.note(f"{row['id']} left where it is: {row['text']}")
        console.note(f"{sent} replayed, {self.left} left")

    def _take(self, page: list[Forecast]) -> None:
        for forecast in page:
            letter = forecast.letter
            told = {"id": letter.id, "node": letter.node, "kind": letter.kind, "reason": letter.reason}
            self._rows.append({**told, "verdict": forecast.verdict, "text": forecast.text})
            self.left += forecast.command is None

    async def _look_for_missing(self, pool: asyncpg.Pool) -> None:
        """Say of each letter given by number and not met, why."""
        from worker.operations.discarding import states

        met = {row["id"] for row in self._rows}
        unmet = [id_ for id_ in dict.fromkeys(self._selection.ids or ()) if id_ not in met]
        if not unmet:
            return
        for id_, state in (await states(pool, unmet)).items():
            self.missing += state in {None, "discarded"}
            console.note(f"{id_}: {_WHY_NOT_MET.get(state, f'skipped, it is {state} already')}")


async def _list(selection: _Selection, *, settled: bool, limit: int | None, as_json: bool) -> None:
    from worker.ledger import dead_letters

    async with writing() as pool:
        which = await selection.filter(pool, settled=settled)
        found: list[Letter] = []
        async for letter in dead_letters.walk(pool, which):
            found.append(letter)
            if len(found) == limit:
                break
    console.print_rows((_listed(letter) for letter in found), _LETTER_COLUMNS, as_json=as_json)
    if len(found) == limit:
        console.note(f"the first {limit}; --limit shows more")


async def _list_groups(selection: _Selection, *, settled: bool, as_json: bool) -> None:
    from worker.ledger import dead_letters

    async with writing() as pool:
        which = await selection.filter(pool, settled=settled)
        async with pool.acquire() as connection:
            found = await dead_letters.groups(connection, which)
    console.print_rows((asdict(group) for group in found), _GROUP_COLUMNS, as_json=as_json)


async def _show(id_: int, *, as_json: bool) -> None:
    from worker.ledger import dead_letters

    async with writing() as pool, pool.acquire() as connection:
        letter = await dead_letters.find(connection, id_)
        done = await dead_letters.actions(connection, id_)
    if letter is None:
        raise OperationError(f"there is no dead letter {id_}")
    body = (letter.body or b"").decode("utf-8", "backslashreplace")
    shown = {**_listed(letter), "headers": letter.headers}
    if as_json:
        console.print_document({**shown, "body": body, "actions": [asdict(one) for one in done]}, as_json=True)
        return
    console.print_document(shown, as_json=False)
    for action in done:
        what = f"{action.action} by {action.actor}" + (f": {action.detail}" if action.detail else "")
        console.print_document({console.printable(action.at): what}, as_json=False)
    console.print_line(f"\n{escaped(body)}")


def _listed(letter: Letter) -> dict[str, object]:
    shown = asdict(letter)
    del shown["body"], shown["headers"]
    return shown


async def _discard(selection: _Selection, actor: str) -> tuple[int, int]:
    from worker.operations.discarding import discard

    async with writing() as pool:
        return await discard(pool, await selection.filter(pool, settled=selection.ids is not None), actor=actor)


async def _reopen(selection: _Selection, actor: str) -> tuple[int, int]:
    from worker.operations.discarding import reopen

    async with writing() as pool:
        return await reopen(pool, await selection.filter(pool, states=("discarded",)), actor=actor)
