"""The log against a model of a few lines, in whatever order its methods are called."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from simulator.store.protocol import LogFull, StoreError, entry_order
from tests.store.batches import batch, numbers
from tests.store.conftest import CAPACITY, MakeStore

GROUPS = st.sampled_from(["a", "b", "c"])
WRITERS = st.sampled_from(["", "feeder", "router"])


class LogMachine(RuleBasedStateMachine):
    """The model: all events ever appended are numbered from 0, so that an entry is an interval of numbers."""

    make_store: MakeStore

    @initialize()
    def start(self) -> None:
        self.store = type(self).make_store()
        self.ends: list[int] = []  # of all entries ever
        self.groups: dict[str, int] = {}
        self.forgotten = 0
        self.marks: dict[str, tuple[str, str]] = {}

    @property
    def appended(self) -> int:
        return self.ends[-1] if self.ends else 0

    def forget(self) -> None:
        self.forgotten = max(self.forgotten, min(self.groups.values(), default=0))

    @rule(n=st.integers(1, 40), writer=WRITERS, mark=st.sampled_from(["", "1", "2"]))
    def append(self, n: int, writer: str, mark: str) -> None:
        events = batch(self.appended, n)
        if writer and mark and self.marks.get(writer, ("", ""))[0] == mark:
            assert self.store.append(events, writer=writer, mark=mark) == self.marks[writer][1]
        elif self.appended - self.forgotten + n > CAPACITY:
            with pytest.raises(LogFull):
                self.store.append(events, writer=writer, mark=mark)
        else:
            id = self.store.append(events, writer=writer, mark=mark)
            self.ends.append(self.appended + n)
            assert entry_order(id) == self.appended
            if writer:
                self.marks[writer] = (mark, id)

    @rule(group=GROUPS)
    def join(self, group: str) -> None:
        self.store.join(group)
        self.groups.setdefault(group, self.forgotten)

    @rule(group=GROUPS)
    def leave(self, group: str) -> None:
        self.store.leave(group)
        self.groups.pop(group, None)
        self.forget()

    @rule(group=GROUPS, data=st.data(), events=st.integers(1, 120))
    def read(self, group: str, data: Any, events: int) -> None:
        after = data.draw(st.sampled_from([0, *self.ends]))
        if group not in self.groups or after < self.forgotten:
            with pytest.raises(StoreError):
                self.store.read(group, f"{after}-0", events, 0.0)
            return
        found = self.store.read(group, f"{after}-0", events, 0.0)
        later = [end for end in self.ends if end > after]
        until = max([end for end in later if end <= after + events], default=min(later, default=after))
        assert [entry_order(entry.id) for entry in found] == [end for end in later if end <= until]
        assert numbers([entry.batch for entry in found]) == list(range(after, until))

    @rule(group=GROUPS, data=st.data())
    def acknowledge(self, group: str, data: Any) -> None:
        upto = data.draw(st.sampled_from([0, *self.ends]))
        if group not in self.groups:
            with pytest.raises(StoreError):
                self.store.acknowledge(group, f"{upto}-0")
            return
        self.store.acknowledge(group, f"{upto}-0")
        self.groups[group] = max(self.groups[group], upto)
        self.forget()

    @invariant()
    def counts_and_marks_agree(self) -> None:
        assert self.store.waiting() == self.appended - self.forgotten
        for writer, (mark, _) in self.marks.items():
            assert self.store.mark(writer) == mark


def test_the_log_does_as_its_model(make_store: MakeStore) -> None:
    machine = type("Machine", (LogMachine,), {"make_store": staticmethod(make_store)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
