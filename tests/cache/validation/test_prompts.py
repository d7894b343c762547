from collections.abc import Sequence
from pathlib import Path

from cache.validation.check import check_manifest
from tests.cache.validation.test_check import TASK, findings, told, write


def test_prompts_that_the_text_encoder_cannot_tell_apart_are_told_with_their_classes(tmp_path: Path) -> None:
    names = ["tea", "Tea", "egg_soup", "egg  soup", "rice", "bread"]
    prompts = ["make tea", "Make  tea", "soup", "egg", " ", ""]
    found = findings(tmp_path, [], tasks=[TASK | {"class_names": names, "prompts": prompts}])
    assert [text for _, text in told(found["colliding_prompts"])] == ["task 'action', 'make tea': 'tea', 'Tea'"]
    assert [text for _, text in told(found["empty_prompt"])] == ["task 'action': 'rice', 'bread'"]
    assert [text for _, text in told(found["similar_classes"])] == [
        "task 'action': 'tea', 'Tea'",
        "task 'action': 'egg_soup', 'egg  soup'",
    ]


def test_only_prompts_that_may_be_too_long_are_given_to_the_tokenizer(tmp_path: Path) -> None:
    asked: list[str] = []

    def count_tokens(prompts: Sequence[str]) -> list[int]:
        asked.extend(prompts)
        return [78 if prompt.startswith("x") else 77 for prompt in prompts]

    prompts = ["a " * 75, "b" * 75, "c" * 76, "x" * 76, "é" * 19]
    folder = write(tmp_path, [], tasks=[TASK | {"class_names": list("abcde"), "prompts": prompts}])
    report = check_manifest(folder, count_tokens=count_tokens)
    assert asked == ["c" * 76, "x" * 76, "é" * 19]
    (overlong,) = [finding for finding in report.findings if finding.code == "overlong_prompt"]
    assert [text for _, text in told(overlong)] == [
        f"task 'action', class 'd': 78 tokens, 77 are read: '{'x' * 60}'..."
    ]
