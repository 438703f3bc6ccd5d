"""`hubbub explain`: a filter by itself, and the rules of a real server."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from hubbub.cli.explain import explain
from live import hubbub, running


def alone(*arguments, code=0, feed=None):
    """Without a server; what it prints."""
    done = CliRunner().invoke(explain, arguments, input=feed)
    assert done.exit_code == code, done.output
    return done.output


class TestFilter:
    def test_the_picture(self):
        sql = "colour = 'red' AND size > 3 OR NOT (sys.Label LIKE 'a%') OR n > 5"
        action = "SET size = size + 1 REMOVE colour; SET sys.Label = 'q'"
        told = alone(
            "--filter", sql, "--action", action, "-p", "colour=red", "-p", "size=5", "--subject", "b"
        )
        assert told.splitlines() == [
            "rule filter matches",
            f"    true      {sql}",
            "      true      colour = 'red' AND size > 3",
            "      > true      colour = 'red'    colour is 'red'",
            "      > true      size > 3    size is 5 (long)",
            "      (true)    NOT (sys.Label LIKE 'a%')",
            "        (false)   (sys.Label LIKE 'a%')    sys.Label is 'b'",
            "      (unknown) n > 5    n has no value",
            "  does      SET size = size + 1    size: 5 (long) -> 6 (long)",
            "  does      REMOVE colour    colour: 'red' -> nothing",
            "  does      SET sys.Label = 'q'    sys.Label: 'b' -> 'q'",
        ]

    @pytest.mark.parametrize(
        ("arguments", "outcome", "code"),
        [
            (["a = 1", "-p", "a=1"], "true", 0), (["a = 1", "-p", "a=2"], "false", 5), (["a = 1"], "unknown", 5), (["a / 0 = 1", "-p", "a=1"], "error", 5),
            (["a = '1'", "-p", "a:string=1"], "true", 0), (["a = '1'", "-p", 'a="1"'], "true", 0), (["a = 1.5", "-p", "a=1.5"], "true", 0), (["a", "-p", "a=true"], "true", 0),
            (["a IS NULL", "-p", "a=null"], "true", 0), (["a = '[1]'", "-p", "a=[1]"], "true", 0), (["a LIKE '%=%'", "-p", "a=b=c"], "true", 0),
            (["a < @b", "-p", "a:dateTime=2026-01-02", "--parameter", "@b:dateTime=2026-01-03"], "true", 0), (["[a:b] = 'c'", "-p", "a:b=c"], "true", 0),
            (["@a = 1 AND @b = 'x' AND @c AND @d > 1", "--parameter", "a=1", "--parameter", "@b=x", "--parameter", "c=true", "--parameter", "d=1.5"], "true", 0),
            (["sys.TimeToLive = @t", "--ttl", "1.5", "--parameter", "t:duration=PT1.5S"], "true", 0),
            (["sys.To = 't' AND sys.ReplyTo = 'r' AND sys.ContentType = 'c' AND sys.PartitionKey = 'p' AND sys.SessionId = 's' AND sys.CorrelationId = 'i' AND sys.MessageId = 'm'",
              "--to", "t", "--reply-to", "r", "--content-type", "c", "--partition-key", "p", "--session", "s", "--correlation-id", "i", "--message-id", "m"], "true", 0),
        ],
    )  # fmt: skip
    def test_values(self, arguments, outcome, code):
        found = json.loads(alone("--json", "--filter", *arguments, code=code))
        assert found["rule"]["filter"]["outcome"] == outcome
        assert found["rule"]["matched"] is (outcome == "true")

    def test_files(self, tmp_path):
        file = tmp_path / "message.json"
        file.write_text('{"subject": "s", "sequenceNumber": 5, "properties": {"a": 1, "b": 2}}')
        sql = "sys.Label = 'new' AND a = 1 AND b = 3"
        alone("--filter", sql, "--file", str(file), "--subject", "new", "-p", "b=3")
        alone("--filter", "a = 1", "--file", "-", feed='[{"properties": {"a": 1}}]')

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ([], "name a topic"), (["topic", "--filter", "a = 1"], "name a topic"), (["--filter", "a ="], "not valid"), (["--filter", "a = 1", "--action", "SET"], "not valid"),
            (["--filter", "a = 1", "-p", "a"], "NAME=VALUE"), (["--filter", "a = 1", "-p", "=a"], "NAME=VALUE"), (["--filter", "a = @b"], "no value"),
            (["--filter", "a = 1", "-p", "a:int=x"], "is no int"), (["--filter", "a = 1", "--file", "nix.json"], "nix.json"), (["--filter", "a = 1", "--sequence", "1"], "go with a topic"),
            (["topic", "--action", "SET a = 1"], "go with --filter"), (["topic", "--sequence", "1"], "--subscription"), (["--filter", "a = 1", "--session", "x" * 129], "128"),
        ],
    )  # fmt: skip
    def test_mistakes(self, arguments, told):
        assert told in alone(*arguments, code=2)

    @pytest.mark.parametrize("text", ["nonsense", "[]", "5", '[{"a": 1}]'])
    def test_files_that_are_no_message(self, text):
        assert alone("--filter", "a = 1", "--file", "-", code=2, feed=text)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("explain"), "--memory") as live:
        yield live


def rule(live, subscription, name, sql, action=""):
    space = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
    if action:
        action = f'<Action i:type="SqlRuleAction"><SqlExpression>{action}</SqlExpression></Action>'
    inner = f'<Filter i:type="SqlFilter"><SqlExpression>{sql}</SqlExpression></Filter>{action}'
    entry = (
        '<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml"><RuleDescription'
        f' xmlns="{space}" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">{inner}</RuleDescription></content></entry>'
    )
    path = f"/orders/subscriptions/{subscription}/rules/{name}?api-version=2021-05"
    assert live.call("PUT", path, entry.encode(), Content_Type="application/atom+xml")[0] == 201


def test_a_topic(live):
    def run(*arguments, code=0, feed=None):
        done = hubbub(*arguments, feed=feed, HUBBUB_CONNECTION_STRING=live.connection_string)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    run("topic", "create", "orders")
    for name in ("all", "urgent"):
        run("subscription", "create", f"orders/{name}")
    rule(live, "urgent", "big", "size &gt; 3", "SET sys.Label = 'big'")
    assert live.call("DELETE", "/orders/subscriptions/urgent/rules/$Default?api-version=2021-05")[0] == 200
    assert run("explain", "orders", "-p", "size=5").stdout.splitlines() == [
        "all: 1 copy",
        "  rule $Default matches",
        "    > true      1=1",
        "urgent: 1 copy",
        "  rule big matches",
        "    > true      size > 3    size is 5 (long)",
        "    does      SET sys.Label = 'big'    sys.Label: nothing -> 'big'",
    ]
    assert "urgent: no copies" in run("explain", "orders", "--subscription", "urgent", code=5).stdout
    run("send", "orders", "x", "-p", "size=5", "--message-id", "m")
    (sent,) = json.loads(run("peek", "orders/subscriptions/all", "--json").stdout)
    text = run("explain", "orders", "--file", "-", feed=json.dumps([sent])).stdout
    assert ("all: 1 copy" in text, "orders/subscriptions" in text) == (True, False)
    there = ("--subscription", "all", "--sequence", str(sent["sequenceNumber"]))
    assert json.loads(run("explain", "orders", *there, "--json").stdout)["subscriptions"][0]["copies"] == 1
    assert "no message" in run("explain", "orders", *there, "--dead-letter", code=3).stderr
    rule(live, "urgent", "broken", "size / 0 = 1")
    assert (
        "1 to the dead letters (FilterEvaluationException)" in run("explain", "orders", "-p", "size=5").stdout
    )
    run("topic", "create", "nobody")
    assert "nobody has no subscriptions" in run("explain", "nobody", code=5).stdout
    run("explain", "nix", code=3)
