"""deploy/kubernetes against the schemas of the oldest and newest Kubernetes that we name, and against our own rules."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from hub.settings import Settings
from tests.deploy.files import DEPLOY, ROOT, documents

FOLDER = DEPLOY / "kubernetes"
OBJECTS: list[tuple[str, dict[str, Any]]] = [
    (path.name, d) for path in sorted(FOLDER.glob("*.yaml")) for d in documents(path) if path.stem != "kustomization"
]
KEDA = "keda.sh/v1alpha1"
VERSIONS = ("1.29", "1.37")  # sidecars came with 1.29
PODS = [(n, d) for n, d in OBJECTS if d["kind"] in ("Deployment", "Job")]
DEPLOYMENTS = [(n, d) for n, d in PODS if d["kind"] == "Deployment"]


def named(entry: tuple[str, dict[str, Any]]) -> str:
    return f"{entry[1]['kind']}-{entry[1]['metadata']['name']}"


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def template(entry: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = entry[1]["spec"]["template"]["spec"]
    return spec


every_pod = pytest.mark.parametrize("entry", PODS, ids=map(named, PODS))
every_deployment = pytest.mark.parametrize("entry", DEPLOYMENTS, ids=map(named, DEPLOYMENTS))
native = [o for o in OBJECTS if o[1]["apiVersion"] != KEDA]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("entry", native, ids=map(named, native))
def test_kubernetes_accepts_every_object(entry: tuple[str, dict[str, Any]], version: str) -> None:
    """Strictly: the API server drops fields that it does not know, and with them what they were to protect."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kubernetes_validate
    kubernetes_validate.validate(entry[1], version, strict=True)


