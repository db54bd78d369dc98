"""What `omnimargin theory table` runs: each row differs from another in few things."""

from lab.theory.plan import Plan

_JUMPS = "2000,-0.01,0.02"
COMBINATIONS = (
    Plan(oracle="continuous"),
    Plan(oracle="continuous", latency="fixed:300s", age="600s"),
    Plan(oracle="continuous", latency="exp:900s", side="short"),
    Plan(oracle="continuous", jumps=_JUMPS, fee=0.0),
    Plan(),
    Plan(leverage=3.0),
    Plan(leverage=20.0),
    Plan(side="short", leverage=20.0),
    Plan(latency="fixed:300s", age="600s"),
    Plan(latency="exp:900s", fee=0.002),
    Plan(latency="exp:900s", side="short", fee=0.0),
    Plan(drift=50.0, side="short"),
    Plan(jumps=_JUMPS, side="short", leverage=3.0),
    Plan(oracle="every:60s"),
    Plan(oracle="every:60s", side="short", leverage=20.0, fee=0.003),
    Plan(oracle="every:60s", latency="exp:600s", age="300s", leverage=3.0),
    Plan(oracle="every:60s", latency="exp:900s", jumps=_JUMPS, side="short", leverage=20.0),
    Plan(oracle="every:5s", latency="fixed:60s", sigma=2.5, maintenance=0.004),
    Plan(latency="fixed:0s", maintenance=0.002, fee=0.0005),
)
