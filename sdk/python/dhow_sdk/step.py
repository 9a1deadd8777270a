"""A step of an Argo Workflow as a function: `Step = on_step(f)`. The world exports dhow:step/step and includes
dhow:runtime/imports."""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from componentize_py_types import Err


@dataclass
class StepInput:
    """What a step is given."""

    workflow: str
    step: str
    """Different for each retry."""
    parameters: dict[str, str]
    artifacts: dict[str, str]
    """The paths where artifacts lie."""
    outputs: dict[str, str]
    """The paths where artifacts are looked for that are expected."""


@dataclass
class StepOutput:
    """What a step yields. Values that are no text become JSON."""

    result: Any = None
    """In the place of what was printed."""
    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    """The paths of artifacts that do not lie where the template says."""
    message: str = ""


def on_step(run: Callable[[StepInput], StepOutput | None]) -> type:
    """Makes the component a step. The text of an exception is why the step failed."""
    from wit_world.exports import step as wit

    class Step:
        def run(self, input: wit.Input) -> wit.Output:
            given = StepInput(
                input.workflow, input.step, {one.name: one.value for one in input.parameters},
                {one.name: one.path for one in input.artifacts}, {one.name: one.path for one in input.outputs},
            )
            try:
                output = run(given) or StepOutput()
                return wit.Output(
                    None if output.result is None else _text(output.result),
                    [wit.Parameter(name, _text(value)) for name, value in output.parameters.items()],
                    [wit.Artifact(name, path) for name, path in output.artifacts.items()],
                    output.message,
                )
            except Exception as error:
                traceback.print_exception(error, file=sys.stderr)
                raise Err(f"{type(error).__name__}: {error}") from None

    return Step


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
