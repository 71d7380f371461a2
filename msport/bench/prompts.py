"""The prompts of ``--suite mixed``: a question in Chinese, one in English, code, reasoning, and a long context."""

from __future__ import annotations

_STATIONS = 40


def _records() -> str:
    """A log of about a thousand tokens; one line answers the question below it."""
    lines = [
        f"Station {number:02d} reported a pressure of {1000 + 7 * number % 31} hPa, wind from {15 * number % 360}"
        f" degrees at {3 + number % 9} m/s, and {'no rain' if number % 3 else f'{number / 4:.1f} mm of rain'} since"
        " midnight."
        for number in range(1, _STATIONS + 1)
    ]
    return "\n".join(lines)


TEXTS = {
    "chinese": "请用通俗的语言解释什么是混合专家模型。它与稠密模型相比、在推理时有哪些优点和缺点？",  # noqa: RUF001
    "english": "Explain in plain words how a transformer predicts the next token, and why its key-value cache grows"
    " with the length of the conversation.",
    "code": "Write a Python function `merge_intervals(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]` that"
    " merges overlapping intervals in O(n log n), with a docstring and three assertions that test it.",
    "reasoning": "A cistern is filled by one pipe in 6 hours and by another in 4 hours, and emptied by a third in 12"
    " hours. All three are open and the cistern is one third full. After how many minutes is it full? Reason step by"
    " step before you answer.",
    "long context": "Here is the morning's log of a weather service.\n\n"
    f"{_records()}\n\nWhich station reported the most rain, and what was the pressure there? Answer in one sentence.",
}
