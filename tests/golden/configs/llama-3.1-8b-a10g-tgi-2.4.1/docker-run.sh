docker run --rm \
    --name llama \
    --gpus all \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:2.4.1 \
    --model-id meta-llama/Llama-3.1-8B-Instruct \
    --num-shard 1 \
    --max-input-tokens 10990 \
    --max-total-tokens 12014 \
    --max-batch-prefill-tokens 10990
