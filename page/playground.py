"""The tab Playground: one query, two models' slates side by side, and what a user gets who asks again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from markupsafe import Markup
from nicegui import run, ui
from nicegui.events import GenericEventArguments

from page.asking import PairKind, RouterClient, RouterQuery, SlatePair, TitledSlate
from page.parts import Html, Select, TextInput, button, kit, notes, table
from page.source import LiveSource
from protos.recommender_pb2 import AnsweredBy, World
from simulator.errors import FlickerError
from simulator.measures.registry import MEASURES
from simulator.measures.words import label, number, plural
from simulator.report.kit import joined_slates
from simulator.result import Place

Answer = TypeVar("Answer")
PAIR_KINDS = {"duplicates": "two duplicates", "generations": "two generations of one", "arms": "two arms of one"}
MAX_PLACES = 20
"""Places of a slate that are shown: as many as the report's."""
KEPT_ANSWERS = 10
"""Answers to one user that are kept."""
MAX_VALUES = 100
"""Values of a context field that a list can hold."""


class Playground:
    """One viewer's query."""

    def __init__(self, source: LiveSource, router: RouterClient) -> None:
        self._source, self._router = source, router
        self._world: World | None = None
        self._default_user = "0"
        """The user of a query while none is typed."""
        self._shown: dict[object, SlatePair] = {}
        """The last request, and its answers."""
        self._wanted = self._is_away = False
        self._generation = -1
        """The newest generation when the slates were asked for."""
        self._asked: list[TitledSlate] = []
        self._busy = False
        with ui.element("div").classes("fields") as self._fields:
            self._user = TextInput("User", "", self._ask, list="users", autocomplete="off", spellcheck="false")
            self._user.element.on("input", self._search, js_handler="e => emit(e.target.value)", throttle=0.2)
            self._user.element.on("keydown.enter", self._ask, args=[])
            self._user_options = ui.element("datalist").props("id=users")
            self._context_fields = ui.element("div").classes("fields").style("margin:0")
            self._context: list[Select] = []
            self._k = TextInput("Places of the slate", "10", self._ask, (1, MAX_PLACES))
            self._beside = Select("Side by side", PAIR_KINDS, self._choose)
            self._arm = Select("Arm", {}, self._ask)
            self._first = Select("Duplicate", {}, self._ask)
            self._second = Select("Other duplicate", {}, self._ask)
            self._other_arm = Select("Other arm", {}, self._ask)
        with ui.element("div").classes("fields") as self._buttons:
            button("Ask both", self._ask, "Ask these two models the same again")
            button("Ask again", self._ask_again, "As a user would: whom the router takes answers")
        self._problem = Html(role="alert")
        self._comparison = Html(role="status")
        self._repeated = Html()
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
        return min(self._source.served(), default=-1)

    def _offer(self, world: World) -> None:
        numbers = {str(number): str(number) for number in range(world.duplicates)}
        arms = {arm: label(arm) for arm in world.arms}
        self._arm.offer(arms)
        self._first.offer(numbers)
        self._second.offer(numbers, "1")
        self._other_arm.offer(arms, list(arms)[-1])
        self._context_fields.clear()
        with self._context_fields:
            values = [enumerate(field_values(field.values, field.vocabulary)) for field in world.context]
            self._context = [
                Select(field.name, {str(number): words for number, words in numbered}, self._ask)
                for field, numbered in zip(world.context, values, strict=True)
            ]
        self._list_users(world.found)
        self._default_user = next(iter(world.found), "0")
        self._user.element.props["placeholder"] = self._default_user

    def _list_users(self, users: Sequence[str]) -> None:
        self._user_options.clear()
        with self._user_options:
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
            self._list_users(world.found)

    async def _choose(self, _: str) -> None:
        self._choose_fields()
        await self._ask()

    def _choose_fields(self) -> None:
        """Show the choices that the kind of comparison needs."""
        self._second.visible(self._beside.value == "duplicates")
        self._other_arm.visible(self._beside.value == "arms")

    def _query(self) -> RouterQuery:
        context = tuple(int(choice.value) for choice in self._context)
        user, k = self._user.value.strip() or self._default_user, min(max(self._k.number(), 1), MAX_PLACES)
        return RouterQuery(user, context, k, self._arm.value)

    async def _ask(self, _: object = None) -> None:
        """Ask both models, and show their answers. A choice made meanwhile is asked for once they have answered."""
        self._wanted = True
        while self._wanted and not self._busy and self._world is not None:
            self._wanted = False
            await self._ask_both(self._query(), (int(self._first.value), int(self._second.value)))

    async def _ask_both(self, query: RouterQuery, duplicates: tuple[int, int]) -> None:
        kind: PairKind = self._beside.value  # type: ignore[assignment]  # of its options
        if kind == "duplicates" and duplicates[0] == duplicates[1]:
            return self._complain("Duplicate and other duplicate are the same: choose two.")
        if kind == "arms" and self._arm.value == self._other_arm.value:
            return self._complain("Arm and other arm are the same: choose two.")
        request = query, kind, duplicates, self._other_arm.value
        self._generation = self._newest()
        pair = await self._call(lambda: self._router.slate_pair(*request))
        if pair is not None:
            self._comparison.show(pair_html(pair, self._shown.get(request)))
            self._shown = {request: pair}

    async def _ask_again(self) -> None:
        """Ask as a user, and show this answer beside the one before."""
        query = self._query()
        slate = await self._call(lambda: self._router.recommend(query))
        if slate is not None:
            self._asked = [*self._asked, slate][-KEPT_ANSWERS:]
            self._repeated.show(history_html(self._asked))

    async def _call(self, ask: Callable[[], Answer]) -> Answer | None:
        """The router's answer, asked for in a thread; None, with the reason on the page, where there is none."""
        self._busy = True
        try:
            answer = await run.io_bound(ask)
        except FlickerError as problem:
            self._complain(str(problem))
            return None
        finally:
            self._busy = False
        self._complain("")
        return answer

    def _complain(self, problem: str) -> None:
        self._problem.show(notes([problem] if problem else [], "refused"))


