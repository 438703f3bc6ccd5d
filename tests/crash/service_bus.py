"""The crash test's Service Bus side: sessions, deferral, schedules, dead letters, rules, forwarding, transactions.

Fault model and rules are those of `crash`; who acts here, and on what, is said in CONFIG and ACTORS. Anything
new is a line in CONFIG, what happens there by itself in DRIFTS, and who works on
it in ACTORS: `check` then demands that each message is in exactly one of the places where it may be.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from book import ACTIVE, DEAD, DEFERRED, GONE, SCHEDULED, Book, Change, Place
from clients import (
    DEAD_LETTERS,
    SESSION_FILTER,
    VERBS,
    Actor,
    Answers,
    World,
    key_of,
    now_ms,
)
from over_amqp import connection_string
from over_http import Link
from over_http import place as place_of

from hubbub.cli.amqp import BATCH_FORMAT, AmqpClient, AmqpError
from hubbub.cli.client import parse
from hubbub.wire.amqp.errors import StateError
from hubbub.wire.amqp.message import (
    APPLICATION_PROPERTIES,
    HEADER,
    MESSAGE_ANNOTATIONS,
    data_section,
    list_section,
    map_section,
    properties_section,
    section_list,
    split,
    value_section,
)
from hubbub.wire.amqp.performatives import (
    Accepted,
    Composite,
    Coordinator,
    Declare,
    Discharge,
    Source,
    Target,
    TransactionalState,
)
from hubbub.wire.amqp.types import Array, Described, Int, Long, Symbol, Timestamp, Uint, Ulong

SESSIONS, DEFERRAL, SCHEDULE, POISON, FLEETING = "sessions", "deferral", "schedule", "poison", "fleeting"
DEPOT, SHOP, TOPIC = "depot", "shop", "orders"
GATE, DOOR, PRESS, HALL, KIOSK = "gate", "door", "press", "hall", "kiosk"
DELIVERIES_MAX = 3
CONFIG = f"""
segment_bytes = 262144
queue = [
  {{ name = "{SESSIONS}", requires_session = true }},
  {{ name = "{DEFERRAL}" }}, {{ name = "{SCHEDULE}" }}, {{ name = "{DEPOT}" }}, {{ name = "{SHOP}" }},
  {{ name = "{POISON}", lock_duration = "PT1S", deliveries_max = {DELIVERIES_MAX} }},
  {{ name = "{GATE}", forward_to = "{DOOR}" }}, {{ name = "{DOOR}", forward_to = "{HALL}" }},
  {{ name = "{PRESS}", forward_dead_letters_to = "{HALL}" }}, {{ name = "{HALL}" }},
  {{ name = "{KIOSK}", forward_to = "{TOPIC}" }},
  {{ name = "{FLEETING}", lock_duration = "PT1S", dead_letter_on_expiration = true }},
]
[[topic]]
name = "{TOPIC}"
subscription = [{{ name = "all" }}, {{ name = "red" }}, {{ name = "large" }}, {{ name = "either" }}]
"""
SHORT = (POISON, FLEETING)
"""Where locks are short, so that they run out."""
DRIFTS: dict[Place, Place] = {(name, ACTIVE): (name, DEAD) for name in SHORT} | {
    (GATE, ACTIVE): (HALL, ACTIVE),
    (PRESS, DEAD): (HALL, ACTIVE),
}
"""Where messages get by themselves: after too many deliveries, at the end of their time to live, forwarded."""
RULES: dict[str, dict[str, Any]] = {
    "red": {"red": {"correlation-filter": {"properties": {"color": "red"}}}},
    "large": {"large": {"sql-filter": {"expression": "size > 5 AND color IS NOT NULL"}}},
    "either": {
        "small": {"sql-filter": {"expression": "size < 3"}},
        "blue": {"sql-filter": {"expression": "color = 'blue'"}},
    },
}
WANTED: dict[str, Callable[[str, int], bool]] = {
    "all": lambda color, size: True,
    "red": lambda color, size: color == "red",
    "large": lambda color, size: size > 5,
    "either": lambda color, size: size < 3 or color == "blue",
}
"""What each subscription gets by its rules."""
SUBSCRIPTIONS = {name: f"{TOPIC}/subscriptions/{name}" for name in WANTED}
FORWARDING = (GATE, DOOR, KIOSK)
"""Nothing stays there once it may go."""
QUEUES = (SESSIONS, DEFERRAL, SCHEDULE, POISON, FLEETING, DEPOT, SHOP, PRESS, HALL, *FORWARDING)
ENTITIES = (*QUEUES, *SUBSCRIPTIONS.values())

SESSION_IDS = [f"session-{n}" for n in range(6)]
SCHEDULED_TIME = Symbol("x-opt-scheduled-enqueue-time")
DELAYS = (60, 250, 1_000, 4_000, 3_600_000)
"""How far ahead messages are scheduled, ms: some come in the same life, some between two, some never."""
LIVES = (20, 200, 1_000, 3_600_000)
"""Times to live, ms."""
SURE = 2_000
"""What is due later than that, ms, is not due yet when a request to cancel it comes."""
SET = "set"
"""The state of a session that has this value."""
WINDOW = 8
BREATH = 0.01
"""Seconds between sends, or there would be more to read back than the test has time for."""
PATIENCE = 60
"""How often a check looks again, since the server does things by itself just then."""


# Senders.


def letter(actor: Actor, entity: str) -> tuple[bytes, dict[str, Place]]:
    """A new message for a queue or topic, and where it is to be."""
    body = f"{entity}:{next(actor.world.numbers)}"
    sections, place = b"", (entity, ACTIVE)
    if entity in (TOPIC, KIOSK):
        return order(actor, body)
    if entity == FLEETING:
        sections = list_section(HEADER, [None, None, Uint(actor.chance.choice(LIVES))])
    if entity == SCHEDULE or (entity == GATE and actor.chance.random() < 0.3):
        due = actor.book.due[body] = now_ms() + actor.chance.choice(DELAYS)
        sections = map_section(MESSAGE_ANNOTATIONS, {SCHEDULED_TIME: Timestamp(due)})
        place = (entity, SCHEDULED)
    session = actor.chance.choice(SESSION_IDS) if entity == SESSIONS else None
    sections += properties_section(message_id=body, group_id=session)
    return sections + data_section(body.encode()), {body: place}


def order(actor: Actor, body: str) -> tuple[bytes, dict[str, Place]]:
    """A message for the topic, and the copies there are to be."""
    color, size = actor.chance.choice(("red", "blue", "green")), actor.chance.randrange(10)
    sections = properties_section(message_id=body)
    sections += map_section(APPLICATION_PROPERTIES, {"color": color, "size": Int(size)})
    copies = [path for name, path in SUBSCRIPTIONS.items() if WANTED[name](color, size)]
    return sections + data_section(body.encode()), {key_of(path, body): (path, ACTIVE) for path in copies}


async def fill(actor: Actor, entity: str) -> None:
    """Sends, single messages and batches, some at a time."""
    outbox = await actor.client.sender(entity)
    under_way: deque[tuple[asyncio.Future[None], Change]] = deque()
    try:
        while True:
            await outbox.room()
            await asyncio.sleep(BREATH)
            letters = [letter(actor, entity) for _ in range(actor.chance.choice((1, 1, 1, 4)))]
            change = actor.book.begin({key: place for _, after in letters for key, place in after.items()})
            payload = b"".join(data_section(payload) for payload, _ in letters)
            single = len(letters) == 1
            sent = outbox.send(letters[0][0]) if single else outbox.send(payload, BATCH_FORMAT)
            under_way.append((sent, change))
            if len(under_way) >= WINDOW:
                await actor.client.wait(under_way[0][0])
                actor.book.done(under_way.popleft()[1])
    finally:
        for sent, change in under_way:
            if sent.done() and sent.exception() is None:
                actor.book.done(change)


async def schedule(actor: Actor) -> None:
    """Schedules by request, and takes some back."""
    numbers: dict[str, int] = {}
    while True:
        await asyncio.sleep(BREATH)
        letters = [letter(actor, SCHEDULE) for _ in range(actor.chance.randint(1, 3))]
        keys = [key for _, after in letters for key in after]
        items = [
            {"message-id": key, "message": payload} for key, (payload, _) in zip(keys, letters, strict=True)
        ]
        change = actor.book.begin(dict.fromkeys(keys, (SCHEDULE, SCHEDULED)))
        _, answer = await actor.make(change, actor.request(SCHEDULE, "schedule-message", {"messages": items}))
        numbers |= zip(keys, answer["sequence-numbers"], strict=True)
        if actor.chance.random() < 0.5:
            await cancel(actor, numbers)


async def cancel(actor: Actor, numbers: dict[str, int]) -> None:
    """Some that are scheduled; they may be due just then."""
    keys = [key for key in numbers if actor.book.is_at(key, (SCHEDULE, SCHEDULED))]
    keys = actor.chance.sample(keys, min(len(keys), actor.chance.randint(1, 3)))
    if not keys:
        return
    change = actor.book.begin(dict.fromkeys(keys, GONE))
    body = {"sequence-numbers": Array(Long(numbers[key]) for key in keys)}
    done, _ = await actor.make(change, actor.request(SCHEDULE, "cancel-scheduled-message", body))
    if not done and all(actor.book.due[key] > now_ms() + SURE for key in keys):
        actor.book.problems.append(f"{keys} cannot be cancelled by their numbers {body}")


# Receivers.


async def work(actor: Actor, entity: str, verbs: str, dead: bool = False) -> None:
    """Receives from one entity, or its dead letters, and does one of the verbs with each message."""
    mail = await actor.receive(entity + (DEAD_LETTERS if dead else ""), 5)
    here = DEAD if dead else ACTIVE
    while True:
        delivery = await mail.next()
        key = actor.read(entity, delivery.payload, here)
        verb = actor.chance.choice(verbs.split())
        state = VERBS[verb][2]
        if state == ACTIVE:
            state = DEAD if dead or last(entity, delivery.payload) else ACTIVE
        after = key, GONE if state is None else (entity, state)
        await actor.settle(mail, delivery, after, verb, ask=entity in SHORT)


def last(entity: str, payload: bytes) -> bool:
    """Whether it was the last time that the message was delivered."""
    earlier = section_list(split(payload).header, 5)[4] or 0
    return entity == POISON and earlier + 1 >= DELIVERIES_MAX


async def recall(actor: Actor, entity: str) -> None:
    """Gets deferred messages. With none there it says nothing, and must look whether the server lives."""
    while not actor.lost:
        await asyncio.sleep(BREATH)
        keys = actor.deferred(entity, [*actor.book.may])
        if keys:
            await actor.recall(entity, keys)


def state_of(session: str) -> str:
    """The key of a session's state, which is a message that only ever changes its place."""
    return f"state of {session}"


