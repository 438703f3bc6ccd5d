"""Transactions, judged by Qpid Proton's client: it has them, and the service's own Python and JavaScript clients
have not."""

from __future__ import annotations

import json
import uuid

import pytest
from proton import Message
from proton.handlers import MessagingHandler, TransactionHandler
from proton.reactor import Container

from live import ROOT, WELL_KNOWN, running


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("transactions"), "--topic", "topic/all") as live:
        yield live


@pytest.fixture
def queues(live):
    """Three messages in the first, none in the second."""
    names = [f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("source", "target")]
    for name in names:
        assert live.call("PUT", f"/_hubbub/api/v1/queues/{name}", b"{}")[0] == 201
    for body in (b"one", b"two", b"three"):
        assert live.call("POST", f"/{names[0]}/messages", body)[0] == 201
    return names


def count(live, path, kind="queues"):
    status, _, body = live.call("GET", f"/_hubbub/api/v1/{kind}/{path}")
    assert status == 200
    return json.loads(body)["activeMessageCount"]


class Story(MessagingHandler, TransactionHandler):
    """Moves two messages from one queue to another and to the topic, and then does `end`."""

    def __init__(self, live, source, target, end, before=lambda: None, settle=False):
        super().__init__(prefetch=0, auto_accept=False)
        self.url = f"amqp://{ROOT}:{WELL_KNOWN}@127.0.0.1:{live.port}"
        self.source, self.target, self.end, self.before = source, target, end, before
        self.settle = settle
        self.taken = []
        self.answers = []
        self.outcome = None

    def on_start(self, event):
        self.container = event.container
        self.connection = event.container.connect(self.url, allowed_mechs="PLAIN", reconnect=False)
        self.container.declare_transaction(self.connection, self, self.settle)

    def on_transaction_declared(self, event):
        self.transaction = event.transaction
        self.senders = [
            self.container.create_sender(self.connection, name) for name in (self.target, "topic")
        ]
        self.receiver = self.container.create_receiver(self.connection, self.source)
        self.receiver.flow(2)

    def on_message(self, event):
        self.taken.append(bytes(event.message.body))
        self.transaction.accept(event.delivery)
        sender = self.senders[len(self.taken) - 1]
        sent = self.transaction.send(sender, Message(body=event.message.body))
        self.answers.append(sent)
        if len(self.taken) == 2:
            event.reactor.schedule(0.2, self)

    def on_timer_task(self, event):
        # By now all of them have been answered, and nothing has happened.
        assert [sent.remote_state for sent in self.answers] == [0x34, 0x34]
        self.before()
        self.end(self)

    def ended(self, outcome):
        self.outcome = outcome
        self.connection.close()

    def on_transaction_committed(self, event):
        self.ended("committed")

    def on_transaction_aborted(self, event):
        self.ended("aborted")

    def on_transaction_commit_failed(self, event):
        self.ended(("failed", event.delivery.remote.condition.name))

    def on_transaction_declare_failed(self, event):
        self.ended("not declared")


@pytest.mark.parametrize("settle", [False, True])
def test_a_commit_does_all_of_it(live, queues, settle):
    source, target = queues
    before = count(live, "topic/all", "subscriptions")

    def nothing_yet():
        assert (count(live, source), count(live, target)) == (3, 0)

    story = Story(live, source, target, lambda story: story.transaction.commit(), nothing_yet, settle)
    Container(story).run()
    assert (story.outcome, story.taken) == ("committed", [b"one", b"two"])
    assert (count(live, source), count(live, target)) == (1, 1)
    assert count(live, "topic/all", "subscriptions") == before + 1


def test_a_roll_back_does_nothing(live, queues):
    source, target = queues
    story = Story(live, source, target, lambda story: story.transaction.abort())
    Container(story).run()
    assert story.outcome == "aborted"
    assert (count(live, source), count(live, target)) == (3, 0)


def test_a_lost_connection_rolls_back(live, queues):
    source, target = queues
    story = Story(live, source, target, lambda story: story.connection.close())
    Container(story).run()
    assert (count(live, source), count(live, target)) == (3, 0)


def test_what_cannot_be_done_whole_is_not_done_at_all(live, queues):
    """The target goes before the commit."""
    source, target = queues
    before = count(live, "topic/all", "subscriptions")

    def target_goes():
        assert live.call("DELETE", f"/_hubbub/api/v1/queues/{target}")[0] in (200, 204)

    story = Story(live, source, target, lambda story: story.transaction.commit(), target_goes)
    Container(story).run()
    assert story.outcome == ("failed", "amqp:transaction:rollback")
    assert count(live, source) == 3
    assert count(live, "topic/all", "subscriptions") == before
