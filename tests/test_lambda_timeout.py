import pytest

from epsagon_fast import get_lambda_timeout_threshold_ms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, 200),
        ("350", 350),
        ("-1", -1),
        ("+7", 7),
        ("+-7", 200),
        ("1.5", 200),
        ("", 200),
        ("1_0", 200),
        ("9" * 5000, 200),
    ],
)
def test_lambda_threshold_is_an_integer_of_the_environment_or_200(
    monkeypatch: pytest.MonkeyPatch, text: str | None, expected: int
) -> None:
    monkeypatch.delenv("EPSAGON_LAMBDA_TIMEOUT_THRESHOLD_MS", raising=False)
    if text is not None:
        monkeypatch.setenv("EPSAGON_LAMBDA_TIMEOUT_THRESHOLD_MS", text)
    assert get_lambda_timeout_threshold_ms() == expected