async def hold(actor: Actor) -> None:
    """Accepts a session, the next or one by name, works on it for a while, and lets it go."""
    while True:
        name = actor.chance.choice((None, None, *SESSION_IDS))
        try:
            mail = await actor.receive(SESSIONS, 3, name)
        except AmqpError:
            if actor.lost:
                raise
            continue  # Others hold it, or there is nothing.
        session = str(mail.link.source.filter[SESSION_FILTER])  # type: ignore[index, union-attr]
        await _in_session(actor, mail, session)
        mail.link.detach()


async def _in_session(actor: Actor, mail: Any, session: str) -> None:
    await _change_state(actor, session)
    mine: list[str] = []
    for delivery in await mail.some(3):
        key = actor.read(SESSIONS, delivery.payload)
        verb = actor.chance.choice(("complete", "complete", "abandon", "defer", "defer", "bury"))
        state = VERBS[verb][2]
        after = key, GONE if state is None else (SESSIONS, state)
        await actor.settle(mail, delivery, after, verb, session)
        mine += [key] if verb == "defer" else []
    keys = actor.deferred(SESSIONS, mine)
    if keys:
        await actor.recall(SESSIONS, keys, session)


async def _change_state(actor: Actor, session: str) -> None:
    """It must be what was last set; then it is set anew."""
    answer = await actor.request(SESSIONS, "get-session-state", {}, session)
    if answer["session-state"] is not None:
        actor.book.seen(state_of(session), (answer["session-state"].decode(), SET), now_ms())
    state = str(next(actor.world.numbers))
    change = actor.book.begin({state_of(session): (state, SET)})
    body = {"session-state": state.encode()}
    await actor.make(change, actor.request(SESSIONS, "set-session-state", body, session))


