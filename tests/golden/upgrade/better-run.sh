#!/bin/sh
docker run --gpus all --shm-size 1g -p 8080:80 -v "$PWD/data:/data" \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id Qwen/Qwen2.5-7B-Instruct \
    --max-input-length 31744 \
    --max-total-tokens 32768 \
    --max-batch-prefill-tokens 4096
