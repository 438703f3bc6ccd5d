"""Rules by ATOM, and what subscriptions then get over HTTP."""

from __future__ import annotations

import json
import re

import pytest

from house import House, request

ATOM = b"Content-Type: application/atom+xml;type=entry;charset=utf-8"
SB = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
XSI = 'xmlns:i="http://www.w3.org/2001/XMLSchema-instance"'
XSD = 'xmlns:d6p1="http://www.w3.org/2001/XMLSchema"'


@pytest.fixture
def house():
    house = House()
    yield house
    house.close()


def call(house, method, target, body="", *lines):
    output = house.talk(request(method.encode(), target.encode(), body.encode(), *lines))
    head, _, rest = output.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode("latin-1"), rest.decode()


def rule(house, name, inner, subscription="s", method="PUT", *lines):
    entry = (
        '<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">'
        f'<RuleDescription xmlns="{SB}" {XSI}>{inner}</RuleDescription></content></entry>'
    )
    target = f"/topic/subscriptions/{subscription}/rules/{name}?api-version=2021-05"
    return call(house, method, target, entry, ATOM, *lines)


def sql(expression, parameters="", action=""):
    if action:
        action = f'<Action i:type="SqlRuleAction"><SqlExpression>{action}</SqlExpression></Action>'
    return (
        f'<Filter i:type="SqlFilter"><SqlExpression>{expression}</SqlExpression>{parameters}</Filter>{action}'
    )


def parameter(name, kind, text):
    pair = f'<Key>{name}</Key><Value i:type="d6p1:{kind}" {XSD}>{text}</Value>'
    return f"<KeyValueOfstringanyType>{pair}</KeyValueOfstringanyType>"


def only(house, name, inner):
    """The subscription has this rule and no other."""
    assert rule(house, name, inner)[0] == 201
    assert call(house, "DELETE", "/topic/subscriptions/s/rules/$Default")[0] == 200


def send(house, body="x", **properties):
    broker = {k: v for k, v in properties.items() if k[0].isupper()}
    lines = [f"{k}: {json.dumps(v)}".encode() for k, v in properties.items() if not k[0].isupper()]
    if broker:
        lines.append(b"BrokerProperties: " + json.dumps(broker).encode())
    assert call(house, "POST", "/topic/messages", body, *lines)[0] == 201


def drain(house, path="/topic/subscriptions/s"):
    """(body, head) of everything there."""
    found = []
    while True:
        status, head, body = call(house, "DELETE", f"{path}/messages/head?timeout=0")
        if status == 204:
            return found
        assert status == 200
        found.append((body, head))


def bodies(house, path="/topic/subscriptions/s"):
    return [body for body, _ in drain(house, path)]


def test_sql_filters_choose(house):
    only(house, "hot", sql("temperature &gt; 30 AND sys.Label = 'reading'"))
    send(house, "cold", temperature=20, Label="reading")
    send(house, "hot", temperature=31, Label="reading")
    send(house, "other", temperature=31, Label="news")
    send(house, "nothing")
    assert bodies(house) == ["hot"]


def test_parameters_keep_their_types(house):
    parameters = (
        "<Parameters>" + parameter("@p", "int", "5") + parameter("@q", "string", "a&amp;b") + "</Parameters>"
    )
    only(house, "p", sql("n = @p OR t = @q", parameters))
    shown = call(house, "GET", "/topic/subscriptions/s/rules/p?api-version=2021-05")[2]
    assert '<Key>@p</Key><Value i:type="d6p1:int"' in shown
    assert "a&amp;b</Value>" in shown
    send(house, "one", n=5)
    send(house, "two", t="a&b")
    send(house, "three", n="5")
    assert bodies(house) == ["one", "two"]


def test_correlation_filters(house):
    inner = (
        '<Filter i:type="CorrelationFilter"><CorrelationId>c</CorrelationId><Label>l</Label><Properties>'
        + parameter("colour", "string", "red")
        + "</Properties></Filter>"
    )
    only(house, "c", inner)
    shown = call(house, "GET", "/topic/subscriptions/s/rules/c?api-version=2021-05")[2]
    assert re.search(
        r'<Filter i:type="CorrelationFilter"><CorrelationId>c</CorrelationId><Label>l</Label>', shown
    )
    send(house, "yes", colour="red", CorrelationId="c", Label="l")
    send(house, "no", colour="RED", CorrelationId="c", Label="l")
    send(house, "nor", CorrelationId="c", Label="l")
    assert bodies(house) == ["yes"]


