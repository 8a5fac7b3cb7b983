"""A Docker stage that does nothing, and further steps of it, beside the raw API calls. Rounds are interleaved."""

import statistics
import time

import engine
import measure

STAGES = 6
STEPS = 51


def chain(image: str, stages: int) -> str:
    """Stages in a row, each with one step that does nothing."""
    text = f"defaults: {{ image: {image!r} }}\nstages:\n"
    for number in range(stages):
        needs = f"needs: [s{number - 1}], " if number else ""
        text += f'  s{number}: {{ {needs}run: "true" }}\n'
    return text


def steps(image: str, count: int) -> str:
    """One stage with so many steps."""
    scripts = ", ".join(['"true"'] * count)
    return f"defaults: {{ image: {image!r} }}\nstages: {{ s: {{ run: [{scripts}] }} }}\n"


def raw(connection: engine.EngineConnection, image: str, count: int, workspace: bool = False) -> float:
    """Seconds for each of so many bare containers."""
    started = time.perf_counter()
    for _ in range(count):
        engine.run(connection, image, ["sh", "-c", "true"], workspace)
    return (time.perf_counter() - started) / count


def measure_all(image: str) -> None:
    connection = engine.EngineConnection()
    raw(connection, image, 1)
    floor, filled, whole, stage, step, bare = [], [], [], [], [], []
    with measure.folder() as folder:
        data = folder / "data"
        one = measure.pipeline(folder / "one", chain(image, 1))
        many = measure.pipeline(folder / "many", chain(image, STAGES))
        long = measure.pipeline(folder / "long", steps(image, STEPS))
        measure.Run(one, data, "--no-reuse")
        # A source tree without a file: nothing has to be uploaded.
        nothing = folder / "nothing"
        nothing.mkdir()
        empty = ("--no-reuse", "--source", str(nothing))
        for number in range(measure.ROUNDS):
            measure.note(f"docker stage: round {number + 1} of {measure.ROUNDS}")
            floor.append(raw(connection, image, STAGES))
            filled.append(raw(connection, image, STAGES, workspace=True))
            single = measure.Run(one, data, "--no-reuse").seconds
            whole.append(single)
            alone = measure.Run(one, data, *empty).seconds
            bare.append((measure.Run(many, data, *empty).seconds - alone) / (STAGES - 1))
            stage.append((measure.Run(many, data, "--no-reuse").seconds - single) / (STAGES - 1))
            step.append((measure.Run(long, data, "--no-reuse").seconds - single) / (STEPS - 1))
    ratio = statistics.median(s / f for s, f in zip(stage, floor, strict=True))
    beside = f"raw API loop {measure.spread(floor)}"
    lone = statistics.median(b / f for b, f in zip(bare, floor, strict=True))
    measure.row("Docker, a stage that does nothing", measure.spread(bare), beside, lone, "<= 1.10", lone <= 1.10)
    measure.row("Docker, the same with a source tree", measure.spread(stage), beside, ratio, "", None)
    # A stage has a workspace, and the engine's call that takes it in is not cheap: what no program can do without.
    with_files = statistics.median(s / f for s, f in zip(stage, filled, strict=True))
    beside_files = f"raw API loop with one upload {measure.spread(filled)}"
    measure.row("Docker, that one", measure.spread(stage), beside_files, with_files, "", None)
    first = statistics.median(w / f for w, f in zip(whole, floor, strict=True))
    measure.row("Docker, a whole build of one such stage", measure.spread(whole), beside, first, "", None)
    further = statistics.median(step)
    measure.row("Docker, each further step", measure.spread(step), "", None, "<= 2 ms", further <= 0.002)
