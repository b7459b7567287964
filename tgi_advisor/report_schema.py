"""The JSON Schema of what `advise --json` and `predict --json` print (`tgi-advisor schema plan`)."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def plan_schema() -> Schema:
    """The schema (draft 2020-12) of `report.document` and of the object an error prints instead."""
    from tgi_advisor.report import LIMITS, SCHEMA_VERSION

    version = {
        "const": SCHEMA_VERSION,
        "description": "Raised when a name changes its meaning or goes; new names come without.",
    }
    plan = _object(
        schema_version=version,
        outcome=_one_of("starts", "refused", "out_of_memory", about="What TGI does with these limits."),
        stage=_or_null(_one_of("launcher", "load", "warmup", "router", about="Where it stops; null when it starts.")),
        reason=_or_null(_text("Why it stops, beginning with TGI's own message for a refusal; null when it starts.")),
        next_steps=_list(_text("What to do about it, most useful first.")),
        limits=_object(**{name: _or_null(_whole("Tokens; null when not known.")) for name in LIMITS}),
        concurrency=_or_null(_whole("Requests of max_total_tokens the KV cache holds together.")),
        memory=_object(
            gpu_total_bytes=_whole("Memory of the GPU that binds, as nvidia-smi prints it."),
            parts=_list(
                _object(
                    name=_text("What it is."),
                    bytes=_whole("Bytes on that GPU."),
                    basis=_one_of("exact", "modelled", "calibrated", about="From files, code, or real runs."),
                    why=_text("Where the number comes from."),
                )
            ),
            kv_bytes_per_token=_whole("KV cache bytes of one token on that GPU."),
            headroom_bytes={"type": "integer", "description": "Bytes to spare; negative: missing."},
            pytorch=_or_null(
                _object(
                    reserved_after_load_bytes=_whole("What PyTorch's allocator has reserved when the model is there."),
                    reserved_at_peak_bytes=_or_null(
                        _whole("The same when TGI reads what is free; null when loading does not get that far.")
                    ),
                )
            ),
        ),
        release=_text("TGI release."),
        attention=_text("Attention back end."),
        block_size=_whole("Tokens per KV block."),
        num_shard=_whole("Tensor parallel shards."),
        prefill_chunking={"type": "boolean", "description": "Whether prefills are chunked."},
        dtype=_text("dtype of weights and activations."),
        kv_cache_dtype=_text("dtype of the KV cache."),
        method=_one_of("tgi", "notebook", "notebook-tgi", about="Which estimate was used."),
        facts=_object(
            model=_object(
                id=_text("Model id."), commit=_or_null(_text("Commit.")), model_type=_or_null(_text("model_type.")),
                stored_bytes=_whole("Bytes of the checkpoint."), parameters=_whole("Elements of the checkpoint."),
                source=_text("Where the facts came from."),
            ),
            gpu=_object(
                name=_text("GPU name."), count=_whole("GPUs the container sees."), memory_bytes=_whole("Bytes of one."),
                system=_text("cuda, rocm, xpu, cpu or gaudi."),
                driver=_or_null(_text("NVIDIA driver of the machine; null where it is not known.")),
                link=_or_null(_text("How the GPUs reach each other: nvswitch, nvlink, pcie, host. Null: not NVIDIA.")),
                source=_text("Where the facts came from."),
            ),
            release=_object(
                version=_text("TGI release."), variant=_or_null(_text("Image variant.")), source=_text("Origin."),
            ),
        ),
        search=_or_null(
            _object(
                evaluations=_whole("Warm-ups replayed."),
                bound_by=_or_null(_text("What stopped max_total_tokens from growing.")),
                headroom_bytes=_whole("Safety margin kept per GPU."),
                headroom_why=_text("Why that much."),
                riskier=_or_null(_other("Longer requests that would start, but be at risk.")),
                trade=_or_null(_other("What the other workload.prefer finds; null where it finds the same.")),
            )
        ),
        uncertainty=_or_null(
            _object(
                spread_bytes=_whole("Bytes of one GPU by which the KV cache may come out smaller or larger."),
                max_batch_total_tokens_low=_whole("The inferred budget at the lower end."),
                max_batch_total_tokens_high=_whole("The inferred budget at the upper end."),
                similar_runs=_whole("Real runs like this one whose budget is known."),
                why=_text("Where the band comes from."),
                contributions=_list(
                    _object(
                        name=_text("What may differ from machine to machine."),
                        bytes=_whole("By how much, either way; the spread is the root of the sum of their squares."),
                        why=_text("Where that comes from."),
                    )
                ),
            )
        ),
        under_load=_or_null(
            _object(
                verdict=_one_of("safe", "tight", "at risk", about="Whether it survives its traffic."),
                spare_bytes={"type": "integer", "description": "What the worst moment leaves; negative: lacks."},
                why=_text("The worst moment against what there is."),
            )
        ),
        capture=_or_null(
            _object(
                outcome=_one_of("fits", "may_not_fit", about="Whether the CUDA graphs fit beside a full KV cache."),
                then=_or_null(_one_of("goes_on", "ends", about="The worst that TGI does then; null where they fit.")),
                needed_bytes=_whole("What they take on one GPU."),
                left_bytes={"type": "integer", "description": "What is left for them; negative: nothing."},
                why=_text("One against the other, and what happens then."),
                next_step=_or_null(_text("What to do about it; null where they fit.")),
            )
        ),
        speed=_or_null(
            _object(
                prompt_tokens=_whole("Tokens of the prompts: max_input_tokens."),
                answer_tokens=_whole("Tokens of the answers: what max_total_tokens leaves."),
                alone=_fast("With one such request."),
                full=_or_null(_fast("With as many as the KV cache holds; null where that is one.")),
            )
        ),
        warnings=_list(_text("Things that work but surprise.")),
        container=_or_null(_container()),
        extra={"type": "object", "description": "Figures of another method, under its own names."},
    )  # fmt: skip
    error = _object(
        schema_version=version,
        error=_object(
            exit_code=_whole("Exit code of the command."),
            kind=_text("Its name."),
            message=_text("What happened."),
            hint=_or_null(_text("What to do next.")),
            problems=_list(
                _object(
                    message=_text("What is wrong."), hint=_or_null(_text("What to write instead.")),
                    file=_or_null(_text("File, `<stdin>`, `command line` or `--set ...`.")),
                    line=_or_null(_whole("Line, from 1.")), column=_or_null(_whole("Column, from 1.")),
                )
            ),
        ),
    )  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tgi-advisor plan",
        "oneOf": [plan, error, _together(version)],
    }


def _fast(about: str) -> Schema:
    """How fast a server is with so many requests at once."""
    tokens = _figure("Tokens per second of the whole server; null where no measurement supports an estimate.")
    return {"description": about} | _object(
        requests=_whole("Requests at once."),
        bound_tokens_per_s=_or_null(_number("Tokens per second the memory bandwidth does not let it exceed.")),
        tokens_per_s=tokens,
        first_token_s=_figure("Seconds to the first token with nobody else there."),
        why_not=_or_null(_text("Why there is no estimate of tokens per second.")),
        note=_or_null(_text("What the release alone decides, and what the bound is counted with.")),
    )


def _figure(about: str) -> Schema:
    """An estimate with its band."""
    return _or_null(
        {"description": about}
        | _object(
            value=_number("The middle."), low=_number("Lower end of its band."), high=_number("Upper end."),
            label=_text("`estimated`, `rough` or `calibrated`."),
        )
    )  # fmt: skip


def _other(about: str) -> Schema:
    limits = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")
    return {"description": about} | _object(
        asks=_text("The field of the spec that asks for it, and its value."),
        limits=_object(**{name: _or_null(_whole("Tokens.")) for name in limits}),
    )


def _together(version: Schema) -> Schema:
    """What `advise` prints for several specs."""
    server = _object(
        name=_text("Container name."),
        memory_fraction={"type": "number", "description": "--cuda-memory-fraction it starts with."},
        in_use_bytes=_whole("What others hold on this GPU when it starts."),
        held_bytes=_whole("What it holds once it has started."),
        most_bytes=_whole("The most it may hold under load."),
    )
    gpu = _object(
        id=_text("Index or id of the device."),
        name=_text("Which GPU it is."),
        total_bytes=_whole("Its memory."),
        reserve_bytes=_whole("What the driver keeps."),
        foreign_bytes=_whole("What other programs hold."),
        servers=_list(server) | {"description": "In the order they start."},
        spare_bytes={"type": "integer", "description": "Left when every server is at its most; negative: missing."},
    )
    packing = _object(
        fits={"type": "boolean", "description": "Whether every server starts beside those before it."},
        order=_list(_text("Container names in the order they have to start.")),
        gpus=_list(gpu),
        notes=_list(_text("What to know about running them together.")),
        next_steps=_list(_text("What to do when they do not fit, most useful first.")),
    )
    return _object(schema_version=version, packing=packing, plans=_list({"$ref": "#/oneOf/0"}))


def _container() -> Schema:
    texts, pairs = _list({"type": "string"}), {"type": "object", "additionalProperties": {"type": "string"}}
    about = "Exactly what would run; null when advise found nothing that starts."
    return {"description": about} | _object(
        name=_text("Container name."), image=_text("Image with its tag."),
        args=texts | {"description": "Launcher arguments, one word each."},
        env=pairs | {"description": "Environment with literal values; never a token."},
        secret_env=pairs | {"description": "Name inside -> name of the caller's variable that holds the secret."},
        mounts=_list(
            _object(source=_text("Host folder or volume."), target=_text("Path inside."), read_only={"type": "boolean"})
        ),
        port=_whole("Port on the host."), container_port=_whole("Port inside."),
        gpus={"description": "`all`, device ids, or null without an NVIDIA GPU.",
              "anyOf": [{"type": "string"}, texts, {"type": "null"}]},
        gpu_count=_whole("GPUs it uses."), shm_size=_text("Size of /dev/shm, as docker writes it."),
    )  # fmt: skip


def _object(**properties: Schema) -> Schema:
    """All properties are always there; later versions may add more."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _text(about: str) -> Schema:
    return {"type": "string", "description": about}


def _whole(about: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": about}


def _number(about: str) -> Schema:
    return {"type": "number", "minimum": 0, "description": about}


def _one_of(*values: str, about: str) -> Schema:
    return {"enum": list(values), "description": about}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
