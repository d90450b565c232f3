"""The tab Playground: one query, two models' slates side by side, and what a user gets who asks again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar, get_args

from markupsafe import Markup
from nicegui import run, ui
from nicegui.events import GenericEventArguments

from page.asking import Beside, Query, Router, Slate, Two
from page.parts import Choice, Field, Html, button, kit, table
from page.source import Source
from protos.recommender_pb2 import AnsweredBy, World
from simulator.errors import FlickerError
from simulator.measures.registry import MEASURES
from simulator.report.example import beside
from simulator.result import Place
from simulator.words import label, number, plural

Answer = TypeVar("Answer")
BESIDE: dict[str, str] = dict(
    zip(get_args(Beside), ("two duplicates", "two generations of one", "two arms of one"), strict=True)
)
MOST = 20
"""Places of a slate that are shown: as many as the report's."""
ASKED = 10
"""Answers to one user that are kept."""
MANY = 100
"""Values of a context field that a list can hold."""


class Playground:
    """One viewer's query."""

    def __init__(self, source: Source, router: Router) -> None:
        self._source, self._router = source, router
        self._world: World | None = None
        self._anybody = "0"
        """Who asks while nobody is named."""
        self._shown: dict[object, Two] = {}
        """What was asked last, and the answers."""
        self._wanted = self._is_away = False
        self._generation = -1
        """That was the newest when the slates were asked for."""
        self._asked: list[Slate] = []
        self._busy = False
        with ui.element("div").classes("fields") as self._fields:
            self._user = Field("User", "", self._ask, list="users", autocomplete="off", spellcheck="false")
            self._user.element.on("input", self._search, js_handler="e => emit(e.target.value)", throttle=0.2)
            self._user.element.on("keydown.enter", self._ask, args=[])
            self._found = ui.element("datalist").props("id=users")
            self._context_fields = ui.element("div").classes("fields").style("margin:0")
            self._context: list[Choice] = []
            self._k = Field("Places of the slate", "10", self._ask, (1, MOST))
            self._beside = Choice("Side by side", BESIDE, self._choose)
            self._arm = Choice("Arm", {}, self._ask)
            self._first = Choice("Duplicate", {}, self._ask)
            self._second = Choice("Other duplicate", {}, self._ask)
            self._other = Choice("Other arm", {}, self._ask)
        with ui.element("div").classes("fields") as self._buttons:
            button("Ask both", self._ask, "Ask these two models the same again")
            button("Ask again", self._ask_again, "As a user would: whom the router takes answers")
        self._problem = Html(role="alert")
        self._two = Html(role="status")
        self._again = Html()
        self._choose_fields()

    async def show(self) -> None:
        """Offer what there is to ask; ask anew when a generation is served that was not when the slates were made."""
        world = self._source.world
        for part in (self._fields, self._buttons):
            part.set_visibility(self._world is not None)
        if world is None:
            self._is_away = True
            return self._complain(self._source.problem or "Nothing is published yet: wait a moment.")
        is_new = world != self._world
        if is_new:
            self._world = world
            self._offer(world)
        newest = self._newest()
        if is_new or self._is_away or (newest >= 0 and newest != self._generation):
            self._is_away = False
            await self._ask()

    def _newest(self) -> int:
        """The newest generation that every replica serves, -1 while there is none."""
        served = [one.generation for one in self._source.replicas if one.healthy and one.HasField("generation")]
        return min(served, default=-1)

    def _offer(self, world: World) -> None:
        numbers = {str(number): str(number) for number in range(world.duplicates)}
        arms = {arm: label(arm) for arm in world.arms}
        self._arm.offer(arms)
        self._first.offer(numbers)
        self._second.offer(numbers, "1")
        self._other.offer(arms, list(arms)[-1])
        self._context_fields.clear()
        with self._context_fields:
            self._context = [
                Choice(
                    field.name,
                    {str(n): words for n, words in enumerate(values_of(field.values, field.vocabulary))},
                    self._ask,
                )
                for field in world.context
            ]
        self._list(world.found)
        self._anybody = next(iter(world.found), "0")
        self._user.element.props["placeholder"] = self._anybody

    def _list(self, users: Sequence[str]) -> None:
        self._found.clear()
        with self._found:
            for user in users:
                ui.element("option").props["value"] = user

    async def _search(self, event: GenericEventArguments) -> None:
        """Offer users whose ids begin as what is typed."""
        self._user.value = str(event.args)
        try:
            world = await run.io_bound(self._router.world, str(event.args)[:80])
        except FlickerError as problem:
            return self._complain(str(problem))
        if world is not None:  # None: the page is closing
            self._list(world.found)

    async def _choose(self, _: str) -> None:
        self._choose_fields()
        await self._ask()

    def _choose_fields(self) -> None:
        """Those that the kind of comparison needs."""
        self._second.visible(self._beside.value == "duplicates")
        self._other.visible(self._beside.value == "arms")

    def _query(self) -> Query:
        context = tuple(int(choice.value) for choice in self._context)
        return Query(
            self._user.value.strip() or self._anybody, context, min(max(self._k.number(), 1), MOST), self._arm.value
        )

    async def _ask(self, _: object = None) -> None:
        """Both models, and show their answers. What is chosen meanwhile is asked for as soon as they are there."""
        self._wanted = True
        while self._wanted and not self._busy and self._world is not None:
            self._wanted = False
            await self._ask_both(self._query(), (int(self._first.value), int(self._second.value)))

    async def _ask_both(self, query: Query, duplicates: tuple[int, int]) -> None:
        kind: Beside = self._beside.value  # type: ignore[assignment]  # of its options
        if kind == "duplicates" and duplicates[0] == duplicates[1]:
            return self._complain("Duplicate and other duplicate are the same: choose two.")
        if kind == "arms" and self._arm.value == self._other.value:
            return self._complain("Arm and other arm are the same: choose two.")
        asked = query, kind, duplicates, self._other.value
        self._generation = self._newest()
        two = await self._try(lambda: self._router.two(*asked))
        if two is not None:
            self._two.show(drawn(two, self._shown.get(asked)))
            self._shown = {asked: two}

    async def _ask_again(self) -> None:
        """As a user, and show this answer beside the one before."""
        query = self._query()
        slate = await self._try(lambda: self._router.recommend(query))
        if slate is not None:
            self._asked = [*self._asked, slate][-ASKED:]
            self._again.show(drawn_again(self._asked))

    async def _try(self, ask: Callable[[], Answer]) -> Answer | None:
        """What is asked of the router, in a thread; None, with the reason on the page, where it does not answer."""
        self._busy = True
        try:
            found = await run.io_bound(ask)
        except FlickerError as problem:
            self._complain(str(problem))
            return None
        finally:
            self._busy = False
        self._complain("")
        return found

    def _complain(self, problem: str) -> None:
        self._problem.show(Markup("<p class=refused>{}</p>").format(problem) if problem else Markup(""))


