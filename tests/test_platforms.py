"""Formats of platforms: valid by their own schemas, read back as they were, and honest about what they cannot say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from front import ROOT, Ran, run
from golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_examples import EXAMPLES, FORMS, spec
from test_render import NVIDIA, ROCM, hostile, names

from tgi_advisor.errors import Exit, SpecError
from tgi_advisor.facts.platforms import all_platforms
from tgi_advisor.plan import Container, Mount
from tgi_advisor.render import FORMATS, PLATFORMS, note, render

L4 = NVIDIA._replace(gpu="nvidia-l4", gpus="all", gpu_count=1, entry="/tgi-entrypoint.sh", weights_bytes=8 << 30)
CASES = [(name, example) for name in FORMS for example in EXAMPLES]


@cache
def schema(name: str) -> Any:
    """The schema of a platform, as scripts/platforms.py recorded it."""
    held = json.loads((ROOT / "tests" / "data" / "platforms" / f"{name}.json").read_text("utf-8"))
    assert held["of"]
    return jsonschema.validators.validator_for(held["schema"])(held["schema"])


def test_every_platform_is_tried() -> None:
    assert set(PLATFORMS) < set(FORMATS)
    assert set(PLATFORMS) <= FORMS.keys()


# -- there and back


@pytest.mark.parametrize(("name", "example"), CASES)
def test_what_is_emitted_has_no_findings_and_is_imported_as_it_was(
    name: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    monkeypatch.chdir(tmp_path)
    form = FORMS[name]
    Path("first.yaml").write_text(spec(name, example))
    emitted = run("emit", "first.yaml", "--format", name, "--source", "snapshot")
    assert emitted.code == Exit.STARTS, emitted.err
    said = "".join(f"# stderr: {line}\n" for line in emitted.err.splitlines())
    golden(f"platforms/{example}-{name}{Path(form.file).suffix}", emitted.out + said)
    Path(form.file).write_text(emitted.out)
    checked = run("validate", form.file, "--gpu", form.gpu, "--offline")
    assert (checked.code, re.findall(r"(?:error|warning) TGI\d+", checked.out)) == (Exit.STARTS, []), checked.out
    assert "in 1 TGI server" in checked.out
    back = run("import", form.file, *(("--gpu", "nvidia-l4") if name in ("systemd", "kserve") else ()))
    assert (back.code, "# -" in back.out) == (Exit.STARTS, False), back.err + back.out
    Path("second.yaml").write_text(back.out)
    assert container("second.yaml", form.lost) == container("first.yaml", form.lost)
    again = run("emit", "second.yaml", "--as-given", "--format", name, "--source", "snapshot")
    assert uncommented(again.out) == uncommented(emitted.out)


def container(file: str, lost: frozenset[str]) -> dict[str, Any]:
    """What a spec would run, field by field, without what a format has no words for."""
    asked = ("--as-given",) if file == "second.yaml" else ()
    held = json.loads(run("emit", file, *asked, "--format", "json", "--source", "snapshot").out)
    return {key: value for key, value in held.items() if key not in lost}


def uncommented(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


# -- schemas


def documents(name: str, text: str) -> Any:
    """The part of a file that the platform's schema is of."""
    if name == "sagemaker":
        sdk = ("HuggingFaceModel", "deploy", "tgi-advisor")
        return {key: value for key, value in json.loads(text).items() if key not in sdk}
    if name == "vertex":
        return {key: value for key, value in json.loads(text).items() if key != "tgi-advisor"}
    found = [one for one in yaml.safe_load_all(text) if one.get("kind") != "PersistentVolumeClaim"]
    (one,) = found
    return one


@pytest.mark.parametrize("name", [name for name in PLATFORMS if name != "endpoints"])
def test_a_platforms_own_schema_takes_it(name: str) -> None:
    made = documents(name, render(made_for(name), name))
    schema(name).validate(made)
    with pytest.raises(jsonschema.ValidationError, match="surplus"):
        schema(name).validate({**made, "surplus": 1})


