"""What this folder keeps between calls: what `init` said that is no option of ours, and whether tracing is disabled."""

from typing import Any


class OldChoices:
    """One object per process, `settings`.

    asked: the options that `init` gave ours. is_disabled: `disable` was called. minds_deadline: traces of Lambda
    functions are sent before the time is up. marks_result: a Lambda's result gets the trace's id. steps_path: the keys
    below which a step's result keeps the steps' data; None: where it was found. written: what code has said in the
    place of a variable of the environment, by its name.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything, as before the first `init`."""
        self.asked: dict[str, Any] = {}
        self.is_disabled = False
        self.minds_deadline = True
        self.marks_result = False
        self.steps_path: list[str] | None = None
        self.written: dict[str, str] = {}


settings = OldChoices()
