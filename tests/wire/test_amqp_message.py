"""Message sections: the properties of a message, whichever of the two readers reads them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubbub.wire.amqp import message
from hubbub.wire.amqp.types import DecodeError, Symbol

TEXTS = {name: st.text(max_size=40) for name in ("message_id", "to", "subject", "correlation_id", "group_id")}
CHOSEN = st.fixed_dictionaries(
    {}, optional=TEXTS | {"content_type": st.text("abc/;-", min_size=1, max_size=300), "user_id": st.binary()}
)


def slowly(section: bytes) -> dict | None:
    """By the general decoder alone."""
    try:
        values = message.section_list(section, 0)
    except DecodeError:
        return None
    return {n: v for n, v in zip(message.PROPERTY_NAMES, values, strict=False) if v is not None}


@given(CHOSEN)
def test_properties_come_back(properties):
    section = message.properties_section(**properties)
    found = message.properties_of(section)
    assert found == properties
    assert isinstance(found.get("content_type", Symbol("")), Symbol)


@given(CHOSEN, st.integers(0, 60), st.integers(0, 255), st.booleans())
def test_a_damaged_section_reads_as_the_general_decoder_reads_it(properties, at, byte, cut):
    section = message.properties_section(**properties) or b"\x00Ss\x45"
    at %= len(section)
    section = section[:at] if cut else section[:at] + bytes([byte]) + section[at + 1 :]
    try:
        found = message.properties_of(section)
    except DecodeError:
        found = None
    assert found == slowly(section)
