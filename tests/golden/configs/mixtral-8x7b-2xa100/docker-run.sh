docker run --rm \
    --name mixtral \
    --gpus all \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id mistralai/Mixtral-8x7B-Instruct-v0.1 \
    --num-shard 2 \
    --dtype bfloat16 \
    --max-input-tokens 25406 \
    --max-total-tokens 26430 \
    --max-batch-prefill-tokens 2052
