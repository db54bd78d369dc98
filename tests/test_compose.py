"""What Compose, Prometheus and Grafana are told fits together, and fits the program."""

import json
import re
import shutil
import subprocess
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from lab import reading
from lab.monitor.books import Books
from lab.monitor.halting import Herald
from lab.monitor.metrics import Metrics
from lab.monitor.reader import Reader
from lab.monitor.service import terms_of
from lab.monitor.summary import Summary
from lab.stack.java import KAFKA
from lab.stack.prepare import DEFAULT, MONITOR_PORT, nodes_of, roles_of
from lab.stack.secure import SETUP
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.identity import domain_of
from messaging.key_files import read_signer, read_verifier, write_keys
from messaging.units import MONITOR

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
ONCE = {"credentials", "setup"}  # end by themselves; the rest goes on
PROFILES = {"credentials": ["secure"], "prometheus": ["observe"], "grafana": ["observe"]}
PINNED = re.compile(r"[a-z0-9./-]+(:(?!latest)[\w.-]+|@sha256:[0-9a-f]{64})")
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
SCENARIO = reading.check(reading.read_file(ROOT / DEFAULT), directory=(ROOT / DEFAULT).parent)


def of_properties(*names: str) -> dict[str, str]:
    """Return what Java would read from these files of the broker, one after the other."""
    text = "\n".join((DEPLOY / "broker" / name).read_text() for name in names)
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    return dict(line.split("=", 1) for line in text.splitlines() if line)


def test_every_image_is_pinned() -> None:
    images = {name: service["image"] for name, service in SERVICES.items()}
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for image in [*images.values(), *bases]:
        assert PINNED.fullmatch(image), image

    ours = {image for name, image in images.items() if "build" in SERVICES[name]}
    assert ours == {f"omnimargin:{PROJECT['project']['version']}"}
    assert images["broker"] == f"apache/kafka:{KAFKA}"
    assert len({base.removeprefix("python:").split("-")[0] for base in bases}) == 1


def test_nothing_is_reachable_from_another_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    published = [port for of_service in ports.values() for port in of_service]

    assert published, "no port to look at"
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    assert not any(service.get("network_mode") == "host" for service in SERVICES.values())


def test_profiles_add_and_never_replace() -> None:
    found = {
        name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service
    }

    assert found == PROFILES


def test_whoever_goes_on_says_how_it_is() -> None:
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == ONCE
    for name, service in SERVICES.items():
        check = service.get("healthcheck")
        assert check is None or check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert "restart" in service or name == "setup", name


def test_each_waits_until_what_it_needs_is_there() -> None:
    assert {name for name, service in SERVICES.items() if not service.get("depends_on")} == {
        "credentials"
    }
    for name, service in SERVICES.items():
        for other, terms in service.get("depends_on", {}).items():
            ended = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert terms["condition"] == ended, f"{name} needs {other}"
            # Else Compose refuses to start the one without the other's profile.
            always = set(PROFILES.get(other, [])) <= set(PROFILES.get(name, []))
            assert terms.get("required", True) == always, f"{name} needs {other}"


def test_prices_and_orders_begin_when_all_others_run() -> None:
    world = set(SERVICES["world"]["depends_on"])

    assert world == {"setup", *roles_of(SCENARIO)} - {"world", MONITOR}


def test_a_broker_that_should_ask_for_passwords_never_starts_without() -> None:
    """Compose goes on without what is not required, once that has failed: so it must not end."""
    assert SERVICES["broker"]["depends_on"]["credentials"]["required"] is False
    assert SERVICES["credentials"]["restart"] == "on-failure"


def test_there_is_one_container_for_each_process() -> None:
    roles = [service["environment"]["ROLE"] for service in SERVICES.values() if is_process(service)]

    assert sorted(roles) == sorted(roles_of(SCENARIO))
    assert DEFAULT.as_posix() in SERVICES["setup"]["environment"]["SCENARIO"]


def is_process(service: dict[str, Any]) -> bool:
    return "ROLE" in service.get("environment", {})


def test_our_containers_may_do_little() -> None:
    ours = [service for service in SERVICES.values() if "build" in service]
    assert len(ours) == len(roles_of(SCENARIO)) + len(ONCE)
    for service in ours:
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "user" not in service, "the image says so"
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE) == ["omnimargin"]


