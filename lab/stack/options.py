"""Options of the live stack's commands: names, limits, and what `--help` says of them."""

from pathlib import Path
from typing import Annotated

import typer

ScenarioFile = Annotated[
    Path | None,
    typer.Argument(help="Scenario file; scenarios/live.toml if not given.", show_default=False),
]
Spokes = Annotated[
    int | None,
    typer.Option(help="Only the first N spokes of the file; more are copies, named base-2, ..."),
]
LatencyName = Annotated[
    str | None,
    typer.Option(help="Preset or family (see 'omnimargin latency'), or e.g. constant:900s."),
]
Buffer = Annotated[
    str | None, typer.Option(help="Margin buffer: none, flat, sqrt_time or quantile.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of all dice.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any knob, e.g. spokes.base.block_s=6.", metavar="KEY=VALUE"),
]
Speed = Annotated[float | None, typer.Option(help="Scenario seconds in a second; 60 if not given.")]
Settle = Annotated[
    int | None,
    typer.Option(
        help="How long [ms] a node waits for messages that are due before an event is handled; "
        "-1: takes all as they come. More is closer to virtual time, less is faster. 200 if "
        "not given.",
        min=-1,
        max=60_000,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--monitor-port",
        help="Where the monitor serves JSON and metrics, on 127.0.0.1; 0 for any; 9464 if not "
        "given.",
        min=0,
        max=65_535,
    ),
]
Secure = Annotated[
    bool, typer.Option("--secure", help="The broker asks for passwords over TLS, and for rights.")
]
Folder = Annotated[
    Path | None,
    typer.Option(help="The stack's folder; runs/live/latest if not given.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Span = Annotated[
    str | None,
    typer.Option("--for", help="Stop after so long by the wall clock.", metavar="90s|10m|2h"),
]
Bootstrap = Annotated[
    str | None,
    typer.Option(
        help="A broker that runs. If not given: $KAFKA_BOOTSTRAP, or localhost:9092 if Kafka "
        "answers there, or one of our own (Java 17 and Maven).",
        metavar="HOST:PORT",
    ),
]
OwnBroker = Annotated[bool, typer.Option("--own-broker", help="Start a broker, whatever there is.")]
NewFolder = Annotated[
    Path | None,
    typer.Option(
        help="Where everything is kept; a new one in runs/live if not given. A folder with a "
        "stopped stack goes on where it was."
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Delete what the folder, and the broker's topics, hold.")
]
LogFile = Annotated[Path | None, typer.Option(help="Write the message log here at the end (MCAP).")]
JsonAtEnd = Annotated[
    bool, typer.Option("--json", help="Print one JSON object at the end, and no table.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the processes log, too.")]
