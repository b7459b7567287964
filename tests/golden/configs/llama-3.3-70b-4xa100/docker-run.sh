docker run --rm \
    --name llama-70b \
    --gpus all \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id meta-llama/Llama-3.3-70B-Instruct \
    --num-shard 4 \
    --dtype bfloat16 \
    --max-input-tokens 56865 \
    --max-total-tokens 58913 \
    --max-batch-prefill-tokens 2050
