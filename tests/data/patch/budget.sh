docker run --gpus all -e MAX_BATCH_TOTAL_TOKENS=4096 \
  ghcr.io/huggingface/text-generation-inference:2.0.4 --model-id Qwen/Qwen2.5-7B-Instruct