# Transactions.


async def move(actor: Actor) -> None:
    """Settles what comes to the depot and sends it to the shop, with an order, all in one transaction."""
    control = await _answers(actor, Coordinator(["amqp:local-transactions"]))
    outs = {entity: await _answers(actor, Target(entity)) for entity in (SHOP, GATE, TOPIC)}
    mail = await actor.receive(DEPOT, 6)
    while True:
        found = await mail.some(3, 0.2)
        id = (await control.ask(_value(Declare()))).txn_id
        after: dict[str, Place] = {}
        for delivery in found:
            key = actor.read(DEPOT, delivery.payload)
            verb = actor.chance.choice(("complete", "complete", "complete", "defer", "bury"))
            outcome, _, state = VERBS[verb]
            mail.link.settle(delivery, TransactionalState(id, outcome))
            target = actor.chance.choice((SHOP, GATE))
            after[key] = (target, ACTIVE) if state is None else (DEPOT, state)
            if state is None:
                await outs[target].ask(data_section(key.encode()), TransactionalState(id))
        payload, copies = order(actor, f"{TOPIC}:{next(actor.world.numbers)}")
        await outs[TOPIC].ask(payload, TransactionalState(id))
        if actor.chance.random() < 0.2:
            await control.ask(_value(Discharge(id, True)))
            for delivery in found:
                await actor.free(DEPOT, delivery)
            continue
        change = actor.book.begin(after | copies)
        ended = await control.ask(_value(Discharge(id)))
        (actor.book.done if isinstance(ended, Accepted) else actor.book.refused)(change)


