#!/bin/sh
# start
docker run --gpus all --shm-size 1g \
    -p 8080:80 \
    -e HF_TOKEN=$HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id Qwen/Qwen2.5-7B-Instruct \
    --max-total-tokens 4096
