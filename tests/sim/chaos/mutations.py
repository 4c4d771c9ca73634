"""Ways to break the code on purpose, each with the invariant that it breaks."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from foredraft.api.drafters import Drafters
from foredraft.cloud import session_log
from foredraft.cloud.service import CloudService
from foredraft.cloud.session import CloudSession
from foredraft.cloud.state import CloudState
from foredraft.edge import session as edge_session
from foredraft.edge.deadline import Deadline
from foredraft.edge.session import EdgeSession
from foredraft.edge.session_report import SessionReport
from foredraft.edge.shipping import Shipping
from foredraft.engines import paced
from foredraft.engines.batching import choose
from foredraft.engines.blocks import BlockPool
from foredraft.engines.paced import PacedTarget
from foredraft.engines.shares import Shares
from foredraft.errors import LinkClosedError
from foredraft.keys import KeyFile
from foredraft.protocol import messages
from foredraft.protocol.messages import Commit, Grow, Hint, Open, Ready, Steer
from foredraft.protocol.ports import Link
from foredraft.server.app import Server

Patch = pytest.MonkeyPatch

# The text


def a_commit_loses_its_last_token(patch: Patch) -> None:
    whole = CloudState.commit

    def commit(self: CloudState, *args: Any) -> tuple[Commit, list[int]]:
        said, kept = whole(self, *args)
        tokens = messages.unpack(said.tokens)
        return msgspec.structs.replace(said, tokens=messages.pack(tokens[:-1] if len(tokens) > 1 else tokens)), kept

    patch.setattr(CloudState, "commit", commit)


def a_draft_is_taken_on_trust(patch: Patch) -> None:
    whole = CloudState.commit

    def commit(self: CloudState, plan: Any, verdict: Any, *args: Any) -> tuple[Commit, list[int]]:
        said = list(verdict.prediction.tokens)
        if plan.tokens:
            said[0] = plan.tokens[0]
        prediction = msgspec.structs.replace(verdict.prediction, tokens=tuple(said))
        return whole(self, plan, msgspec.structs.replace(verdict, prediction=prediction), *args)

    patch.setattr(CloudState, "commit", commit)


def a_text_is_resumed_with_a_wrong_token(patch: Patch) -> None:
    whole = Shipping._opening

    def opening(self: Shipping, *args: Any) -> Open:
        said = whole(self, *args)
        tokens = messages.unpack(said.tokens)
        if len(tokens) > said.start:
            tokens[-1] = (tokens[-1] + 1) % 500
        return msgspec.structs.replace(said, tokens=messages.pack(tokens))

    patch.setattr(Shipping, "_opening", opening)


def a_text_goes_on_with_whatever_model_is_served(patch: Patch) -> None:
    def suits(self: EdgeSession, ready: Ready) -> Ready:
        self._exact = ready.exact
        return ready

    patch.setattr(EdgeSession, "_suits", suits)


# What is shown


def hints_are_shown(patch: Patch) -> None:
    whole = EdgeSession._take_hint

    def take_hint(self: EdgeSession, hint: Hint) -> None:
        whole(self, hint)
        if self._fresh is not None and hint.position == self.state.position:
            self._fresh.append(messages.unpack(hint.tokens))

    patch.setattr(EdgeSession, "_take_hint", take_hint)


def the_last_token_is_taken_back_where_the_link_was_lost(patch: Patch) -> None:
    whole = EdgeSession.report

    def report(self: EdgeSession, text: str = "") -> SessionReport:
        said = whole(self, text)
        return replace(said, tokens=said.tokens[:-1]) if said.reconnects else said

    patch.setattr(EdgeSession, "report", report)


# The end


def drafts_that_arrive_wake_nobody(patch: Patch) -> None:
    def take(self: CloudSession, message: Grow | Steer) -> None:
        if isinstance(message, Steer):
            self.state.take_steer(message, self._clock.time())
        else:
            self.attach(message.chains)

    patch.setattr(CloudSession, "take", take)


def a_link_that_was_lost_is_an_error(patch: Patch) -> None:
    async def pause(self: EdgeSession, error: Exception, failures: int) -> None:
        raise LinkClosedError("nobody made this anew") from error

    patch.setattr(EdgeSession, "_pause", pause)


def deadlines_never_come(patch: Patch) -> None:
    async def pass_by(self: Deadline, began_at_s: float) -> None:
        await asyncio.sleep(float("inf"))

    patch.setattr(Deadline, "pass_by", pass_by)


# What is left


def places_in_the_cache_are_not_given_back(patch: Patch) -> None:
    patch.setattr(BlockPool, "close", lambda self, text: None)


def memory_of_the_device_is_not_given_back(patch: Patch) -> None:
    patch.setattr(paced._PacedSlot, "close", lambda self: self._inner.close())


def connections_stay_in_the_services_table(patch: Patch) -> None:
    whole = CloudService.handle

    async def handle(self: CloudService, link: Link) -> None:
        serving = asyncio.ensure_future(whole(self, link))
        await asyncio.sleep(0)
        known = list(self._connections)
        try:
            await serving
        finally:
            self._connections[:] = known

    patch.setattr(CloudService, "handle", handle)


def whoever_is_not_first_goes_on_for_ever(patch: Patch) -> None:
    async def first_of(*running: Any) -> None:
        tasks = [asyncio.ensure_future(one) for one in running]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    patch.setattr(edge_session, "_first_of", first_of)


def drafters_are_not_closed(patch: Patch) -> None:
    async def close(self: Drafters) -> None:
        self._free.clear()

    patch.setattr(Drafters, "close", close)


# Shares


def weights_of_keys_are_ignored(patch: Patch) -> None:
    patch.setattr(PacedTarget, "divide", lambda self, weight_of, cache_of: None)


def who_comes_first_is_served_first(patch: Patch) -> None:
    patch.setattr(Shares, "choose", lambda self, waiting, chunk: choose(waiting, chunk))


def keys_have_any_number_of_texts_at_once(patch: Patch) -> None:
    patch.setattr(CloudService, "texts_of", lambda self, key: 0)


def the_door_counts_no_connections(patch: Patch) -> None:
    patch.setattr(Server, "place", lambda self, key: contextlib.nullcontext())


# The log


def sessions_that_were_left_have_no_line(patch: Patch) -> None:
    whole = session_log.session_ended

    def session_ended(name: str, key: str, state: Any, tally: Any, how: str, took_s: float) -> None:
        if how != session_log.LEFT:
            whole(name, key, state, tally, how, took_s)

    patch.setattr(session_log, "session_ended", session_ended)


def refusals_have_no_line(patch: Patch) -> None:
    patch.setattr(session_log, "refused", lambda connection, session, code, key: None)


def lines_do_not_name_their_key(patch: Patch) -> None:
    whole = session_log.session_ended
    patch.setattr(session_log, "session_ended", lambda name, key, *rest: whole(name, "somebody", *rest))


# Keys


def files_of_keys_are_not_read_again(patch: Patch) -> None:
    patch.setattr(KeyFile, "reload", lambda self: False)


def whoever_is_in_may_stay(patch: Patch) -> None:
    patch.setattr(CloudService, "turn_out", lambda self: None)


MUTATIONS: Sequence[tuple[Callable[[Patch], None], str]] = (
    (a_commit_loses_its_last_token, "text"),
    (a_draft_is_taken_on_trust, "text"),
    (a_text_is_resumed_with_a_wrong_token, "text"),
    (a_text_goes_on_with_whatever_model_is_served, "text"),
    (hints_are_shown, "shown"),
    (the_last_token_is_taken_back_where_the_link_was_lost, "shown"),
    (drafts_that_arrive_wake_nobody, "ends"),
    (a_link_that_was_lost_is_an_error, "ends"),
    (deadlines_never_come, "ends"),
    (places_in_the_cache_are_not_given_back, "left"),
    (memory_of_the_device_is_not_given_back, "left"),
    (connections_stay_in_the_services_table, "left"),
    (whoever_is_not_first_goes_on_for_ever, "left"),
    (drafters_are_not_closed, "left"),
    (weights_of_keys_are_ignored, "shares"),
    (who_comes_first_is_served_first, "shares"),
    (keys_have_any_number_of_texts_at_once, "shares"),
    (the_door_counts_no_connections, "shares"),
    (sessions_that_were_left_have_no_line, "log"),
    (refusals_have_no_line, "log"),
    (lines_do_not_name_their_key, "log"),
    (files_of_keys_are_not_read_again, "keys"),
    (whoever_is_in_may_stay, "keys"),
)
