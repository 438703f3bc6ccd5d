"""A damaged journal opens with what was promised, or says where the damage is. Nothing else, ever."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.engine.file import FileEngine
from hubbub.engine.log import Corrupt, Put
from hubbub.engine.recovery import verify


async def build(path):
    """Three segments: records of two logs, burials, a trim and a log that was dropped."""
    engine = FileEngine(str(path), segment_bytes=1 << 12)
    a, b, c = engine.open("a"), engine.open("b"), engine.open("c")
    for n in range(40):
        done = asyncio.get_running_loop().create_future()
        puts = [Put(a, b"a%03d" % n * 20), Put(b, b"b%03d" % n, 3)]
        if n < 5:
            puts.append(Put(c, b"c"))
        dead = [(a, n - 2)] if n > 5 and n % 7 == 0 else []
        trims = [(b, 9)] if n == 20 else []
        engine.append(puts, n, done.set_result, dead=dead, trims=trims, drops=[c] if n == 30 else [])
        assert await done is None
    await engine.close()


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "data"
    asyncio.run(build(path))
    assert len(list(path.glob("*.journal"))) >= 3
    return path


async def read(path):
    engine = FileEngine(str(path), segment_bytes=1 << 12)
    try:
        found = {}
        for log in engine.logs():
            records = log.read(0, 10**6, 10**9)
            found[log.name] = {r.sequence: r.payload for r in records}
            assert log.count == sum(log.alive(s) for s in range(log.durable))
        return found
    finally:
        await engine.close()


def truth(path):
    return asyncio.run(read(path))


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(("flip", "cut", "insert", "zero", "double", "swap", "empty", "lose")),
        st.integers(0, 2),
        st.integers(0, 1 << 12),
        st.binary(min_size=1, max_size=40),
    ),
    min_size=1,
    max_size=4,
)


def damage(path, mutations):
    files = sorted(path.glob("*.journal"))
    for kind, which, at, junk in mutations:
        file = files[which]
        if not file.exists():
            continue
        data = bytearray(file.read_bytes())
        at = min(at, len(data))
        if kind == "flip":
            data[at : at + 1] = bytes(byte ^ (junk[0] or 1) for byte in data[at : at + 1])
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = junk
        elif kind == "zero":
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        elif kind == "double":
            data[at:at] = data[at : at + 200]
        elif kind == "swap":
            data = bytearray(files[which - 1].read_bytes()) if files[which - 1].exists() else data
        elif kind == "empty":
            data = bytearray()
        else:
            file.unlink()
            continue
        file.write_bytes(data)


@given(mutations=MUTATIONS)
def test_mutated_journals(journal, tmp_path_factory, mutations):
    whole = {name: dict(found) for name, found in truth(journal).items()}
    # What was buried may come back if its burial is what was cut; nothing that never was may.
    ever = {"a": {n: b"a%03d" % n * 20 for n in range(40)}, "b": {3 * n: b"b%03d" % n for n in range(40)}}
    ever["c"] = dict.fromkeys(range(5), b"c")
    copy = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(journal, copy)
    damage(copy, mutations)
    problems = list(verify(str(copy)))
    try:
        found = truth(copy)
    except Corrupt as error:
        assert re.search(r"\d{8}\.journal: offset \d+: ", str(error)), error
        assert problems or "segment" in str(error)
    else:
        for name, records in found.items():
            assert records.items() <= ever[name].items(), "a record that never was"
        # The tail may be cut, the middle may not. (Whole files that are gone cannot be told from cleaned ones.)
        for name in ("a", "b") if all(kind != "lose" for kind, *_ in mutations) else ():
            kept = sorted(found.get(name, ()))
            if kept:
                assert [s for s in whole[name] if s <= kept[-1] and s not in found[name]] == []
    finally:
        shutil.rmtree(copy.parent)


@given(data=st.binary(max_size=300))
def test_any_bytes_as_the_only_segment(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    Path(folder, "00000001.journal").write_bytes(data)
    try:
        assert truth(folder) == {}
    except Corrupt as error:
        assert "00000001.journal: offset " in str(error)
    finally:
        shutil.rmtree(folder)
