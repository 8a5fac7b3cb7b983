"""Only the raw engine, without the program: the floor of this machine."""

import docker_log
import docker_stage
import engine
import measure


def measure_all(image: str) -> None:
    connection = engine.EngineConnection()
    docker_stage.raw(connection, image, 1)
    loops = [docker_stage.raw(connection, image, docker_stage.STAGES) for _ in range(measure.ROUNDS)]
    measure.row("Raw API loop, one container", "", measure.spread(loops), None, "", None)
    logs = [docker_log.raw(connection, image) for _ in range(max(2, measure.ROUNDS // 2))]
    measure.row("Raw attach, 100 MB of log lines", "", measure.spread(logs, "s", 1), None, "", None)
