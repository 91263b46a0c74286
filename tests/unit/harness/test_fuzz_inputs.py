"""The fuzzer reaches every field of every message, and what it changes is changed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import corpus
from tests.fuzz.campaign import growth_kib
from tests.fuzz.decoding import TARGETS, take, take_bytes
from tests.fuzz.inputs import KINDS, Input, Source
from tests.fuzz.messages import Builder, on_the_wire
from tests.fuzz.methods import all_methods, class_of
from tests.fuzz.mutation import mutated_bytes, mutated_fields
from tests.fuzz.strategies import messages

METHODS = all_methods()
BY_NAME = {method.short: method for method in METHODS}


def fields_of(descriptor: Descriptor) -> set[str]:
    """Return the full names of all fields that a message can hold, at any depth."""
    found: set[str] = set()
    waiting, seen = [descriptor], set()
    while waiting:
        kind = waiting.pop()
        if kind.full_name in seen:
            continue
        seen.add(kind.full_name)
        for field in kind.fields:
            found.add(field.full_name)
            if field.message_type is not None:
                waiting.append(field.message_type)
    return found


def set_in(message: Message) -> Iterator[str]:
    """Yield the full names of the fields that a message holds, at any depth."""
    for field, value in message.ListFields():
        yield field.full_name
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            yield from (inner.full_name for inner in field.message_type.fields)
        else:
            for inner in value if field.is_repeated else [value]:
                yield from set_in(inner)


def test_all_services_of_the_contract_are_met() -> None:
    assert {"AdvisorService", "ProfileService", "RunService"} <= {m.service for m in METHODS}
    assert BY_NAME["AdvisorService/RecommendLR"].takes_stream
    assert BY_NAME["RunService/WatchRun"].gives_stream


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.short)
def test_every_field_of_every_request_is_built(method: Any) -> None:
    builder = Builder(random.Random(0), method.service)
    found: set[str] = set()
    wanted = fields_of(method.request)
    for _ in range(500):
        found.update(set_in(builder.message(method.request)))
        if found == wanted:
            break
    assert found == wanted


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.short)
def test_changes_of_fields_are_changes_and_mostly_readable(method: Any) -> None:
    chance = random.Random(1)
    valid = corpus.valid_request(method.short, chance) or Builder(chance, method.service).message(
        method.request
    )
    before = valid.SerializeToString(deterministic=True)
    builder = Builder(chance, method.service)
    changed = [mutated_fields(valid, builder, chance) for _ in range(200)]
    assert valid.SerializeToString(deterministic=True) == before  # the original stays
    spellings = {message.SerializeToString(deterministic=True) for message in changed}
    assert len(spellings - {before}) > 5 or not method.request.fields
    assert all(isinstance(message, class_of(method.request)) for message in changed)


def test_changes_of_bytes_are_changes_and_not_all_of_them_readable() -> None:
    chance = random.Random(2)
    data = corpus.recommend(chance).SerializeToString()
    changed = {mutated_bytes(data, data, chance) for _ in range(500)} - {data}
    assert len(changed) > 400

    def is_readable(mutated: bytes) -> bool:
        try:
            class_of(BY_NAME["AdvisorService/RecommendLR"].request).FromString(mutated)
        except DecodeError:
            return False
        return True

    readable = sum(map(is_readable, changed))
    assert 20 < readable < len(changed) - 20


def test_texts_that_are_none_get_onto_the_wire() -> None:
    request: Any = class_of(BY_NAME["RunService/GetRun"].request)(name="a\ue000b\ue001")
    assert on_the_wire(request).endswith(b"a\xed\xa0\x80b\xff\xfe\xfd")


def test_the_same_seed_makes_the_same_inputs() -> None:
    first, second, other = (
        [sent for _, sent in zip(range(500), Source(seed, METHODS), strict=False)]
        for seed in (3, 3, 4)
    )
    assert first == second != other
    assert {sent.kind for sent in first} == set(KINDS)
    assert {sent.method for sent in first} == set(BY_NAME)
    assert any(sent.metadata for sent in first)


def test_a_kept_input_comes_back_as_it_was(tmp_path: Path) -> None:
    source = Source(5, METHODS)
    for _, sent in zip(range(300), source, strict=False):
        path = sent.save(tmp_path, "why")
        assert path.name.startswith(sent.method.replace("/", "."))
        assert Input.load(path) == sent


def test_valid_requests_of_the_corpus_name_methods_that_there_are() -> None:
    assert {method for method, _ in corpus.seeding()} <= set(BY_NAME)


def test_growth_is_that_between_the_first_third_and_the_end() -> None:
    leaking = [(sent, 1_000 + sent) for sent in range(0, 1_001, 10)]
    warming = [(sent, min(1_000 + 10 * sent, 3_000)) for sent in range(0, 1_001, 10)]
    assert growth_kib(leaking) == 555
    assert growth_kib(warming) == 0


@pytest.mark.parametrize("kind", list(TARGETS), ids=lambda kind: kind.DESCRIPTOR.name)
def test_no_message_meets_a_defect_on_its_way_to_an_answer(kind: type[Any]) -> None:
    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(messages(kind.DESCRIPTOR))
    def holds(message: Message) -> None:
        take(message)

    holds()


@given(st.binary(max_size=200))
def test_no_bytes_meet_a_defect(data: bytes) -> None:
    for kind in TARGETS:
        take_bytes(kind, data)
