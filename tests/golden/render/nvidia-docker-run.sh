docker run --rm \
    --name llama \
    --gpus '"device=0,1"' \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e TGI_WIGGLE_ROOM=0.95 \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id meta-llama/Llama-3.3-70B-Instruct \
    --num-shard 2 \
    --trust-remote-code \
    --max-input-tokens 7168 \
    --max-total-tokens 8192
