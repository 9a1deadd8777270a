"""A step of a workflow: counts the words of an artifact, and leaves the long ones."""

from dhow_sdk import StepInput, StepOutput, on_step


def words(given: StepInput) -> StepOutput:
    least = int(given.parameters.get("least", "4"))
    with open(given.artifacts["text"], encoding="utf-8") as file:
        every = file.read().split()
    long = [word for word in every if len(word) >= least]
    with open("/long.txt", "w", encoding="utf-8") as file:
        file.write("\n".join(long))
    print(f"{len(long)} of {len(every)} words are long")
    return StepOutput(len(long), {"first": long[0] if long else ""}, {"long": "/long.txt"})


Step = on_step(words)
