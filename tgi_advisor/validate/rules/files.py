"""TGI510-TGI549: defects of the file itself, most of them found by the readers while they read it."""

from __future__ import annotations

import re

from tgi_advisor.validate.finding import Fix
from tgi_advisor.validate.rules.rule import FAILED, REPORT, Case, Hit, Hits, defect, no_check, rule


@defect("TGI510", "error", "YAML that cannot be read", "yaml-syntax")
def yaml_syntax(case: Case) -> Hits:
    """The text is no YAML: no tool will read it.

    Failing, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            command: [--model-id, Qwen/Qwen2.5-7B-Instruct

    Fixed, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            command: [--model-id, Qwen/Qwen2.5-7B-Instruct]
    """
    return no_check(case)


@defect("TGI511", "error", "key that stands twice", "duplicate-yaml-key")
def duplicate_key(case: Case) -> Hits:
    """The same key stands twice in one mapping. Compose refuses the file; other readers keep the last one.

    Failing, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            environment:
              MODEL_ID: Qwen/Qwen2.5-7B-Instruct
            environment:
              LOG_LEVEL: debug

    Fixed, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            environment:
              MODEL_ID: Qwen/Qwen2.5-7B-Instruct
              LOG_LEVEL: debug
    """
    return no_check(case)


@defect("TGI512", "error", "backslash in a folded text", "yaml-folded-backslash")
def folded_backslash(case: Case) -> Hits:
    r"""YAML folds these lines into one, so a backslash at a line's end is followed by a blank.

    The shell then hands the launcher an argument that begins with a blank. Leave the backslashes out, or
    write the text as a block (`|`).

    Failing, service.dstack.yml::

        type: service
        image: tgi:3.3.7
        env:
          - MODEL_ID=Qwen/Qwen2.5-7B-Instruct
        commands:
          - text-generation-launcher \
            --max-input-tokens 512 --max-total-tokens 1024 \
            --port 8000
        port: 8000
        volumes:
          - /data:/data

    Fixed, service.dstack.yml::

        type: service
        image: tgi:3.3.7
        env:
          - MODEL_ID=Qwen/Qwen2.5-7B-Instruct
        commands:
          - text-generation-launcher
            --max-input-tokens 512 --max-total-tokens 1024
            --port 8000
        port: 8000
        volumes:
          - /data:/data
    """
    return no_check(case)


@defect("TGI513", "error", "alias without its anchor", "yaml-unknown-alias")
def unknown_alias(case: Case) -> Hits:
    """`*name` refers to an anchor `&name` that is not in the file.

    Failing, compose.yaml::

        services:
          tgi:
            <<: *common
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            command: --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed, compose.yaml::

        x-common: &common
          restart: unless-stopped
        services:
          tgi:
            <<: *common
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            command: --model-id Qwen/Qwen2.5-7B-Instruct
    """
    return no_check(case)


@defect("TGI514", "warning", "file that was not read to its end", "too-deep")
def too_deep(case: Case) -> Hits:
    """The file nests deeper, or grows larger through its aliases, than anything people write.

    There is no short example of it.
    """
    return no_check(case)


@defect("TGI520", "error", "blank behind a line's backslash", "trailing-space-after-backslash")
def trailing_space(case: Case) -> Hits:
    r"""A backslash continues a line only as its very last character.

    With a blank or a comment behind it the command ends there, and the next line is run as a command of
    its own: the server starts with default limits, or not at all.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 \
            --model-id Qwen/Qwen2.5-7B-Instruct \  # the model
            --num-shard 1

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 \
            --model-id Qwen/Qwen2.5-7B-Instruct \
            --num-shard 1
    """
    return no_check(case)


@defect("TGI521", "error", "line that is not continued", "broken-line-continuation")
def broken_continuation(case: Case) -> Hits:
    r"""A backslash is missing in the middle of the command: it ends there, and the rest is lost.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 \
            --model-id Qwen/Qwen2.5-7B-Instruct
            --num-shard 1 \
            --max-concurrent-requests 64

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 \
            --model-id Qwen/Qwen2.5-7B-Instruct \
            --num-shard 1 \
            --max-concurrent-requests 64
    """
    return no_check(case)


