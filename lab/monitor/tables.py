"""Names of the monitor's tables, for whoever makes topics; without Faust, which loads slowly."""

APP = "monitor"  # the consumer group too
DELAYS, ZONES = "delays", "zones"
CHANGELOGS = (f"{APP}-{DELAYS}-changelog", f"{APP}-{ZONES}-changelog")  # must exist, stay empty
