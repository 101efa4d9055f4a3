"""The manifests in ``deploy/kubernetes``: valid for Kubernetes, and true of this version."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from atomstream.cli import commands
from atomstream.cli.configuration import DEFAULTS, PREFIX
from atomstream.server import ServerSettings
from atomstream.server.ports.bus_address import BusAddress
from atomstream.server.ports.store_url import open_store
from atomstream.server.postgres.address import PostgresAddress
from atomstream.version import __version__
from tests.paths import REPO

yaml = pytest.importorskip("yaml")

FOLDER = REPO / "deploy" / "kubernetes"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
OBJECTS: list[dict[str, Any]] = [
    one for path in FILES for one in yaml.safe_load_all(path.read_text("utf-8")) if one
]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by name."""
    return {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    """What each deployment and job runs: the specification of its pods."""
    made = {**of_kind("Deployment"), **of_kind("Job")}
    return {name: one["spec"]["template"] for name, one in made.items()}


@pytest.fixture(scope="module")
def validation() -> ModuleType:
    """The package ``kubernetes_validate``. Its import takes 5 s of processor time: only one test process does it."""
    return pytest.importorskip("kubernetes_validate")


@pytest.mark.parametrize("one", OBJECTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
@pytest.mark.parametrize("version", ["1.30", "1.33"])
def test_kubernetes_accepts_them(one: dict[str, Any], version: str, validation: ModuleType) -> None:
    """Each object is valid by the schema of Kubernetes itself, with no unknown field."""
    validation.validate(one, version, strict=True)


def test_kustomize_makes_the_same_objects() -> None:
    """``kubectl apply --kustomize`` finds all files, and sends what they describe."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([kubectl, "kustomize", str(FOLDER)], capture_output=True, text=True, check=True)
    made = {(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(done.stdout)}
    migration = [
        one for one in yaml.safe_load_all((FOLDER / "migrate.yaml").read_text("utf-8")) if one is not None
    ]
    wanted = {(one["kind"], one["metadata"]["name"]) for one in OBJECTS if one not in migration}
    assert made == wanted


def test_all_files_are_applied() -> None:
    """The list of files is complete but for the migration, which is applied by itself; the image is this version."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))
    assert {*listed["resources"], "migrate.yaml"} == {path.name for path in FILES}
    (image,) = listed["images"]
    assert image["newTag"] == __version__
    images = {container["image"] for pod in pods().values() for container in pod["spec"]["containers"]}
    assert images == {image["name"], f"{image['name']}:{__version__}"}


def test_the_commands_are_ours() -> None:
    """Each container runs a command of this program with options that it has."""
    for pod in pods().values():
        (container,) = pod["spec"]["containers"]
        words, command = list(container["args"]), commands
        while words and not words[0].startswith("-") and isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        options = {flag for one in command.params if isinstance(one, click.Option) for flag in one.opts}
        assert {word for word in words if word.startswith("--")} <= options, container["name"]


def test_the_settings_are_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each variable is a setting or a secret that is read, and the URLs are good ones, without secrets in them."""
    settings, secrets = (
        of_kind("ConfigMap")["atomstream"]["data"],
        of_kind("Secret")["atomstream"]["stringData"],
    )
    known = {f"{PREFIX}{name.upper()}" for name in (*DEFAULTS, *ServerSettings.limits(), "bus", "store")}
    assert settings.keys() <= known
    assert not [text for text in settings.values() if re.search("password|secret|:[^/]*@", text)]
    for name, secret in secrets.items():
        monkeypatch.setenv(name, secret)
    authority = tmp_path / "ca.crt"
    authority.write_text(_certificate())
    urls = {
        name: text.replace("/etc/atomstream/ca/ca.crt", str(authority)) for name, text in settings.items()
    }
    catalogue = PostgresAddress.parse(urls[f"{PREFIX}CATALOGUE"], secrets)
    assert catalogue.tls is not None
    assert catalogue.secret() == secrets["ATOMSTREAM_CATALOGUE_PASSWORD"]
    bus = BusAddress.parse(urls[f"{PREFIX}BUS"], secrets)
    assert bus.text.count("nats://") == 3
    assert {"user", "password", "tls"} <= bus.arguments().keys()
    store = open_store(urls[f"{PREFIX}STORE"])
    assert store.name == "s3://rheed"
    store.close()


def _certificate() -> str:
    import ssl

    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not found:
        pytest.skip("this computer has no certificates of authorities")
    text = base64.encodebytes(found[0]).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def test_labels_and_volumes_fit() -> None:
    """Selectors of deployments, services and budgets select exactly their pods; each mount has its volume."""
    for name, one in of_kind("Deployment").items():
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"] == labels
        assert of_kind("PodDisruptionBudget")[name]["spec"]["selector"]["matchLabels"] == labels
    server = of_kind("Deployment")["atomstream-server"]["spec"]["template"]
    (service,) = of_kind("Service").values()
    assert service["spec"]["selector"] == server["metadata"]["labels"]
    for pod in pods().values():
        volumes = {one["name"] for one in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {one["name"] for one in container["volumeMounts"]} == volumes


def test_an_upgrade_and_a_lost_node_leave_a_server() -> None:
    """There is more than one of each; a new one is ready before an old one stops, and the stop waits for requests."""
    for name, one in of_kind("Deployment").items():
        spec, pod = one["spec"], one["spec"]["template"]["spec"]
        assert spec["replicas"] >= 2
        assert pod["terminationGracePeriodSeconds"] > ServerSettings.limits()["shutdown_s"] + 5
        if name == "atomstream-server":
            assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
            (container,) = pod["containers"]
            assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"
            assert container["livenessProbe"]["httpGet"]["path"] == "/health"


def test_the_containers_are_confined() -> None:
    """No root, no privileges, a root file system that can't be written, no token of the cluster."""
    for pod in pods().values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"]:
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"] is True
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["capabilities"]["drop"] == ["ALL"]
