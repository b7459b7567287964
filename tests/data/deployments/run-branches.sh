if [ -n "$1" ]; then
  MODEL=$1
  SHARDS=2
else
  MODEL=org/a
  SHARDS=2
fi
DTYPE=${DTYPE:-float16}
args=(--num-shard $SHARDS)
args+=(--dtype "$DTYPE")
podman run --device nvidia.com/gpu=all ghcr.io/huggingface/text-generation-inference:2.4.1 --model-id $MODEL "${args[@]}"
