docker run --gpus all -e MAX_TOTAL_TOKENS=4096 ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-total-tokens 2048 --max-total-tokens=3000
