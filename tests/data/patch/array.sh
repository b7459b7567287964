ARGS=(
  --model-id Qwen/Qwen2.5-7B-Instruct
  --max-total-tokens 4096  # limit
)
docker run --gpus all ghcr.io/huggingface/text-generation-inference:3.3.7 "${ARGS[@]}"