def made_for(platform: str, /, **changes: Any) -> Container:
    """A container the platform takes."""
    image, gpu = FORMS[platform].image or L4.image, FORMS[platform].gpu
    return L4._replace(mounts=(Mount("./data", "/data"),), image=image, gpu=gpu)._replace(**changes)


class _Posted(Exception):  # noqa: N818  (not an error: it ends the call)
    """What huggingface_hub would send."""


def test_the_payload_of_an_endpoint_is_what_huggingface_hub_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, hf_api

    class Session:
        def post(self, url: str, json: Any, **_: Any) -> None:
            raise _Posted(url, json)

    monkeypatch.setattr(hf_api, "get_session", Session)
    made = json.loads(render(made_for("endpoints"), "endpoints"))
    model, compute = made["model"], made["compute"]
    image = model["image"]["custom"]
    with pytest.raises(_Posted) as posted:
        HfApi(token="t").create_inference_endpoint(
            made["name"], namespace="me", repository=model["repository"], framework=model["framework"],
            task=model["task"], accelerator=compute["accelerator"], instance_size=compute["instanceSize"],
            instance_type=compute["instanceType"], region=made["provider"]["region"],
            vendor=made["provider"]["vendor"], type=made["type"], revision=model["revision"],
            custom_image=image,
            container_args=model["args"], env=model["env"],
        )  # fmt: skip
    url, sent = posted.value.args
    assert url.endswith("/v2/endpoint/me")
    assert made.pop("tgi-advisor") == {"secret_env": {"HF_TOKEN": "HF_TOKEN"}}
    assert sent == made


# -- what a platform reads


