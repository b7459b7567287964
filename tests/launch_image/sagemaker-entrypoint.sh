#!/bin/sh
[ -n "$HF_MODEL_ID" ] || { echo "HF_MODEL_ID must be set"; exit 1; }
export MODEL_ID="$HF_MODEL_ID"
[ -z "$HF_MODEL_REVISION" ] || export REVISION="$HF_MODEL_REVISION"
[ -z "$SM_NUM_GPUS" ] || export NUM_SHARD="$SM_NUM_GPUS"
text-generation-launcher --port 8080
