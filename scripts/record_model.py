#!/usr/bin/env python3
"""Record models into the package: tgi_advisor/facts/snapshots/<org>--<name>.json.

    python scripts/record_model.py meta-llama/Llama-3.1-8B-Instruct Qwen/Qwen3-8B
    python scripts/record_model.py --id my-org/my-model ./checkpoint-folder
    python scripts/record_model.py ./recordings/*

A source is a Hub id (HF_ENDPOINT and HF_TOKEN are honoured; only headers are fetched), a folder with
config.json and weights, or a *recording*: a folder with

    config.json    as the Hub has it
    tensors.json   [[name, dtype, shape], ...]: every tensor of the published weights
    facts.json     repo_id, aliases, gated, weights_format, safetensors_shards, published_params with its
                   confidence, config_provenance (copy, copy-restored or assembled)
    source.txt     where config.json came from, below a first line that says which of the three it is
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.gather import checkpoint, folder, snapshot
from tgi_advisor.gather.class_defaults import fill_defaults

DOUBTS = {
    "amazon/FalconLite": "vocabulary of 65,040 and the GPTQ settings assumed",
    "amazon/FalconLite2": "vocabulary of 65,040 and the GPTQ settings assumed",
    "amazon/MistralLite": "sliding_window not certain",
    "bigscience/bloom": "tensor names have no 'transformer.' prefix",
    "CohereForAI/c4ai-command-r-plus": "context length of the later upload (the first said 8,192)",
    "deepseek-ai/DeepSeek-R1": "the Hub's count leaves out the FP8 scales, 0.006 %",
    "EleutherAI/gpt-j-6b": "the model card's count is 0.04 % higher; branch float16 holds half the bytes",
    "google/flan-t5-xl": "torch_dtype not certain",
    "google/flan-t5-xxl": "torch_dtype not certain",
    "google/flan-ul2": "file format and storage dtype not certain",
    "HuggingFaceM4/idefics-9b": "storage in BF16 assumed",
    "HuggingFaceM4/idefics2-8b": "storage in F32 and torch_dtype not certain",
    "meta-llama/Llama-3.1-405B-Instruct": "8 KV heads as now; the first upload had 16",
    "meta-llama/Llama-3.1-405B-Instruct-FP8": "scales in BF16 assumed; F32 would add 30 MB",
    "microsoft/Phi-3-small-128k-instruct": "remote code: tensors listed by hand; rope_scaling missing",
    "microsoft/Phi-3.5-MoE-instruct": "rope_scaling missing",
    "mistralai/Mistral-Nemo-Instruct-2407": "context length of the later upload (the first said 1,024,000)",
    "nvidia/Llama3-ChatQA-1.5-8B": "torch_dtype float16 assumed",
    "OpenAssistant/falcon-40b-sft-top1-560": "vocabulary of 65,040 assumed",
    "OpenAssistant/falcon-7b-sft-top1-696": "vocabulary of 65,040 assumed",
    "OpenLemur/lemur-70b-v1": "vocabulary, storage dtype and file format assumed",
    "state-spaces/mamba-2.8b": "config.json names no model_type, as published",
    "Tejasw1/votum-13b-v1": "taken to be a Llama 2 13B",
    "TheBloke/Falcon-180B-Chat-GPTQ": "4 bit without groups, as the model card's main branch",
    "TheBloke/falcon-40b-instruct-GPTQ": "desc_act not certain",
    "Trelis/Llama-2-7b-chat-hf-hosted-inference-8bit": "16-bit storage assumed; 8 bit by name only",
}
"""What is not certain about a recording, beyond what its facts.json says."""

CONFIG = {
    "copy": "config.json is a public copy of the Hub's",
    "copy-restored": "config.json is a public copy of the Hub's with some keys put back",
    "assembled": "config.json was put together from published architecture numbers, not read from the Hub",
}


def from_recording(place: Path) -> tuple[ModelFacts, list[str], int | None]:
    """Facts, aliases and number of files of a recording folder."""
    said = json.loads((place / "facts.json").read_bytes())
    config = checkpoint.read_config((place / "config.json").read_bytes(), str(place / "config.json"))
    header = {
        name: {"dtype": dtype, "shape": shape}
        for name, dtype, shape in json.loads((place / "tensors.json").read_bytes())
    }
    tensors, _ = checkpoint.group_tensors([header], config.get("num_hidden_layers"))
    made = ModelFacts(
        said["repo_id"], None, "", config, fill_defaults(config), tensors,
        gated=bool(said["gated"]), weights_format=said["weights_format"],
    )  # fmt: skip
    return made._replace(provenance=provenance(made, said, place)), said["aliases"], said["safetensors_shards"]


def provenance(facts: ModelFacts, said: dict[str, Any], place: Path) -> str:
    """How far a recording can be trusted, in three sentences: its configuration, its tensors, the rest."""
    kind = said["config_provenance"]
    origin = re.match(r"(?:.*\n)?(?:pip (\S+)|([\w.-]+/[\w.-]+)(?:@\w+)?(?: |'s))", (place / "source.txt").read_text())
    where = f" ({origin[1] or origin[2]})" if origin and kind != "assembled" else ""
    published, counted = said["published_params"], checkpoint.parameter_count(facts.config, facts.tensors)
    if published is None:
        count = "no published count to compare with"
    elif counted != published:
        count = f"their count differs by {abs(counted - published) / published:.3%} from the published one"
    elif said["published_params_confidence"] != "high":
        count = "their count equals the one commonly quoted, which is no proof"
    elif said["published_params_source"].startswith("Hub safetensors metadata, as recorded"):
        count = "their count equals the Hub's, as the llmfit catalogue quotes it"
    else:
        count = "their count equals the published one of the same shapes"
    rest = "Storage dtype and gating" if kind == "assembled" else "Gating"
    text = f"{CONFIG[kind]}{where}. Tensors follow from the model class; {count}. {rest} not re-read from the Hub."
    doubt = DOUBTS.get(facts.id)
    return f"{text} Not certain or odd: {doubt}." if doubt else text


def from_folder(place: Path, model_id: str) -> tuple[ModelFacts, list[str], int | None]:
    """Facts and number of files of a checkpoint folder."""
    facts = folder.read(str(place))
    files = checkpoint.which_files([path.name for path in place.iterdir()], str(place)).files
    return (
        facts._replace(id=model_id, provenance="config.json and tensor headers as they are in the files."),
        [],
        len(files),
    )


def from_hub(repo: str, revision: str) -> tuple[ModelFacts, list[str], int | None]:
    """Facts and number of files of a Hub repository, read through huggingface_hub."""
    from huggingface_hub import HfApi, hf_hub_download

    api = HfApi()
    info = api.model_info(repo, revision=revision)
    files = checkpoint.which_files([sibling.rfilename for sibling in info.siblings or ()], repo)
    if files.format == "bin":
        raise SystemExit(f"{repo} has no safetensors: its tensors cannot be read without downloading all of it")
    config = checkpoint.read_config(Path(hf_hub_download(repo, "config.json", revision=info.sha)).read_bytes(), repo)
    headers = []
    for name in files.files:
        read = api.parse_safetensors_file_metadata(repo, name, revision=info.sha)
        headers.append({key: {"dtype": tensor.dtype, "shape": tensor.shape} for key, tensor in read.tensors.items()})
    tensors, _ = checkpoint.group_tensors(headers, config.get("num_hidden_layers"))
    length = None
    if any(sibling.rfilename == "tokenizer_config.json" for sibling in info.siblings or ()):
        tokenizer = Path(hf_hub_download(repo, "tokenizer_config.json", revision=info.sha))
        length = checkpoint.model_max_length(checkpoint.read_json(tokenizer.read_bytes(), tokenizer.name))
    facts = ModelFacts(
        info.id, info.sha, "", config, {}, tensors, model_max_length=length, gated=bool(info.gated),
        provenance="config.json and tensor headers as read from the Hub.",
    )  # fmt: skip
    return facts, [repo] if repo != info.id else [], len(files.files)


def as_json(facts: ModelFacts, files: int | None, recorded: str) -> str:
    """The snapshot file of a model: one line a field, one a group of tensors."""
    head = {
        "format": snapshot.FORMAT, "id": facts.id, "recorded": recorded, "commit": facts.commit, "gated": facts.gated,
        "weights_format": facts.weights_format, "files": files, "model_max_length": facts.model_max_length,
        "provenance": facts.provenance, "config": facts.config,
    }  # fmt: skip
    lines = [f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in head.items()]
    rows = [json.dumps([g.name, g.dtype, g.shape, g.count], separators=(",", ":")) for g in facts.tensors]
    return "{" + ",\n".join([*lines, '"tensors":[\n' + ",\n".join(rows) + "]"]) + "}\n"


def main() -> None:
    """Record every source named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="Hub id, checkpoint folder, or recording folder")
    parser.add_argument("--id", help="Hub id of a checkpoint folder")
    parser.add_argument("--revision", default="main", help="branch, tag or commit on the Hub")
    parser.add_argument("--recorded", default=datetime.date.today().isoformat(), help="date of the recording")
    parser.add_argument("--out", type=Path, default=snapshot.FOLDER, help="folder to write into")
    given = parser.parse_args()
    known = given.out / "aliases.json"
    aliases = json.loads(known.read_bytes()) if known.exists() else {}
    for source in given.sources:
        place = Path(source)
        if (place / "tensors.json").is_file():
            facts, others, files = from_recording(place)
        elif place.is_dir():
            facts, others, files = from_folder(place, given.id or parser.error("a checkpoint folder needs --id"))
        else:
            facts, others, files = from_hub(source, given.revision)
        text = as_json(facts, files, given.recorded)
        snapshot.read(text, facts.id)
        (given.out / f"{facts.id.replace('/', '--', 1)}.json").write_text(text)
        aliases.update(dict.fromkeys(others, facts.id))
        print(f"{facts.id}: {facts.stored_bytes:,} bytes in {len(facts.tensors)} groups of tensors")
    known.write_text(json.dumps(dict(sorted(aliases.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