@defect("TGI522", "error", "command a shell cannot read", "shell-syntax", "shell-placeholder")
def shell_syntax(case: Case) -> Hits:
    r"""A quote is never closed, or `<` and `>` of a placeholder are redirections to a shell.

    Failing::

        model=<your model>
        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $model

    Fixed::

        model=Qwen/Qwen2.5-7B-Instruct
        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $model
    """
    return no_check(case)


@defect("TGI523", "warning", "tilde that stays a tilde", "shell-tilde-not-expanded")
def tilde(case: Case) -> Hits:
    r"""A shell expands `~` only at the start of a word without quotes: here it stays as it is.

    Docker then makes a folder or a volume of that very name. `$HOME` works inside quotes too.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v "~/models:/data" \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v "$HOME/models:/data" \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    return no_check(case)


@defect("TGI524", "error", "option that swallows the next one", "docker-flag-swallowed")
def flag_swallowed(case: Case) -> Hits:
    r"""A Docker option without its value takes the next word for it, and the rest of the line slips.

    Failing::

        docker run --gpus all --shm-size 1g -e -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    return no_check(case)


@defect("TGI526", "error", "value without its option", "docker-value-alone")
def value_alone(case: Case) -> Hits:
    r"""Docker takes the first word that is no option for the image: a folder, a port or a variable there is refused.

    The option before it was lost: `-v`, `-p` or `-e`.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 ./data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v ./data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    return no_check(case)


@defect("TGI529", "error", "launcher's argument before the image", "docker-flag-early")
def flag_before_the_image(case: Case) -> Hits:
    r"""What stands before the image are options of Docker, which stops at one that it does not have (`unknown flag`).

    The server is judged with the argument behind the image.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data --model-id Qwen/Qwen2.5-7B-Instruct \
            ghcr.io/huggingface/text-generation-inference:3.3.7

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    return no_check(case)


@defect("TGI527", "info", "included file that is not there", "compose-not-read")
def not_included(case: Case) -> Hits:
    """A Compose file includes another that is not beside it: a server in that one is not judged.

    Failing, compose.yaml::

        include: [llm/compose.yaml]
        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            command: [--model-id, Qwen/Qwen2.5-7B-Instruct]

    Fixed, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7
            volumes: [./data:/data]
            runtime: nvidia
            command: [--model-id, Qwen/Qwen2.5-7B-Instruct]
    """
    return no_check(case)


@defect("TGI528", "warning", "variable that is set nowhere", "shell-never-set")
def never_set(case: Case) -> Hits:
    r"""The command uses a variable of the script's own that the script does not set, though it sets others.

    A shell leaves nothing of it, and the words around it move together.

    Failing::

        volume=/srv/models
        docker run --gpus all --shm-size 1g -p 8080:80 -v $volume:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $model

    Fixed::

        model=Qwen/Qwen2.5-7B-Instruct
        volume=/srv/models
        docker run --gpus all --shm-size 1g -p 8080:80 -v $volume:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $model
    """
    return no_check(case)


@defect("TGI525", "warning", "Dockerfile instruction in a shell", "dockerfile-syntax-in-shell")
def dockerfile_in_shell(case: Case) -> Hits:
    r"""ARG and ENV are instructions of a Dockerfile: a shell knows no such command, and sets nothing.

    Failing::

        ARG model=Qwen/Qwen2.5-7B-Instruct
        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $model

    Fixed::

        model=Qwen/Qwen2.5-7B-Instruct
        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $model
    """
    return no_check(case)


@defect("TGI530", "error", "selector that selects nothing", "k8s-missing-selector", "k8s-selector-mismatch")
def selector(case: Case) -> Hits:
    """A Deployment needs a selector, and the labels of its pods must match it: the API server refuses others.

    Failing, deployment.yaml::

        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: tgi}
        spec:
          template:
            metadata: {labels: {app: tgi}}
            spec:
              containers:
                - name: tgi
                  image: tgi:3.3.7
                  args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
                  resources: {limits: {nvidia.com/gpu: 1}}
                  volumeMounts: [{name: data, mountPath: /data}]
              volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]

    Fixed, deployment.yaml::

        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: tgi}
        spec:
          selector: {matchLabels: {app: tgi}}
          template:
            metadata: {labels: {app: tgi}}
            spec:
              containers:
                - name: tgi
                  image: tgi:3.3.7
                  args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
                  resources: {limits: {nvidia.com/gpu: 1}}
                  volumeMounts: [{name: data, mountPath: /data}]
              volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]
    """
    return no_check(case)


