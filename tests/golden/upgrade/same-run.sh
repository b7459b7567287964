#!/bin/sh
docker run --gpus all --shm-size 1g -p 8080:80 -v "$PWD/data:/data" \
    -e TGI_WIGGLE_ROOM=0.94 \
    -e ATTENTION=paged \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id Qwen/Qwen2.5-7B-Instruct \
    --max-input-length 1500 \
    --waiting-served-ratio 1.2 \
    --usage-stats off \
    --cuda-graphs 1,2,4,8,16,24,32,40,48,56,64 \
    --enable-prefill-logprobs \
    --max-total-tokens 2048 \
    --max-batch-prefill-tokens 4096
