docker run --rm \
    --name llama \
    --gpus all \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id meta-llama/Llama-3.1-8B-Instruct \
    --num-shard 1 \
    --max-input-tokens 27649 \
    --max-total-tokens 28673 \
    --max-batch-prefill-tokens 2490