def field_values(names: Sequence[str], vocabulary: int) -> list[str]:
    """Names of the values of a context field; their numbers where the log has none."""
    return [names[number] if number < len(names) else str(number) for number in range(min(vocabulary, MAX_VALUES))]


def pair_html(pair: SlatePair, previous: SlatePair | None = None) -> Markup:
    """Two slates side by side; places whose item has changed since `previous` flash."""
    left, right = pair.slates
    moved = differing(left.places, right.places)
    unique = len({place.item for place in left.places} - {place.item for place in right.places})
    rows, joined = joined_slates(left.places, right.places)
    for side, old in enumerate(previous.slates if previous else ()):
        for place in differing(old.places, pair.slates[side].places):
            if place < len(rows[side]):
                rows[side][place] = replace(rows[side][place], kind=f"{rows[side][place].kind} changed".strip())
    title = Markup("<h2>{} of {} differ</h2>").format(len(moved), plural(len(left.places), "place"))
    if left.unknown_user:
        title += Markup("<p>The world has no such user: answered as one of whom nothing is known.</p>")
    summary = f"{plural(unique, 'item')} of each stand in one slate alone." if unique else "Both hold the same items."
    note = f"Lines join an item's places. {summary} Small: log-odds of an engagement."
    measured = [[each.words, number(pair.measures[name])] for name, each in MEASURES.items() if name in pair.measures]
    slates = slate_headings(left.by, right.by) + Markup(kit().beside(rows, joined))
    return title + slates + notes([note]) + table(["How much they differ", "share, PD: relative difference"], measured)


def history_html(slates: Sequence[TitledSlate]) -> Markup:
    """The last two answers to one user side by side, and who gave the others."""
    lines = []
    for previous, slate in zip([None, *slates], slates, strict=False):
        changed = "first answer"
        if previous is not None:
            changed = f"{len(differing(previous.places, slate.places))} of {len(slate.places)}"
        lines.append([model_name(slate.by), changed, slate.places[0].title if slate.places else ""])
    html = Markup("<h2>What a user gets who asks again</h2>")
    if len(slates) > 1:
        left, right = slates[-2:]
        rows, joined = joined_slates(left.places, right.places)
        html += slate_headings(left.by, right.by) + Markup(kit().beside(rows, joined))
    return html + table(["answered by", "places changed", "first item"], lines[::-1])


def differing(left: Sequence[Place], right: Sequence[Place]) -> list[int]:
    """Places, from 0, that do not hold the same item; one that a slate lacks differs."""
    length = max(len(left), len(right))
    items = [[place.item for place in slate] + [""] * (length - len(slate)) for slate in (left, right)]
    return [number for number, (a, b) in enumerate(zip(*items, strict=True)) if a != b]


def slate_headings(left: AnsweredBy, right: AnsweredBy) -> Markup:
    """Names of the models left and right."""
    return Markup("<div class=heads><p>{}</p><p>{}</p></div>").format(model_name(left), model_name(right))


def model_name(by: AnsweredBy) -> str:
    """The model that answered, by arm, duplicate, generation and replica."""
    return f"{label(by.arm)}, duplicate {by.duplicate}, generation {by.generation}, {by.replica}"