def test_the_schema_check_does_catch_a_wrong_field() -> None:
    """A validator that accepts everything proves nothing."""
    import kubernetes_validate

    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"port": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_kustomization_lists_every_file_but_the_example_secret() -> None:
    """A file that is not listed is never applied."""
    (kustomization,) = documents(FOLDER / "kustomization.yaml")
    files = {p.name for p in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(kustomization["resources"]) == files
    assert kustomization["images"][0]["newTag"] not in ("", "latest")


@every_pod
def test_every_container_runs_with_as_little_as_possible(entry: tuple[str, dict[str, Any]]) -> None:
    """The namespace enforces `restricted`: a pod that breaks it does not start."""
    pod = template(entry)
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(pod):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@every_pod
def test_secrets_are_files_of_the_one_secret(entry: tuple[str, dict[str, Any]]) -> None:
    """An environment variable ends up in crash reports and in `kubectl describe`."""
    pod = template(entry)
    (volume,) = [v for v in pod["volumes"] if v["name"] == "secrets"]
    files = {f"/run/secrets/hub/{item['path']}" for item in volume["secret"]["items"]}
    asked = set()
    for container in containers(pod):
        for variable in container["env"]:
            if variable == {"name": "HUB_EXPORTER_SOURCES", "value": "counters"}:
                continue
            assert variable["name"].removeprefix("HUB_").removesuffix("_FILE").lower() in Settings.model_fields
            assert variable["name"].endswith("_FILE") and variable["value"] in files
            asked.add(variable["value"])
    assert asked == files, "a secret is mounted that nobody reads"


@every_deployment
def test_probes_never_ask_for_database_or_broker(entry: tuple[str, dict[str, Any]]) -> None:
    """A restart heals no database; and events are accepted while the broker is away."""
    for container in containers(template(entry)):
        alive = container["livenessProbe"]
        assert "startupProbe" in container
        for probe in (alive, container.get("readinessProbe", {})):
            assert probe.get("httpGet", {}).get("path", "/healthz") == "/healthz"
        assert "hub" not in alive.get("exec", {}).get("command", [])


@every_deployment
def test_the_metrics_of_every_pod_are_served_by_that_pod(entry: tuple[str, dict[str, Any]]) -> None:
    """Counters lie in a folder of the pod: nobody outside can read them."""
    _, deployment = entry
    pod = template(entry)
    exporters = [c for c in containers(pod) if c["args"] == ["hub", "exporter"]]
    assert len(exporters) == 1
    assert {"name": "metrics", "containerPort": 9808} in exporters[0]["ports"]
    folders = {m["mountPath"] for c in containers(pod) for m in c["volumeMounts"] if m["name"] == "metrics"}
    assert folders == {"/run/hub/metrics"} and all(
        "metrics" in {m["name"] for m in c["volumeMounts"]} for c in containers(pod)
    )
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "9808"
    if entry[1]["metadata"]["name"] == "hub-exporter":
        assert {"name": "HUB_BROKER_URL_FILE", "value": "/run/secrets/hub/broker_monitor_url"} in exporters[0]["env"]
    else:
        assert exporters[0]["env"] == [{"name": "HUB_EXPORTER_SOURCES", "value": "counters"}]
        assert "secrets" not in {m["name"] for m in exporters[0]["volumeMounts"]}


def test_the_pod_monitor_selects_every_pod_with_metrics() -> None:
    """By the label and the port name that all of them have; alerts need the job name."""
    (monitor,) = documents(FOLDER / "prometheus-operator" / "podmonitor.yaml")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    for entry in DEPLOYMENTS:
        assert wanted.items() <= entry[1]["spec"]["template"]["metadata"]["labels"].items()
        ports = [port["name"] for c in containers(template(entry)) for port in c.get("ports", [])]
        assert ports.count(endpoint["port"]) == 1
    assert {"action": "replace", "targetLabel": "job", "replacement": "hub"} in endpoint["relabelings"]
    assert "environment" in {rule.get("targetLabel") for rule in endpoint["relabelings"]}


def test_the_prometheus_rule_is_generated_from_the_rules() -> None:
    """`python scripts/prometheus_rule.py` was run after the last change of a rule."""
    script = ROOT / "scripts" / "prometheus_rule.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0
    (rule,) = documents(FOLDER / "prometheus-operator" / "prometheusrule.yaml")
    groups = [g for p in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml")) for g in documents(p)[0]["groups"]]
    assert rule["spec"]["groups"] == groups


def test_selectors_find_their_pods() -> None:
    """A budget, policy or service that selects nothing protects nothing, in silence."""
    pods = [d["spec"]["template"]["metadata"]["labels"] for _, d in PODS]
    checked = 0
    for _, found in OBJECTS:
        spec = found.get("spec", {})
        if found["kind"] == "Service":
            wanted = spec["selector"]
        elif found["kind"] in ("PodDisruptionBudget", "Deployment"):
            wanted = spec["selector"]["matchLabels"]
        elif found["kind"] == "NetworkPolicy" and "matchLabels" in spec["podSelector"]:
            wanted = spec["podSelector"]["matchLabels"]
        else:
            continue
        checked += 1
        assert [p for p in pods if wanted.items() <= p.items()], found["metadata"]["name"]
    assert checked >= 8


def test_everything_is_refused_that_is_not_allowed() -> None:
    """And metadata and private addresses are never allowed."""
    policies = {d["metadata"]["name"]: d["spec"] for _, d in OBJECTS if d["kind"] == "NetworkPolicy"}
    deny = policies["hub-default-deny"]
    assert deny["podSelector"] == {} and set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in deny and "egress" not in deny
    blocks = [t["ipBlock"] for rule in policies["hub-deliveries"]["egress"] for t in rule["to"]]
    assert {"169.254.0.0/16", "10.0.0.0/8", "127.0.0.0/8"} <= set(blocks[0]["except"])


def test_workers_scale_on_depth_and_on_age() -> None:
    """Depth alone misses a slow service; age alone comes late. KEDA's own schema is not on PyPI: the fields used."""
    (scaled,) = [d for _, d in OBJECTS if d["kind"] == "ScaledObject"]
    spec = scaled["spec"]
    deployments = {d["metadata"]["name"]: d for _, d in DEPLOYMENTS}
    target = deployments[spec["scaleTargetRef"]["name"]]
    assert "replicas" not in target["spec"], "applying it again would undo the scaler's work"
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    triggers = {t["type"]: t for t in spec["triggers"]}
    assert triggers["rabbitmq"]["metadata"]["queueName"] == f"{Settings().queue_prefix}.dispatch"
    assert triggers["prometheus"]["metadata"]["ignoreNullValues"] == "true"
    assert "hub_oldest_due_task_age_seconds" in triggers["prometheus"]["metadata"]["query"]
    assert all(isinstance(v, str) for t in spec["triggers"] for v in t["metadata"].values())
    (auth,) = [d for _, d in OBJECTS if d["kind"] == "TriggerAuthentication"]
    assert triggers["rabbitmq"]["authenticationRef"]["name"] == auth["metadata"]["name"]
    assert auth["spec"]["secretTargetRef"] == [{"parameter": "host", "name": "hub", "key": "broker_monitor_url"}]


def test_the_example_secret_has_no_real_one_and_every_key() -> None:
    """It is in version control."""
    (secret,) = documents(FOLDER / "secret.example.yaml")
    for key, value in secret["stringData"].items():
        assert "REPLACE" in value and not re.search(r"[A-Za-z0-9_-]{32,}", value), key
    mounted = {
        item["key"]
        for e in PODS
        for v in template(e)["volumes"]
        if v["name"] == "secrets"
        for item in v["secret"]["items"]
    }
    assert mounted == set(secret["stringData"])


def test_every_setting_in_the_config_map_exists() -> None:
    """A misspelt variable is silently ignored by the hub."""
    (config,) = documents(Path(FOLDER / "configmap.yaml"))
    names = [n for n in config["data"] if n.startswith("HUB_")]
    assert {n.removeprefix("HUB_").lower() for n in names} <= set(Settings.model_fields)