def values_of(names: Sequence[str], vocabulary: int) -> list[str]:
    """How the values of a context field are written; their numbers where the log does not say."""
    return [names[number] if number < len(names) else str(number) for number in range(min(vocabulary, MANY))]


def drawn(two: Two, before: Two | None = None) -> Markup:
    """Two slates side by side; places whose item is another one than `before` flash."""
    one, other = two.slates
    moved = differing(one.places, other.places)
    alone = len({place.item for place in one.places} - {place.item for place in other.places})
    rows, joined = beside(one.places, other.places)
    for side, old in enumerate(before.slates if before else ()):
        for place in differing(old.places, two.slates[side].places):
            if place < len(rows[side]):
                rows[side][place] = replace(rows[side][place], kind=f"{rows[side][place].kind} changed".strip())
    said = Markup("<h2>{} of {} differ</h2>").format(len(moved), plural(len(one.places), "place"))
    if one.unknown_user:
        said += Markup("<p>The world has no such user: answered as one of whom nothing is known.</p>")
    stand = f"{plural(alone, 'item')} of each stand in one slate alone." if alone else "Both hold the same items."
    note = f"Lines join an item's places. {stand} Small: log-odds of an engagement."
    names = [[measure.words, number(two.measures[name])] for name, measure in MEASURES.items() if name in two.measures]
    parts = (
        said,
        heads(one.by, other.by),
        Markup(kit().beside(rows, joined)),
        Markup("<p class=note>{}</p>").format(note),
    )
    return Markup("").join(parts) + table(["How much they differ", "share, PD: relative difference"], names)


def drawn_again(asked: Sequence[Slate]) -> Markup:
    """The last two answers to one user side by side, and who gave the others."""
    lines = []
    for before, slate in zip([None, *asked], asked, strict=False):
        changed = (
            "first answer"
            if before is None
            else f"{len(differing(before.places, slate.places))} of {len(slate.places)}"
        )
        lines.append([who(slate.by), changed, slate.places[0].title if slate.places else ""])
    shown = Markup("<h2>What a user gets who asks again</h2>")
    if len(asked) > 1:
        one, other = asked[-2:]
        rows, joined = beside(one.places, other.places)
        shown += heads(one.by, other.by) + Markup(kit().beside(rows, joined))
    return shown + table(["answered by", "places changed", "first item"], lines[::-1])


def differing(one: Sequence[Place], other: Sequence[Place]) -> list[int]:
    """Places, from 0, that do not hold the same item; those that one has not are other ones."""
    longest = max(len(one), len(other))
    items = [[place.item for place in slate] + [""] * (longest - len(slate)) for slate in (one, other)]
    return [number for number, (a, b) in enumerate(zip(*items, strict=True)) if a != b]


def heads(one: AnsweredBy, other: AnsweredBy) -> Markup:
    """Who stands left and right."""
    return Markup("<div class=heads><p>{}</p><p>{}</p></div>").format(who(one), who(other))


def who(by: AnsweredBy) -> str:
    """Which model answered."""
    return f"{label(by.arm)}, duplicate {by.duplicate}, generation {by.generation}, {by.replica}"
