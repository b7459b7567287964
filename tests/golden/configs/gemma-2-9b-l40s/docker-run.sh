docker run --rm \
    --name gemma \
    --gpus all \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id google/gemma-2-9b-it \
    --num-shard 1 \
    --max-input-tokens 7168 \
    --max-total-tokens 8192 \
    --max-batch-prefill-tokens 8192