def test_true_and_false(house):
    only(house, "f", '<Filter i:type="FalseFilter"><SqlExpression>1=0</SqlExpression></Filter>')
    send(house)
    assert bodies(house) == []
    assert (
        rule(house, "t", '<Filter i:type="TrueFilter"><SqlExpression>1=1</SqlExpression></Filter>')[0] == 201
    )
    send(house)
    assert bodies(house) == ["x"]
    assert 'i:type="FalseFilter"' in call(house, "GET", "/topic/subscriptions/s/rules/f")[2]


def test_copies(house):
    """One for all rules without an action, one for each with: the documented arithmetic."""
    assert rule(house, "a", sql("n = 1"))[0] == 201
    assert (
        rule(house, "b", sql("n = 1", action="SET tag = 'b'; SET sys.Label = 'changed'; REMOVE m"))[0] == 201
    )
    assert rule(house, "c", sql("n = 1", action="SET tag = 'c'"))[0] == 201
    assert rule(house, "d", sql("n = 2", action="SET tag = 'd'"))[0] == 201
    send(house, "x", n=1, m=5, Label="first")
    found = [head for _, head in drain(house)]
    tags = [match[1] if (match := re.search(r'\r\ntag: "(.)"', head)) else None for head in found]
    assert tags == [None, "b", "c"]
    changed = found[tags.index("b")]
    assert '"Label":"changed"' in changed
    assert "\r\nm: " not in changed
    assert '"Label":"first"' in found[2]
    names = [match[1] if (match := re.search(r'\r\nRuleName: "(.)"', head)) else None for head in found]
    assert names == tags
    assert "\r\nm: 5" in found[2]


def test_other_types_survive_an_action(house):
    only(house, "a", sql("1=1", action="SET x = 1"))
    send(house, "x", d=2.5, b=True, s="text", when="Wed, 02 Jul 2014 01:32:27 GMT")
    ((_, head),) = drain(house)
    for line in ("d: 2.5", "b: true", 's: "text"', "x: 1"):
        assert f"\r\n{line}" in head
    assert "02 Jul 2014 01:32:27 GMT" in head


def test_what_cannot_be_evaluated_is_buried(house):
    only(house, "e", sql("n / m = 1"))
    send(house, "bad", n=1, m=0)
    send(house, "good", n=1, m=1)
    assert bodies(house) == ["good"]
    ((body, head),) = drain(house, "/topic/subscriptions/s/$DeadLetterQueue")
    assert body == "bad"
    assert 'DeadLetterReason: "FilterEvaluationException"' in head


@pytest.mark.parametrize(
    "inner",
    [
        sql("n =="), sql("n = @none"), sql("1=1", action="SET"), sql("1=1", action="DELETE x"), sql("x" * 1025),
        sql("n = @p", "<Parameters>" + parameter("@p", "int", "five") + "</Parameters>"),
        sql("n = @p", "<Parameters>" + parameter("@p", "nonsense", "5") + "</Parameters>"),
        '<Filter i:type="CorrelationFilter"/>', '<Filter i:type="OtherFilter"/>',
        '<Filter i:type="TrueFilter"/><Action i:type="OtherAction"/>',
    ],
)  # fmt: skip
def test_what_is_no_rule(house, inner):
    status, _, body = rule(house, "bad", inner)
    assert status == 400
    assert "SubCode=40000" in body
    assert call(house, "GET", "/topic/subscriptions/s/rules/bad")[0] == 404


def test_a_rule_is_changed(house):
    only(house, "r", sql("n = 1"))
    assert rule(house, "r", sql("n = 2"), "s", "PUT", b"If-Match: *")[0] == 200
    send(house, "one", n=1)
    send(house, "two", n=2)
    assert bodies(house) == ["two"]


def test_a_subscription_born_with_a_rule(house):
    inner = f"<DefaultRuleDescription>{sql('n = 1')}<Name>first</Name></DefaultRuleDescription>"
    entry = (
        '<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">'
        f'<SubscriptionDescription xmlns="{SB}" {XSI}>{inner}</SubscriptionDescription></content></entry>'
    )
    assert call(house, "PUT", "/topic/subscriptions/born?api-version=2021-05", entry, ATOM)[0] == 201
    listed = call(house, "GET", "/topic/subscriptions/born/rules?api-version=2021-05")[2]
    assert re.findall("<Name>(.*?)</Name>", listed) == ["first"]
    send(house, "one", n=1)
    send(house, "two", n=2)
    assert bodies(house, "/topic/subscriptions/born") == ["one"]


def test_batches_are_filtered_message_by_message(house):
    only(house, "r", sql("n &gt; 1"))
    batch = json.dumps([{"Body": str(n), "UserProperties": {"n": n}} for n in range(4)])
    kind = b"Content-Type: application/vnd.microsoft.servicebus.json"
    assert call(house, "POST", "/topic/messages", batch, kind)[0] == 201
    assert bodies(house) == ["2", "3"]
