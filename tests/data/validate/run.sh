#!/bin/sh
# tgi-advisor: ignore[TGI320]
docker run --gpus all --shm-size 1g -p 8080:80 \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id Qwen/Qwen2.5-7B-Instruct \
    --num-shard 1 --max-input-tokens 400000 --max-total-tokens 500000 --max-batch-prefill-tokens 400000
