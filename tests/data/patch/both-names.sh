docker run --gpus all ghcr.io/huggingface/text-generation-inference:3.3.7 \
  --model-id Qwen/Qwen2.5-7B-Instruct \
  --max-input-length 100 \
  --max-input-tokens 200 \
  --max-total-tokens 2048
