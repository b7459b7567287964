docker run --rm \
    --name tgi \
    --gpus all \
    --shm-size 1g \
    -p 8080:18080 \
    -v "$PWD"/data:/tmp \
    -e AIP_HTTP_PORT=18080 \
    -e HF_TOKEN \
    us-docker.pkg.dev/deeplearning-platform-release/gcr.io/huggingface-text-generation-inference-cu124.2-4.ubuntu2204.py311 \
    --model-id Qwen/Qwen2.5-7B-Instruct \
    --num-shard 1 \
    --max-input-tokens 12515 \
    --max-total-tokens 13539 \
    --max-batch-prefill-tokens 12515
