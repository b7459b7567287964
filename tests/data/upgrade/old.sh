#!/bin/sh
docker run --gpus '"device=0"' --shm-size 1g -p 8080:80 -v "$PWD/data:/data" \
    ghcr.io/huggingface/text-generation-inference:2.4.1 \
    --model-id Qwen/Qwen2.5-7B-Instruct \
    --max-input-tokens 3000 --max-total-tokens 4096 --max-batch-prefill-tokens 4096
