"""Java and the jars of Apache Kafka: found, or fetched once by Maven into a cache.

The cache is `$OMNIMARGIN_CACHE`, else `omnimargin` in `$XDG_CACHE_HOME` or `~/.cache`.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from messaging.errors import InputRefused

KAFKA = "4.3.1"
JAVA_MIN = 17
FETCH_S = 900.0  # for some 45 MB, over a slow line
_POM = f"""<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>omnimargin</groupId>
  <artifactId>broker</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""
_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def find_java(environment: Mapping[str, str] = os.environ) -> str:
    """Return the Java to use: that of `$JAVA_HOME`, else the first on the path.

    Raises:
        InputRefused: there is none, or it is too old.
    """
    home = environment.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else "java"
    expected = f"Java {JAVA_MIN} or newer (install a JDK or JRE {JAVA_MIN}, such as OpenJDK)"
    try:
        asked = subprocess.run(
            [program, "-version"], capture_output=True, text=True, check=False, env=environment
        )
    except OSError:
        raise InputRefused(program, expected=expected, found="no such program") from None
    told = asked.stderr + asked.stdout
    version = version_of(told)
    if version is None:
        raise InputRefused(program, expected=expected, found=repr(told.strip()[:100]))
    if version < JAVA_MIN:
        raise InputRefused(program, expected=expected, found=f"Java {version}")
    return program


def version_of(told: str) -> int | None:
    """Return the major version in what `java -version` says."""
    found = _VERSION.search(told)
    return int(found[1]) if found else None


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where this project keeps what it fetches."""
    if own := environment.get("OMNIMARGIN_CACHE"):
        return Path(own).absolute()
    shared = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser().absolute() / "omnimargin"


def find_jars(tell: Callable[[str], None], environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of Apache Kafka's jars; fetch them if the cache has none.

    Raises:
        InputRefused: they cannot be fetched, or the cache cannot be written.
    """
    folder = cache_folder(environment) / f"kafka-{KAFKA}"
    if not folder.is_dir():
        try:
            _fill(folder, tell, environment)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputRefused(str(folder), expected="a cache to write", found=reason) from None
    return folder


def _fill(folder: Path, tell: Callable[[str], None], environment: Mapping[str, str]) -> None:
    """Fetch the jars, unless another process does so at this moment."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return
        tell(f"fetching Apache Kafka {KAFKA} with Maven, this once")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as scratch:
            _fetch(Path(scratch), environment)
            (Path(scratch) / "jars").rename(folder)


def _fetch(scratch: Path, environment: Mapping[str, str]) -> None:
    (scratch / "pom.xml").write_text(_POM)
    # -C: a file that does not match its checksum is an error.
    command = ["mvn", "-q", "-B", "-C", "-f", str(scratch / "pom.xml"), _GOAL]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={scratch / 'jars'}"]
    maven = shutil.which("mvn", path=environment.get("PATH"))
    if maven is None:
        expected = f"Maven, to fetch Apache Kafka {KAFKA} (install maven)"
        raise InputRefused("mvn", expected=expected, found="no such program")
    command[0] = maven
    try:
        fetched = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=FETCH_S, env=environment
        )
    except subprocess.TimeoutExpired:
        raise InputRefused("mvn", expected="an end", found=f"none within {FETCH_S:.0f} s") from None
    if fetched.returncode or not (scratch / "jars" / f"kafka_2.13-{KAFKA}.jar").is_file():
        said = (fetched.stdout + fetched.stderr).splitlines()
        why = next((line for line in said if "ERROR" in line), "nothing said")
        raise InputRefused("mvn", expected=f"the jars of Apache Kafka {KAFKA}", found=why)