async def _answers(actor: Actor, target: Target | Coordinator) -> Answers:
    link = actor.client.session.sender(f"out-{next(actor.world.numbers)}", target, Source("crash"))
    link.context = answers = Answers(actor.client, link)
    await actor.client.wait(answers.attached)
    return answers


def _value(composite: Composite) -> bytes:
    return value_section(Described(Ulong(composite.CODE), composite._values()))


ACTORS: tuple[Callable[[Actor], Awaitable[None]], ...] = (
    *(partial(fill, entity=name) for name in (SESSIONS, DEFERRAL, SCHEDULE, POISON, FLEETING, DEPOT, TOPIC)),
    *(partial(fill, entity=name) for name in (GATE, PRESS, KIOSK)),
    partial(work, entity=PRESS, verbs="abandon bury bury complete"),
    partial(work, entity=HALL, verbs="complete abandon bury"),
    *(partial(work, entity=path, verbs="complete abandon bury") for path in SUBSCRIPTIONS.values()),
    partial(work, entity=DEFERRAL, verbs="complete abandon defer defer defer bury"),
    partial(recall, entity=DEFERRAL),
    schedule,
    partial(work, entity=SCHEDULE, verbs="complete complete abandon"),
    partial(work, entity=POISON, verbs="abandon abandon abandon complete bury"),
    partial(work, entity=FLEETING, verbs="abandon abandon complete bury"),
    *(partial(work, entity=name, verbs="complete abandon", dead=True) for name in (POISON, FLEETING)),
    hold,
    hold,
    move,
    partial(work, entity=SHOP, verbs="complete abandon"),
)