def test_what_is_mounted_exists() -> None:
    volumes = set(COMPOSE["volumes"])
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source, _, *how = mount.split(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), mount
                assert how == ["ro"], f"{mount}: the repository is not theirs to change"
            else:
                assert source in volumes, mount


def test_the_image_has_what_the_program_needs() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE))
    sources = {name for line in copied for name in line.split()}
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}

    assert packages | {"scenarios", "requirements.lock", "pyproject.toml"} <= sources
    assert sources == sent, "the build gets what it copies, and nothing else"
    assert all((ROOT / name).exists() for name in sources)
    assert "*" in ignored


def test_the_broker_trusts_its_own_and_who_sets_up() -> None:
    secure = of_properties("server.properties", "secure.properties")
    plain = of_properties("server.properties", "plain.properties")

    assert secure["super.users"].split(";") == ["User:CN=broker", f"User:{SETUP}"]
    assert secure["allow.everyone.if.no.acl.found"] == "false"
    kinds = dict(pair.split(":") for pair in secure["listener.security.protocol.map"].split(","))
    assert kinds == {"CONTROLLER": "SSL", "INTERNAL": "SSL", "CLIENTS": "SASL_SSL"}
    for listener in ("controller", "internal"):
        assert secure[f"listener.name.{listener}.ssl.client.auth"] == "required"
    for settings in (plain, secure):
        assert settings["auto.create.topics.enable"] == "false"
        assert settings["advertised.listeners"].endswith(",CLIENTS://broker:19092")


def test_prometheus_asks_the_monitor_where_it_serves() -> None:
    told = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = told["scrape_configs"]

    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{MONITOR_PORT}"]}]
    assert SERVICES["prometheus"]["network_mode"] == f"service:{MONITOR}"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names of the metrics of a monitor that has read nothing yet."""
    keys, domain = tmp_path_factory.mktemp("keys"), domain_of("here")
    write_keys(keys, nodes_of(SCENARIO))
    verifier, signer = read_verifier(keys, domain), read_signer(keys, MONITOR, domain)
    books, clock = Books(terms_of(SCENARIO)), Clock(0, 1.0)
    herald = Herald(Connection("nowhere:1"), signer, clock)
    registry = CollectorRegistry()
    registry.register(Metrics(Summary(books, Reader(books, verifier), herald, clock)))
    return set(re.findall(r"^# TYPE (\S+) ", generate_latest(registry).decode(), re.MULTILINE))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_ask_for_what_the_monitor_exports(path: Path, exported: set[str]) -> None:
    provisioned = DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(provisioned.read_text())["datasources"]
    dashboard = json.loads(path.read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]

    assert targets
    asked = [*targets, *dashboard["panels"]]
    assert {one["datasource"]["uid"] for one in asked} == {source["uid"]}
    for target in targets:
        names = re.findall(r"\bomnimargin_\w+", target["expr"])
        assert names, target["expr"]
        assert set(names) <= exported, target["expr"]


def test_grafana_finds_the_dashboards() -> None:
    provisioned = DEPLOY / "grafana" / "provisioning" / "dashboards" / "files.yml"
    (provider,) = yaml.safe_load(provisioned.read_text())["providers"]
    folder = provider["options"]["path"]
    grafana = SERVICES["grafana"]

    assert f"./{DASHBOARDS[0].parent.relative_to(ROOT)}:{folder}:ro" in grafana["volumes"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent == Path(folder)
    assert home.name in {path.name for path in DASHBOARDS}
    assert len({json.loads(path.read_text())["uid"] for path in DASHBOARDS}) == len(DASHBOARDS)


@pytest.fixture(scope="module")
def compose() -> list[str]:
    """Return the command line of Compose."""
    command = ["docker", "compose"]
    if shutil.which("docker") is None:
        pytest.skip("docker is not here")
    if subprocess.run([*command, "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose plugin here")
    return command


@pytest.mark.parametrize(
    "profiles",
    [chosen for count in range(3) for chosen in combinations(("secure", "observe"), count)],
    ids=lambda chosen: "+".join(chosen) or "none",
)
def test_compose_accepts_the_file(profiles: tuple[str, ...], compose: list[str]) -> None:
    words = [word for profile in profiles for word in ("--profile", profile)]
    done = subprocess.run(
        [*compose, *words, "config", "--services"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    left_out = {name for name, of in PROFILES.items() if not set(of) & set(profiles)}
    assert set(done.stdout.split()) == set(SERVICES) - left_out