@defect("TGI531", "error", "deployment spec that cannot be read", "spec")
def own_spec(case: Case) -> Hits:
    """The file is a deployment spec of tgi-advisor, and something in it is wrong.

    Failing, spec.yaml::

        model:
          id: Qwen/Qwen2.5-7B-Instruct
        hardware:
          gpu: nvidia-l4
          cuont: 1

    Fixed, spec.yaml::

        model:
          id: Qwen/Qwen2.5-7B-Instruct
        hardware:
          gpu: nvidia-l4
          count: 1
    """
    return no_check(case)


@rule("TGI532", "error", "number where Kubernetes wants text")
def untyped_value(case: Case) -> Hits:
    """The API server takes texts in `args`, `command` and `env` only: a bare number or boolean is refused.

    It answers `cannot unmarshal number into Go struct field EnvVar...value of type string`.

    Failing, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              env:
                - name: NUM_SHARD
                  value: 1
              resources: {limits: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]

    Fixed, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              env:
                - name: NUM_SHARD
                  value: "1"
              resources: {limits: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]
    """
    if case.server.form != "kubernetes":
        return
    lines = case.document.text.split("\n")
    for value in (*case.server.args, *case.server.env.values()):
        if not value.known or not _NOT_TEXT.fullmatch(value.text) or not 0 < value.place.line <= len(lines):
            continue
        line, at = lines[value.place.line - 1], value.place.column - 1
        whole = line[at:].startswith(value.text) and _NODE_END.match(line, at + len(value.text))
        if whole and _NODE_START.search(line[:at]):
            kind = "boolean" if value.text.isalpha() else "number"
            step = f'write "{value.text}", with its quotes'
            fix = Fix(value.spot, value.text, f'"{value.text}"')
            yield Hit(value, f"{value.text} is a {kind} to YAML, and Kubernetes takes texts here only", step, fix=fix)


_NOT_TEXT = re.compile(r"[+-]?\d+(\.\d*)?|true|false")
_NODE_START = re.compile(r"(?:\bvalue[\"']?:|^\s*-|[\[,])\s*$")
_NODE_END = re.compile(r"\s*(?:$|[,\]}]|\s#)")


@defect("TGI540", "info", "ignore comment that says too little", "ignore-comment")
def ignore_comment(case: Case) -> Hits:
    """A comment that ignores a finding names its code and gives a reason, for whoever reads the file next.

    It stands on the line of the finding, or on a line of its own above; there it covers the next line and
    the lines that line is continued on. Without a reason it still ignores, and this remark asks for one;
    without a code, or with one that does not exist, it ignores nothing.

    Failing, compose.yaml::

        services:
          tgi:
            image: tgi:latest # tgi-advisor: ignore[TGI501]
            command: --model-id Qwen/Qwen2.5-7B-Instruct
            ports: ["8080:80"]
            volumes: [tgi-data:/data]
            deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}

    Fixed, compose.yaml::

        services:
          tgi:
            image: tgi:latest # tgi-advisor: ignore[TGI501] the nightly test wants whatever is newest
            command: --model-id Qwen/Qwen2.5-7B-Instruct
            ports: ["8080:80"]
            volumes: [tgi-data:/data]
            deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
    """
    return no_check(case)


@rule(FAILED, "warning", "defect of tgi-advisor")
def own_defect(case: Case) -> Hits:
    """Something in tgi-advisor itself went wrong while this server was judged, and one rule or the outlook is missing.

    Everything else about the file holds. Please report it with the file, or the part of it that does it.
    """
    if case.defect:
        message = f"what TGI makes of it was not worked out, because of a defect of tgi-advisor: {case.defect}"
        yield Hit(case.home, message, REPORT)