# Lives.


def new_world() -> World:
    return World(Book(DRIFTS))


def prepare(port: int) -> None:
    """Replaces the rules that take everything. Once for each folder."""
    asyncio.run(_prepare(port))


async def _prepare(port: int) -> None:
    async with await AmqpClient.connect(parse(connection_string(port))) as client:
        for name, rules in RULES.items():
            node = f"{SUBSCRIPTIONS[name]}/$management"
            for rule, description in rules.items():
                body = {"rule-name": rule, "rule-description": description}
                await client.request(node, {"operation": "com.microsoft:add-rule"}, body)
            await client.request(node, {"operation": "com.microsoft:remove-rule"}, {"rule-name": "$Default"})


def live(world: World, port: int, chance: random.Random) -> None:
    """All actors, until the server is gone."""
    asyncio.run(_live(world, port, chance))


async def _live(world: World, port: int, chance: random.Random) -> None:
    await asyncio.gather(*(_act(act, world, port, random.Random(chance.random())) for act in ACTORS))


async def _act(
    act: Callable[[Actor], Awaitable[None]], world: World, port: int, chance: random.Random
) -> None:
    actor: Actor | None = None
    try:
        actor = Actor(world, await AmqpClient.connect(parse(connection_string(port))), chance)
        await act(actor)
    except (AmqpError, StateError) as error:
        gone = actor.lost if actor is not None else getattr(error, "code", 0) == 7
        if not gone:
            world.book.problems.append(f"{act}: {error}")
    except Exception as error:
        world.book.problems.append(f"{act}: {error!r}")


def check(world: World, link: Link, port: int) -> None:
    """Reads everything back and compares. What time does just then may be seen twice or not at all, hence
    more than one look."""
    faults: list[str] = []
    for _ in range(PATIENCE):
        found, faults = _read(world, link)
        found |= asyncio.run(_states(port))
        faults += world.book.faults(found, now_ms())
        if not faults:
            break
        time.sleep(0.05)
    world.book.problems += [f"{fault}; {world.book.trails.get(fault.split(' ')[0])}" for fault in faults]
    world.book.accept(found)


def _read(world: World, link: Link) -> tuple[dict[str, list[Place]], list[str]]:
    """Where the messages are, and where the counts say that there are others, not to be seen: those whose time
    is over, for as long as somebody holds them."""
    found: dict[str, list[Place]] = {}
    faults: list[str] = []
    for entity in ENTITIES:
        before = sum(map(len, found.values()))
        for dead in (True, False):
            for message in link.messages(entity, dead):
                key = key_of(entity, message["body"])
                state = DEAD if dead else message["state"].lower()
                found.setdefault(key, []).append((entity, ACTIVE if state == "locked" else state))
                if entity in FORWARDING and state == ACTIVE:
                    faults.append(f"{key} does not go on from {entity}")
                if state in (DEFERRED, SCHEDULED):
                    world.sequences[key] = message["sequenceNumber"]
        here = sum(map(len, found.values())) - before
        count = link.read(place_of(entity))["messageCount"]
        if here != count:
            faults.append(f"{entity} has {here} messages, and says {count}")
    return found, faults


async def _states(port: int) -> dict[str, list[Place]]:
    """Of all sessions. Nobody holds any after a restart."""
    found: dict[str, list[Place]] = {}
    async with await AmqpClient.connect(parse(connection_string(port))) as client:
        actor = Actor(new_world(), client, random.Random(0))
        for session in SESSION_IDS:
            mail = await actor.receive(SESSIONS, 0, session)
            state = (await actor.request(SESSIONS, "get-session-state", {}, session))["session-state"]
            if state is not None:
                found[state_of(session)] = [(state.decode(), SET)]
            mail.link.detach()
    return found
