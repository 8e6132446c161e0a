"""Which bytes the S3 store believes to have arrived, and what it does where a service cannot tell or cannot refuse."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable

import pytest

from core.errors import AlreadyExists, Corrupt, StoreUnavailable
from tests.contracts.object_store import MIB, Zeros, fill, sha256
from tests.storage.s3_script import Answer, Asked, Script, content, script, stored, vouching

__all__ = ["script"]

ABC = b"abc"
SILENT = Answer(200, headers={"ETag": '"x"'})


def test_a_put_carries_its_checksum_and_the_answer_is_believed(script: Script) -> None:
    script.answers += [Answer(200, headers=vouching(ABC))]
    store = script.open_store()
    fill(store, "a", ABC)
    [asked] = script.asked
    assert asked.headers["x-amz-checksum-sha256"] == base64.b64encode(sha256(ABC)).decode()
    assert "Content-MD5" not in asked.headers
    store.close()


def test_what_no_answer_vouches_for_is_read_back(script: Script) -> None:
    script.answers += [SILENT, content(ABC)]
    store = script.open_store()
    assert fill(store, "a", ABC).sha256 == sha256(ABC)
    assert [one.method for one in script.asked] == ["PUT", "GET"]
    store.close()


def test_everything_is_read_back_where_the_settings_say_so(script: Script) -> None:
    script.answers += [Answer(200, headers=vouching(ABC)), content(ABC)]
    store = script.open_store(verify="readback")
    fill(store, "a", ABC)
    assert [one.method for one in script.asked] == ["PUT", "GET"]
    store.close()


@pytest.mark.parametrize("put", [SILENT, Answer(200, headers=vouching(b"abd"))], ids=["silent", "other-checksum"])
def test_other_bytes_are_deleted_and_sent_again(script: Script, put: Answer) -> None:
    script.answers += [put, content(b"abd"), Answer(204), Answer(200, headers=vouching(ABC))]
    store = script.open_store()
    fill(store, "a", ABC)
    assert [one.method for one in script.asked] == ["PUT", "GET", "DELETE", "PUT"]
    assert script.asked[2].headers["If-Match"] == '"x"', "what somebody else has put there meanwhile stays"
    store.close()


def test_a_service_that_damages_all_it_gets_is_given_up(script: Script) -> None:
    answers = {"PUT": SILENT, "GET": content(b"abd"), "DELETE": Answer(204)}
    script.always = lambda asked: answers[asked.method]
    store = script.open_store()
    with pytest.raises(StoreUnavailable, match="other bytes arrived"):
        fill(store, "a", ABC)
    assert script.asked[-1].method == "DELETE"
    store.close()


def test_a_taken_key_is_read_where_nobody_vouches_for_it(script: Script) -> None:
    """Its writer may have died before it could read back."""
    script.answers += [Answer(412, "PreconditionFailed"), stored(ABC, sha256(ABC), vouched=False), content(ABC)]
    store = script.open_store()
    assert fill(store, "a", ABC).size == 3
    store.close()


def test_debris_under_our_name_is_made_anew(script: Script) -> None:
    taken = [Answer(412, "PreconditionFailed"), stored(ABC, sha256(ABC), vouched=False), content(b"abd"), Answer(204)]
    script.answers += [*taken, Answer(200, headers=vouching(ABC))]
    store = script.open_store()
    assert fill(store, "a", ABC).size == 3
    assert [one.method for one in script.asked] == ["PUT", "HEAD", "GET", "DELETE", "PUT"]
    store.close()


def test_an_object_that_goes_while_it_is_looked_at_is_made_anew(script: Script) -> None:
    there = Answer(200, headers=vouching(ABC))
    looked = [Answer(412, "PreconditionFailed"), stored(ABC, sha256(ABC), vouched=False), Answer(404, "NoSuchKey")]
    script.answers += [*looked, SILENT, Answer(404, "NoSuchKey"), there]
    store = script.open_store()
    assert fill(store, "a", ABC).size == 3
    assert [one.method for one in script.asked] == ["PUT", "HEAD", "GET", "PUT", "GET", "PUT"]
    store.close()


def test_a_stranger_is_never_deleted(script: Script) -> None:
    script.answers += [Answer(412, "PreconditionFailed"), stored(ABC, None, vouched=False), content(b"abd")]
    store = script.open_store()
    with pytest.raises(AlreadyExists):
        fill(store, "a", ABC)
    store.close()


def test_md5_for_services_that_know_nothing_else(script: Script) -> None:
    digest = hashlib.md5(ABC).digest()
    script.answers += [Answer(200, headers={"ETag": f'"{digest.hex()}"'}), Answer(200, body=b"<DeleteResult/>")]
    store = script.open_store(checksum="md5")
    fill(store, "a", ABC)
    store.delete(["a"])
    put, delete = script.asked
    assert put.headers["Content-MD5"] == base64.b64encode(digest).decode()
    assert delete.headers["Content-MD5"] == base64.b64encode(hashlib.md5(delete.body).digest()).decode()
    for asked in (put, delete):
        assert [name for name in asked.headers if "checksum" in name.lower()] == []
    store.close()


def test_an_etag_that_is_no_md5_says_nothing(script: Script) -> None:
    script.answers += [SILENT, content(ABC)]
    store = script.open_store(checksum="md5")
    fill(store, "a", ABC)
    store.close()


def test_without_conditions_a_key_is_looked_for_first(script: Script) -> None:
    script.answers += [Answer(404), Answer(200, headers=vouching(ABC)), stored(ABC, sha256(ABC))]
    store = script.open_store(conditional_writes="off")
    fill(store, "a", ABC)
    fill(store, "a", ABC)
    assert script.requests == [("HEAD", ""), ("PUT", ""), ("HEAD", "")]
    script.answers.append(stored(b"abd", sha256(b"abd")))
    with pytest.raises(AlreadyExists):
        fill(store, "a", ABC)
    store.close()


def test_conditions_are_given_up_where_the_service_does_not_know_them(script: Script) -> None:
    there = Answer(200, headers=vouching(ABC))
    script.answers += [Answer(501, "NotImplemented"), Answer(404), there, Answer(404), there]
    store = script.open_store()
    fill(store, "a", ABC)
    fill(store, "b", ABC)
    assert script.requests == [("PUT", "*"), ("HEAD", ""), ("PUT", ""), ("HEAD", ""), ("PUT", "")]
    store.close()


class Upload:
    """An upload in parts, as a service sees it."""

    def __init__(self, complete: list[Answer], look: Answer) -> None:
        self.began = 0
        self.parts: list[tuple[int, bytes]] = []
        self._complete = complete
        self._look = look

    def __call__(self, asked: Asked) -> Answer:
        if asked.method == "POST" and "uploadId" not in asked.path:
            self.began += 1
            self.parts = []
            return Answer(200, body=b"<R><UploadId>u</UploadId></R>")
        if asked.method == "PUT":
            number = int(asked.path.partition("partNumber=")[2].partition("&")[0])
            self.parts.append((number, asked.body))
            return Answer(200, headers={"ETag": f'"{number}"'})
        if asked.method == "POST":
            return self._complete.pop(0)
        return self._look if asked.method == "HEAD" else Answer(204)

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in sorted(self.parts))


def composite(*parts: bytes) -> str:
    return base64.b64encode(sha256(b"".join(sha256(part) for part in parts))).decode() + f"-{len(parts)}"


DONE = Answer(200, body=b"<R><ETag>x</ETag></R>")


@pytest.fixture
def body() -> bytes:
    return bytes(range(256)) * (12 * MIB // 256)


def look(body: bytes, checksum: str) -> Answer:
    answer = stored(body, sha256(body), vouched=False)
    answer.headers["x-amz-checksum-sha256"] = checksum
    return answer


def test_parts_carry_checksums_and_the_whole_has_that_of_all(script: Script, body: bytes) -> None:
    halves = body[: 6 * MIB], body[6 * MIB :]
    script.always = upload = Upload([DONE], look(body, composite(*halves)))
    store = script.open_store(multipart_threshold=5 * MIB, multipart_part_size=8 * MIB)
    fill(store, "a", body)
    begun, *sent = [one for one in script.asked if one.method in ("POST", "PUT")]
    complete = sent.pop()
    assert begun.headers["x-amz-checksum-algorithm"] == "SHA256"
    told = {base64.b64encode(sha256(half)).decode() for half in halves}
    assert {one.headers["x-amz-checksum-sha256"] for one in sent} == told
    assert all(checksum.encode() in complete.body for checksum in told)
    assert upload.body == body
    assert script.asked[-1].method == "HEAD", "the answer was silent, a look was not"
    store.close()


@pytest.mark.parametrize("seekable", [True, False])
def test_a_conflict_at_the_end_repeats_the_upload(script: Script, body: bytes, seekable: bool) -> None:
    script.always = upload = Upload(
        [Answer(409, "ConditionalRequestConflict"), Answer(501, "NotImplemented"), DONE], look(body, composite(body))
    )
    answers: Callable[[Asked], Answer] = upload
    # Once without conditions, the key is looked for: it is free.
    script.always = lambda asked: (
        Answer(404) if asked.method == "HEAD" and upload.began == 2 and len(upload._complete) == 1 else answers(asked)
    )
    store = script.open_store(multipart_threshold=5 * MIB)
    source = io.BytesIO(body)
    if not seekable:
        source.seekable = lambda: False  # type: ignore[method-assign]
        source.seek = lambda *_: pytest.fail("it cannot")  # type: ignore[method-assign]
    store.put("a", source, size=len(body), sha256=sha256(body), media_type="image/png")
    assert upload.began == 3
    assert upload.body == body
    assert [one.what[1] for one in script.asked if one.method == "POST" and "uploadId" in one.path] == ["*", "*", ""]
    store.close()


def test_a_body_that_is_not_as_promised_is_never_completed(script: Script) -> None:
    script.always = Upload([], Answer(404))
    store = script.open_store(multipart_threshold=5 * MIB)
    with pytest.raises(Corrupt):
        store.put("a", Zeros(6 * MIB), size=6 * MIB, sha256=bytes(32), media_type="image/png")  # type: ignore[arg-type]
    assert script.asked[-1].method == "DELETE"
    assert not [one for one in script.asked if one.method == "POST" and "uploadId" in one.path]
    store.close()
