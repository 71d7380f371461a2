"""The journal of a conversion: whatever it holds, nothing is taken for done that no whole and undamaged line claims.

An input is the lines without their checksums, which no search would guess; it is read as it stands, too.
"""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

from msport.checkpoint import strict_json
from msport.convert.journal import Done, Replay, boot_id, read_journal, replay

BOOT = "this boot"
HASH = "0123456789abcdef" * 4
WORDS = [b'["written",', b'["hashed",', b'["closed",', b'["mark"]', b'["synced"]', b'["journal",1,', b"\n", b"]", b"0"]
WORDS += [b'"this boot"', b"null", b'"' + HASH.encode() + b'"', b"18446744073709551615", b"-1", b"1.0", b"true", b"{}"]


def seeds() -> list[bytes]:
    head = ["journal", 1, BOOT, {"options": {"dtype": "bfloat16"}}]
    claims = [["written", 0, 64], ["closed", 1], ["hashed", 0, HASH], ["mark"], ["written", 1, 9], ["synced"]]
    odd: list[Any] = [[], ["unknown"], 1, {}, ["written", 0], ["written", -1, 1], ["written", True, 1], ["mark", 1]]
    odd += [["hashed", 0, HASH.upper()], ["closed", 1.0], ["closed", "1"], head]
    journals = [[head], [head, *claims], [head, *claims, ["written", 1, 4], *claims], [*claims, head]]
    journals += [
        [["journal", 2, BOOT, {}], *claims],
        [["journal", 1, "earlier", {}], *claims],
        [["journal", 1, None, {}]],
    ]
    journals += [[head, *claims, line, *claims] for line in odd]
    return [b"\n".join(json.dumps(line).encode() for line in journal) + b"\n" for journal in journals]


def check(path: Path, content: bytes) -> None:
    lines = content.split(b"\n")
    journal = b"".join(sealed(line) for line in lines)
    claims = [parsed(line) for line in lines]
    boot = (BOOT, "another", None)[len(content) % 3]
    assert replay(io.BytesIO(journal), boot) == expected(claims, boot)
    path.write_bytes(journal)
    assert read_journal(path) == expected(claims, boot_id())
    cut = zlib.crc32(content) % (len(journal) + 1)
    whole = journal[:cut].count(b"\n")
    assert replay(io.BytesIO(journal[:cut]), BOOT) == expected(claims[:whole], BOOT)
    assert replay(io.BytesIO(content), BOOT) is None


def sealed(line: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(line), line)


def expected(claims: list[Any], boot: str | None) -> Replay | None:
    """What the journal's description says of these claims, whose lines are whole and undamaged."""
    head, *claims = claims or [None]
    if not (isinstance(head, list) and len(head) == 4 and head[:2] == ["journal", 1] and isinstance(head[3], dict)):
        return None
    known = next((index for index, claim in enumerate(claims) if not is_claim(claim)), len(claims))
    claims = claims[:known]
    kinds = [claim[0] for claim in claims]
    if boot is not None and head[2] == boot:
        durable = known
    else:
        synced = last(kinds, "synced", known)
        durable = last(kinds, "mark", synced) if synced else 0
    done = Done(shards={shard for kind, shard in filter(lambda claim: claim[0] == "closed", claims)})
    for kind, *values in claims[:durable]:
        if kind == "written":
            done.written[values[0]] = values[1]
        elif kind == "hashed":
            done.hashes[values[0]] = values[1]
    return Replay(head[3], done)


def last(kinds: list[str], kind: str, end: int) -> int:
    """Where the last claim of that kind stands before `end`, 0 if none does."""
    return max((index for index in range(end) if kinds[index] == kind), default=0)


def parsed(line: bytes) -> Any:
    try:
        return strict_json.parse(line)
    except ValueError:
        return None


def is_claim(claim: Any) -> bool:
    if not isinstance(claim, list):
        return False
    values = ["natural" if type(value) is int and value >= 0 else value for value in claim]
    kinds = [["written", "natural", "natural"], ["closed", "natural"], ["mark"], ["synced"]]
    if "natural" in claim:  # the word itself
        return False
    is_hash = len(claim) == 3 and isinstance(claim[2], str) and len(claim[2]) == 64
    if is_hash and set(claim[2]) <= set("0123456789abcdef"):
        return values[:2] == ["hashed", "natural"]
    return values in kinds
