docker run --rm \
    --name qwen \
    --gpus all \
    --shm-size 1g \
    -p 8080:80 \
    -v "$PWD"/data:/data \
    -e ATTENTION=flashinfer \
    -e HF_TOKEN \
    ghcr.io/huggingface/text-generation-inference:3.3.7 \
    --model-id Qwen/Qwen2.5-7B-Instruct \
    --num-shard 1 \
    --dtype bfloat16 \
    --kv-cache-dtype fp8_e4m3fn \
    --max-input-tokens 30303 \
    --max-total-tokens 32351 \
    --max-batch-prefill-tokens 2053