def read_dstack(text: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables as dstack fills them in (dstack/_internal/utils/interpolator.py@0.22.5)."""

    def filled(value: str) -> str:
        assert "${{" not in value.replace("$$", "")
        return value.replace("$$", "$")

    service = yaml.safe_load(text)
    env = [entry.partition("=") for entry in service.get("env", ())]
    return [filled(one) for one in service["commands"]], {name: filled(value) for name, _, value in env if _}


def read_cloud_run(text: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables, in which Cloud Run replaces nothing."""
    (server,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    return server.get("args", []), {one["name"]: one["value"] for one in server.get("env", ()) if "value" in one}


def read_kserve(text: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables as the kubelet makes them: `$$` is `$`."""
    (server,) = documents("kserve", text)["spec"]["predictor"]["containers"]
    env = {one["name"]: one["value"].replace("$$", "$") for one in server.get("env", ()) if "value" in one}
    return [one.replace("$$", "$") for one in server.get("args", ())], env


def read_sagemaker(text: str) -> tuple[list[str], dict[str, str]]:
    """Variables; the image passes no arguments on."""
    return [], json.loads(text)["CreateModel"]["PrimaryContainer"]["Environment"]


def read_vertex(text: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables, in which `$$` is `$` as in Kubernetes."""
    held = json.loads(text)["UploadModel"]["model"]["containerSpec"]
    env = {one["name"]: one["value"].replace("$$", "$") for one in held.get("env", ())}
    return [one.replace("$$", "$") for one in held.get("args", ())], env


def read_azure(text: str) -> tuple[list[str], dict[str, str]]:
    """Variables; there are no arguments."""
    stated = yaml.safe_load(text)["environment_variables"]
    return [], {name: value for name, value in stated.items() if name not in {**L4.args_env, **L4.secret_env}}


def read_endpoint(text: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables as they stand."""
    held = json.loads(text)["model"]
    return held.get("args", []), held.get("env", {})


READERS = {
    "dstack": read_dstack, "cloudrun": read_cloud_run, "kserve": read_kserve, "sagemaker": read_sagemaker,
    "vertex": read_vertex, "azureml": read_azure, "endpoints": read_endpoint,
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=25, deadline=None)
@given(st.lists(hostile, min_size=1, max_size=3).map(tuple), st.dictionaries(names, hostile, max_size=3))
def test_hostile_values_arrive(name: str, args: tuple[str, ...], env: dict[str, str]) -> None:
    if name == "dstack":
        env = {key: value for key, value in env.items() if "\n" not in value and len(value.splitlines()) < 2}
    if name in ("sagemaker", "azureml"):
        args = ()
    made = made_for(name, args=args, env=env)
    assert READERS[name](render(made, name)) == (list(args), env)
    if name != "endpoints":
        schema(name).validate(documents(name, render(made, name)))


# -- systemd

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}


def systemd_words(line: str) -> list[str]:
    """Words of a command as systemd makes them: quotes, escapes, `%%` and `$$` (systemd.syntax(7))."""
    words: list[str] = []
    word, quote, at = "", "", 0
    begun = False
    while at < len(line):
        c = line[at]
        if c == "\\":
            kind = line[at + 1]
            size = {"x": 2, "u": 4, "U": 8}.get(kind, 0)
            word += chr(int(line[at + 2 : at + 2 + size], 16)) if size else ESCAPES[kind]
            at, begun = at + 2 + size, True
            continue
        if c == '"' and quote in ("", c):
            quote, begun = "" if quote else c, True
        elif c in " \n" and not quote:
            words += [word] if begun else []
            word, begun = "", False
        elif c in "%$":
            assert line[at + 1] in (c, "S", "h"), line[at:]
            word += c if line[at + 1] == c else c + line[at + 1]
            at, begun = at + 1, True
        else:
            assert c.isprintable(), c
            word, begun = word + c, True
        at += 1
    assert not quote
    return [*words, word] if begun else words


def exec_start(text: str) -> list[str]:
    found = re.search(r"^ExecStart=([^\n]*?(?:\\\n[^\n]*?)*)$", text, re.MULTILINE)
    assert found
    return systemd_words(found[1].replace("\\\n", "\n"))


@settings(max_examples=40, deadline=None)
@given(st.lists(hostile, max_size=4).map(tuple), st.dictionaries(names, hostile, max_size=3))
def test_hostile_values_reach_docker_through_systemd(args: tuple[str, ...], env: dict[str, str]) -> None:
    made = L4._replace(args=args, env=env)
    words = exec_start(render(made, "systemd"))
    at = words.index(made.image)
    assert words[:3] == ["/usr/bin/docker", "run", "--rm"]
    assert tuple(words[at + 1 :]) == args
    assert {word for one, word in pairwise(words[:at]) if one == "-e" and "=" in word} == {
        f"{name}={value}" for name, value in env.items()
    }


@pytest.mark.parametrize(
    ("source", "said"),
    [("./d", "%S/llama/d:/data"), (".", "%S/llama:/data"), ("../d e", "%S/llama/../d e:/data"), ("~/w", "%h/w:/data"),
     ("/srv/100%", "/srv/100%:/data"), ("vol.1", "vol.1:/data")],
)  # fmt: skip
def test_folders_of_a_unit(source: str, said: str) -> None:
    words = exec_start(render(L4._replace(mounts=(Mount(source, "/data"),)), "systemd"))
    assert words[words.index("-v") + 1] == said


def test_systemd_itself_finds_nothing_wrong(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here, which checks units")
    unit = tmp_path / "llama.service"
    text = render(L4._replace(env={"ODD": "a\"b'$z%h\n\\"}), "systemd").replace("/usr/bin/docker", "/usr/bin/env")
    unit.write_text(text.replace(" docker.service", " ").replace("Requires=docker.service\n", ""))
    ran = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert [line for line in ran.stderr.splitlines() if "llama.service" in line] == []


UNIT = re.compile(r"\[[A-Za-z]+\]|#.*|[A-Z][A-Za-z]+=(?:.*\\\n)*.*|")


@pytest.mark.parametrize("container", [L4, ROCM, L4._replace(env={"ODD": "[Service]\nExecStart=evil\\"})])
def test_a_unit_has_nothing_but_sections_settings_and_comments(container: Container) -> None:
    text = render(container, "systemd")
    assert all(UNIT.fullmatch(part) for part in re.split(r"(?<!\\)\n", text))
    assert text.count("ExecStart=") == 1 + container.env.get("ODD", "").count("ExecStart=")


# -- skypilot


def test_a_task_of_skypilot_runs_the_command_of_docker_run(tmp_path: Path) -> None:
    made = made_for("skypilot", env={"ODD": "a\n\x85 b: 'c'"}, secret_env={"HF_TOKEN": "MINE"})
    task = yaml.safe_load(render(made, "skypilot"))
    assert task["run"] == render(made, "docker-run")
    assert (task["secrets"], task["resources"]["accelerators"]) == ({"MINE": None}, "L4:1")


# -- what is refused, what is said


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("skypilot", {"gpu": "nvidia-titan-rtx"}, "SkyPilot has no nvidia-titan-rtx, or none that is known by name"),
        ("dstack", {"gpu": "nvidia-l20"}, "dstack has no nvidia-l20"),
        ("dstack", {"name": "a" * 42}, "dstack does not take the name"),
        ("dstack", {"entry": ""}, "dstack has to be told what the image starts"),
        ("dstack", {"mounts": (Mount("./d", "/data"), Mount("./m", "/models/m"))}, "relative folder './m'"),
        ("dstack", {"env": {"A": "b\nc"}}, "dstack's list of variables cannot hold A: its value has line breaks"),
        ("cloudrun", {"gpu": "nvidia-h100-sxm"}, "Cloud Run has no nvidia-h100-sxm"),
        ("sagemaker", {"image": NVIDIA.image}, "has none of TGI 3.3.7, the newest is of 3.3.6"),
        ("sagemaker", {"image": NVIDIA.image.replace("3.3.7", "3.3.4")}, "for it has one of that release"),
        ("sagemaker", {"gpu_count": 3}, "SageMaker has no machine with 3 nvidia-l4"),
        ("sagemaker", {"gpu": "nvidia-rtx-4090"}, "SageMaker has no nvidia-rtx-4090"),
        ("sagemaker", {"env": {"A": "x" * 1025}}, "no value of more than 1024 characters: A"),
        ("endpoints", {"gpu": "nvidia-t4", "gpu_count": 2}, "has no machine with 2 nvidia-t4"),
        ("endpoints", {"name": "a" * 33}, "Inference Endpoints does not take the name"),
        ("azureml", {"args_only": ("--env",)}, "the launcher has no variable for '--env'"),
        ("azureml", {"env": {"A": "${{b}}"}}, "fill in what stands in ${{ }} in A"),
        ("azureml", {"gpu": "nvidia-l4"}, "Azure ML has no nvidia-l4"),
        ("azureml", {"name": "ab"}, "Azure ML does not take the name 'ab'"),
        ("vertex", {"image": NVIDIA.image}, "Vertex AI does not pull ghcr.io/huggingface"),
        ("vertex", {"gpu": "nvidia-h200", "gpu_count": 2}, "Vertex AI has no machine with 2 nvidia-h200"),
        ("cloudrun", {"gpu_count": 2}, "Cloud Run has no machine with 2 nvidia-l4"),
        ("cloudrun", {"weights_bytes": 40 << 30}, "52 GiB are needed, beside this GPU it has 32 GiB"),
        ("cloudrun", {"image": NVIDIA.image}, "Cloud Run does not pull ghcr.io/huggingface"),
        ("cloudrun", {"mounts": (Mount("d", "/data"), Mount("/srv/a", "/a"))}, "cannot mount the folder '/srv/a'"),
    ],
)  # fmt: skip
def test_what_a_platform_does_not_have_is_refused(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=re.escape(said)) as refused:
        render(made_for(name, **changes), name)
    assert refused.value.hint


@pytest.mark.parametrize("name", PLATFORMS)
def test_what_a_platform_has_no_words_for_is_said_in_the_file_and_beside_it(name: str) -> None:
    made = made_for(name, gpus=("3",))
    said = note(made, name) or ""
    text = render(made, name)
    assert all(line in text for line in said.splitlines()) or name not in ("dstack", "cloudrun", "azureml")
    if name not in ("kserve", "skypilot"):
        assert "container.gpus" in said
        assert "container.port (8080)" in said


@pytest.mark.parametrize("name", FORMS)
def test_no_format_of_a_platform_holds_a_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = render(made_for(name), name)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "markermarkermarkermarker")
    assert render(made_for(name), name) == before
    assert "HF_TOKEN" in before + (note(made_for(name), name) or "")


# -- the table


def test_the_gpus_of_platforms_are_in_the_table_of_gpus() -> None:
    from tgi_advisor.facts.gpu import all_gpus

    known = {row.name for row in all_gpus()}
    for platform in all_platforms().values():
        assert set(platform.gpus) <= known
        assert {one.gpu for one in platform.offers} <= known


def test_every_instance_type_of_sagemaker_is_one_the_sdk_knows() -> None:
    known = schema("sagemaker").schema["$defs"]["ProductionVariant"]["properties"]["InstanceType"]["enum"]
    sagemaker = all_platforms()["sagemaker"]
    emitted = {sagemaker.machine(gpu, count) for gpu in sagemaker.known() for count in sagemaker.counts(gpu)}
    assert emitted <= set(known)
    assert "ml.g6.12xlarge" in emitted
    assert not {f"ml.{kind}" for kind in sagemaker.without} & set(known)


@pytest.mark.parametrize(("name", "known"), [("skypilot", "accelerators"), ("dstack", "gpu")])
def test_every_gpu_a_platform_has_is_read_back_as_it(name: str, known: str) -> None:
    from tgi_advisor.facts import gpu as gpus

    for ours, theirs in all_platforms()[name].gpus.items():
        text = render(made_for(name, gpu=ours), name)
        assert f"{known}: {theirs}:1\n" in text
        same = gpus.find(ours)
        (found,) = {gpus.find(one).memory_bytes for one in [hinted(text, name)]}
        assert found == same.memory_bytes, ours


def hinted(text: str, name: str) -> str:
    """The name of the GPU that the reader takes from a file."""
    from tgi_advisor.validate.read import read

    (server,) = read(text, FORMS[name].file).servers
    (hint,) = {one.value.text for one in server.hints if one.kind == "gpu"}
    return hint


@pytest.mark.parametrize(
    ("name", "where"), [("kserve", "minReplicas: 3"), ("skypilot", "replicas: 3"), ("dstack", "replicas: 3")]
)
def test_several_servers_are_said_and_read_back(name: str, where: str, tmp_path: Path) -> None:
    file = tmp_path / FORMS[name].file
    text = spec(name, "plain") + "container: {replicas: 3}\nkubernetes: {storage: shared}\n"
    (tmp_path / "spec.yaml").write_text(text)
    emitted = run("emit", str(tmp_path / "spec.yaml"), "--format", name, "--source", "snapshot")
    assert where in emitted.out, emitted.err
    file.write_text(emitted.out)
    assert yaml.safe_load(run("import", str(file), "--gpu", "nvidia-l4").out)["container"]["replicas"] == 3


# -- several servers, and who says how many

SCALED = {"min": 2, "max": 5, "on": "batch", "target": 9}


def there_and_back(name: str, folder: Path, text: str) -> tuple[Ran, dict[str, Any]]:
    """How a spec is emitted, which then has no findings, and the spec that is read back from it."""
    (folder / "spec.yaml").write_text(text)
    emitted = run("emit", str(folder / "spec.yaml"), "--format", name, "--source", "snapshot")
    assert emitted.code == Exit.STARTS, emitted.err
    file = folder / FORMS[name].file
    file.write_text(emitted.out)
    checked = run("validate", str(file), "--gpu", FORMS[name].gpu, "--offline")
    assert (checked.code, re.findall(r"(?:error|warning) TGI\d+", checked.out)) == (Exit.STARTS, []), checked.out
    back = run("import", str(file), "--gpu", FORMS[name].gpu)
    assert back.code == Exit.STARTS, back.err
    return emitted, yaml.safe_load(back.out)


def scaled(name: str, folder: Path, **changes: Any) -> tuple[str, str, dict[str, Any]]:
    """A file of servers that are scaled, what was said beside it, and the `autoscale` that is read back."""
    asked = {"storage": "shared"} if name in ("kserve", "skypilot", "dstack") else {}
    text = {"autoscale": SCALED | changes, **({"kubernetes": asked} if asked else {})}
    emitted, back = there_and_back(name, folder, spec(name, "plain") + yaml.safe_dump(text))
    said = back.get("autoscale", {})
    return emitted.out, emitted.err, {"on" if key is True else key: value for key, value in said.items()}  # YAML 1.1


KEDA = {"by": "keda", "prometheus": "http://prometheus.monitoring:9090"}


def test_kserve_has_keda_ask_prometheus(tmp_path: Path) -> None:
    text, said, back = scaled("kserve", tmp_path, **KEDA)
    schema("kserve").validate(documents("kserve", text))
    service = documents("kserve", text)
    predictor = service["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 5)
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    (metric,) = predictor["autoScaling"]["metrics"]
    asked = metric["external"]["metric"]
    assert (asked["backend"], asked["serverAddress"]) == ("prometheus", KEDA["prometheus"])
    assert asked["query"].startswith("sum(tgi_batch_current_size{")
    assert metric["external"]["target"] == {"type": "Value", "value": "9"}
    assert "KEDA alone" not in said
    assert back == SCALED | KEDA


def test_kserve_without_keda_keeps_the_number_and_says_so(tmp_path: Path) -> None:
    text, said, back = scaled("kserve", tmp_path)
    predictor = documents("kserve", text)["spec"]["predictor"]
    assert predictor["minReplicas"] == predictor["maxReplicas"] == 1
    assert "autoScaling" not in predictor
    assert "KEDA alone" in " ".join(said.split())
    assert back == SCALED


@pytest.mark.parametrize("name", ["cloudrun", "azureml", "dstack", "skypilot"])
def test_what_decides_is_kept_in_a_comment(name: str, tmp_path: Path) -> None:
    text, said, back = scaled(name, tmp_path)
    schema(name).validate(documents(name, text))
    assert back == SCALED
    assert "autoscale.on (tgi_batch_current_size)" in " ".join(said.split())
    if name == "cloudrun":
        annotations = yaml.safe_load(text)["spec"]["template"]["metadata"]["annotations"]
        assert annotations["autoscaling.knative.dev/minScale"] == "2"
        assert annotations["autoscaling.knative.dev/maxScale"] == "5"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("vertex", ("DeployModel", "deployedModel", "dedicatedResources")),
        ("endpoints", ("compute", "scaling")),
        ("sagemaker", ("RegisterScalableTarget",)),
    ],
)
def test_between_how_many_is_said_in_json(name: str, where: tuple[str, ...], tmp_path: Path) -> None:
    text, said, back = scaled(name, tmp_path, on="queue", target=6)
    held = json.loads(text)
    if name != "endpoints":
        schema(name).validate(documents(name, text))
    for key in where:
        held = held[key]
    numbers = [value for value in held.values() if type(value) is int]
    assert numbers == [2, 5]
    assert (back["min"], back["max"]) == (2, 5)
    assert "autoscale.on (tgi_queue_size)" in " ".join(said.split())


def test_requests_of_the_batch_are_those_at_once_of_sagemaker(tmp_path: Path) -> None:
    text, said, back = scaled("sagemaker", tmp_path)
    assert back == SCALED
    assert "autoscale" not in said
    held = documents("sagemaker", text)
    schema("sagemaker").validate(held)
    policy, target = held["PutScalingPolicy"], held["RegisterScalableTarget"]
    assert {key: policy[key] for key in ("ResourceId", "ScalableDimension", "ServiceNamespace")} == {
        key: value for key, value in target.items() if not key.endswith("Capacity")
    }
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == SCALED["target"]
    for broken in ("PolicyNam", "policyType"):
        with pytest.raises(jsonschema.ValidationError, match=broken):
            schema("sagemaker").validate({**held, "PutScalingPolicy": {**policy, broken: "x"}})
    tracking["PredefinedMetricSpecification"]["PredefinedMetricType"] = "SageMakerVariantQueue"
    with pytest.raises(jsonschema.ValidationError, match="SageMakerVariantQueue"):
        schema("sagemaker").validate(held)


@pytest.mark.parametrize("name", ["sagemaker", "endpoints", "vertex"])
@pytest.mark.parametrize("what", [{"on": "queue", "target": 6}, {"on": "batch", "target": 9}])
def test_what_scales_comes_back_from_json(name: str, what: dict[str, Any], tmp_path: Path) -> None:
    assert {"on": "queue", **scaled(name, tmp_path, **what)[2]} == {**SCALED, **what}


def test_the_platforms_own_numbers_win_over_those_that_are_kept(tmp_path: Path) -> None:
    text, _, _ = scaled("vertex", tmp_path)
    held = json.loads(text)
    held["DeployModel"]["deployedModel"]["dedicatedResources"]["maxReplicaCount"] = 7
    (tmp_path / "vertex.json").write_text(json.dumps(held))
    back = yaml.safe_load(run("import", str(tmp_path / "vertex.json"), "--gpu", "nvidia-l4").out)
    assert (back["autoscale"]["min"], back["autoscale"]["max"]) == (2, 7)


def test_cloud_runs_own_numbers_win_over_those_that_are_kept(tmp_path: Path) -> None:
    text, _, _ = scaled("cloudrun", tmp_path)
    (tmp_path / "service.yaml").write_text(text.replace('maxScale: "5"', 'maxScale: "7"'))
    back = yaml.safe_load(run("import", str(tmp_path / "service.yaml"), "--gpu", "nvidia-l4").out)
    assert (back["autoscale"]["min"], back["autoscale"]["max"], back["autoscale"][True]) == (2, 7, "batch")


@pytest.mark.parametrize("name", ["sagemaker", "endpoints", "vertex"])
def test_how_many_is_read_in_its_place_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(spec(name, "plain"))
    held = json.loads(run("emit", str(tmp_path / "spec.yaml"), "--format", name, "--source", "snapshot").out)
    file = tmp_path / FORMS[name].file
    other = {"minReplica": 2, "maxReplica": 5, "minReplicaCount": 2, "maxReplicaCount": 5, "MinCapacity": 2,
             "MaxCapacity": 5, "InitialInstanceCount": 3, "instance_count": 3}  # fmt: skip
    file.write_text(json.dumps({**held, "somewhere": {"else": other}}))
    back = yaml.safe_load(run("import", str(file), "--gpu", "nvidia-l4").out)
    assert ("autoscale" in back, "replicas" in back.get("container", {})) == (False, False)


GATED = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("token", ["HF_TOKEN", "MINE"])
def test_a_gated_models_token_is_not_missed(name: str, token: str, tmp_path: Path) -> None:
    made = yaml.safe_load(spec(name, "plain"))
    made |= {"model": {"id": GATED}, "container": {"token_env": token}}
    _, back = there_and_back(name, tmp_path, yaml.safe_dump(made))
    assert back.get("container", {}).get("token_env", "HF_TOKEN") == token


@pytest.mark.parametrize("name", ["sagemaker", "endpoints", "vertex"])
def test_a_gated_models_token_is_missed_where_nothing_says_it_comes(name: str, tmp_path: Path) -> None:
    made = yaml.safe_load(spec(name, "plain")) | {"model": {"id": GATED}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(made))
    held = json.loads(run("emit", str(tmp_path / "spec.yaml"), "--format", name, "--source", "snapshot").out)
    assert held.pop("tgi-advisor") == {"secret_env": {"HF_TOKEN": "HF_TOKEN"}}
    (tmp_path / FORMS[name].file).write_text(json.dumps(held))
    checked = run("validate", str(tmp_path / FORMS[name].file), "--gpu", "nvidia-l4", "--offline")
    assert "warning TGI403" in checked.out


def test_requests_of_the_batch_are_those_that_pend_of_an_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi, hf_api
    from huggingface_hub._inference_endpoints import InferenceEndpointScalingMetric

    class Session:
        def post(self, url: str, json: Any, **_: Any) -> None:
            raise _Posted(url, json)

    text, said, back = scaled("endpoints", tmp_path)
    assert back == SCALED
    assert "autoscale" not in said
    monkeypatch.setattr(hf_api, "get_session", Session)
    with pytest.raises(_Posted) as posted:
        HfApi(token="t").create_inference_endpoint(
            "n", namespace="me", repository="a/b", framework="pytorch", accelerator="gpu", instance_size="x1",
            instance_type="nvidia-l4", region="us-east-1", vendor="aws", min_replica=2, max_replica=5,
            scaling_metric=InferenceEndpointScalingMetric.PENDING_REQUESTS, scaling_threshold=9,
        )  # fmt: skip
    assert posted.value.args[1]["compute"]["scaling"] == json.loads(text)["compute"]["scaling"]


@pytest.mark.parametrize("name", ["cloudrun", "sagemaker", "endpoints", "azureml", "vertex"])
def test_a_fixed_number_of_servers_is_read_back(name: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(spec(name, "plain") + "container: {replicas: 3}\n")
    emitted = run("emit", str(tmp_path / "spec.yaml"), "--format", name, "--source", "snapshot")
    file = tmp_path / FORMS[name].file
    file.write_text(emitted.out)
    back = yaml.safe_load(run("import", str(file), "--gpu", FORMS[name].gpu).out)
    assert back["container"]["replicas"] == 3
    assert "autoscale" not in back


@pytest.mark.parametrize("name", ["kserve", "dstack", "cloudrun", "azureml"])
def test_device_ids_and_the_folder_of_the_weights_are_found_again(name: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        spec(name, "plain") + 'container: {gpus: ["1"], cache: /srv/weights, port: 81}\n'
    )
    emitted = run("emit", str(tmp_path / "spec.yaml"), "--format", name, "--source", "snapshot")
    file = tmp_path / FORMS[name].file
    file.write_text(emitted.out)
    back = yaml.safe_load(run("import", str(file), "--gpu", FORMS[name].gpu).out)["container"]
    assert (back["gpus"], back["cache"], back["port"]) == (["1"], "/srv/weights", 81)


def test_a_manifest_keeps_what_a_cluster_has_no_words_for(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "model: {id: Qwen/Qwen2.5-7B-Instruct}\nhardware: {gpu: nvidia-l4}\n"
        'container: {gpus: ["1"], cache: /srv/weights, port: 81}\n'
    )
    emitted = run("emit", str(tmp_path / "spec.yaml"), "--format", "kubernetes", "--source", "snapshot")
    (tmp_path / "all.yaml").write_text(emitted.out)
    back = yaml.safe_load(run("import", str(tmp_path / "all.yaml"), "--gpu", "nvidia-l4").out)["container"]
    assert (back["gpus"], back["cache"], back["port"]) == (["1"], "/srv/weights", 81)
